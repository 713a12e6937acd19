"""Triangular mel filters on Slaney's scale, in numpy.

With f in Hz, Slaney's scale (Auditory Toolbox, 1998) is linear below 1 kHz and logarithmic above:

    mel(f) = 3 f / 200                                 f < 1000
    mel(f) = 15 + 27 ln(f / 1000) / ln(6.4)            f >= 1000

The m + 2 corners c of m filters stand at equal steps of mel from 0 Hz to half the sample rate.  Filter i rises
from c[i] to c[i + 1], falls to c[i + 2], and is scaled by 2 / (c[i + 2] - c[i]), so that its area over Hz is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CORNER_HZ = 1000.0
_CORNER_MEL = 15.0
_MEL_PER_LOG = 27.0 / np.log(6.4)


def hz_to_mel(hz: ArrayLike) -> NDArray[np.float64]:
    """Slaney mel of a frequency in Hz.

    Examples
    --------
    >>> [float(mel) for mel in hz_to_mel([0.0, 1000.0, 6400.0])]
    [0.0, 15.0, 42.0]
    """
    f = np.asarray(hz, np.float64)
    return np.where(
        f < _CORNER_HZ, f * 3 / 200, _CORNER_MEL + _MEL_PER_LOG * np.log(np.maximum(f, _CORNER_HZ) / _CORNER_HZ)
    )


def mel_to_hz(mel: ArrayLike) -> NDArray[np.float64]:
    """Frequency in Hz of a Slaney mel; inverse of `hz_to_mel`."""
    m = np.asarray(mel, np.float64)
    return np.where(
        m < _CORNER_MEL, m * 200 / 3, _CORNER_HZ * np.exp((np.maximum(m, _CORNER_MEL) - _CORNER_MEL) / _MEL_PER_LOG)
    )


def mel_filterbank(sample_rate_hz: int, window_samples: int, n_mels: int) -> NDArray[np.float32]:
    """Weights [window_samples / 2 + 1, n_mels] from magnitude bins of an FFT to mel bands."""
    corners = mel_to_hz(np.linspace(0.0, float(hz_to_mel(sample_rate_hz / 2)), n_mels + 2))
    bins = np.arange(window_samples // 2 + 1)[:, None] * (sample_rate_hz / window_samples)
    low, mid, high = corners[:-2], corners[1:-1], corners[2:]
    triangle = np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid))
    return (np.maximum(triangle, 0) * 2 / (high - low)).astype(np.float32)
