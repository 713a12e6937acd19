"""Resample a mono stream by any ratio, which may change from sample to sample: windowed sinc, polyphase table.

Contract of every backend: `table` float32 [phases + 1, taps] holds the filter at `phases` fractions of a sample and
once more at 1; between two of them it is interpolated.  `buffer` float32 [capacity] holds the latest input.  `cursor`
float64 [2] is the place in the buffer, in samples, of the next output's first tap, and how many samples the buffer
holds.  A call appends `samples` [T], writes to `out` every output whose taps are all there, `step` input samples apart,
drops from the buffer what no later output needs, advances the cursor and returns how many were written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PHASES = 256


def sinc_table(half_taps: int, cutoff: float, beta: float = 7.0) -> NDArray[np.float32]:
    """Filter table [PHASES + 1, 2 half_taps].

    Parameters
    ----------
    half_taps : int
        Input samples on each side: the delay.
    cutoff : float
        Edge of the pass band, where the filter is at half, as a part of the input's Nyquist frequency.
    beta : float
        Shape of the Kaiser window; 7 keeps the stop band at about -70 dB.
    """
    fraction = np.arange(PHASES + 1)[:, None] / PHASES
    distance = np.arange(2 * half_taps)[None, :] - (half_taps - 1) - fraction
    window = np.i0(beta * np.sqrt(np.maximum(0, 1 - (distance / half_taps) ** 2))) / np.i0(beta)
    table = cutoff * np.sinc(cutoff * distance) * window
    normalised: NDArray[np.float32] = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
