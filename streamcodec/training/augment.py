"""Cheap changes of a crop: speed and pitch together, spectral tilt, background; numpy in, numpy out."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, lfilter, upfirdn

from streamcodec.training.corpus.prepare import RATE_HZ

Float32 = NDArray[np.float32]

SPEED_UP = 20
SPEED_DOWN = tuple(range(17, 24))
"""A speed factor is one of SPEED_DOWN over SPEED_UP: 0.85 to 1.15."""

_HALF_TAPS = 12
_TILT_PIVOT_HZ = 1000.0


def speed_factor(rng: np.random.Generator) -> int:
    """Numerator of a speed factor; half of the time 20, which changes nothing."""
    return SPEED_UP if rng.random() < 0.5 else int(rng.choice(SPEED_DOWN))


def source_samples(samples: int, factor: int) -> int:
    """Samples that `change_speed` needs to give `samples`."""
    if factor == SPEED_UP:
        return samples
    return -(-samples * factor // SPEED_UP) + 2 * _HALF_TAPS + 2


@cache
def _kernel(factor: int) -> Float32:
    """Linear-phase low-pass for up by SPEED_UP and down by factor, float32 [taps]."""
    taps = 2 * _HALF_TAPS * SPEED_UP + 1
    kernel: Float32 = (SPEED_UP * firwin(taps, 0.97 / max(factor, SPEED_UP), window=("kaiser", 7.0))).astype(np.float32)
    return kernel


def change_speed(wave: Float32, factor: int, samples: int) -> Float32:
    """Play `wave` [source_samples(samples, factor)] faster by factor/20, pitch with it; float32 [samples]."""
    if factor == SPEED_UP:
        return wave
    out = upfirdn(_kernel(factor), wave, SPEED_UP, factor)
    skip = -(-2 * _HALF_TAPS * SPEED_UP // factor)
    result: Float32 = out[skip : skip + samples]
    return result


def tilt(wave: Float32, gain_db: float) -> Float32:
    """First-order high shelf around 1 kHz: +gain_db above, -gain_db below.  wave: [T]."""
    root = 10 ** (gain_db / 20)
    warp = np.tan(np.pi * _TILT_PIVOT_HZ / RATE_HZ)
    high, low = root, 1 / root
    b = np.array([high + low * warp, low * warp - high], np.float32)
    a = np.array([1 + warp, warp - 1], np.float32)
    result: Float32 = lfilter(b, a, wave).astype(np.float32, copy=False)
    return result


def mix(wave: Float32, background: Float32, snr_db: float) -> Float32:
    """Add `background` [T] at `snr_db` below `wave` [T]; silence on either side adds nothing."""
    signal = float(np.dot(wave, wave))
    noise = float(np.dot(background, background))
    if signal < 1e-6 or noise < 1e-6:
        return wave
    return wave + background * np.float32(np.sqrt(signal / noise) * 10 ** (-snr_db / 20))
