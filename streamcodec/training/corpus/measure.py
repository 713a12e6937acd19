"""Measure what a sound file really holds: its bandwidth, clipping and level, whatever its header says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

BANDWIDTH_FLOOR_DB = 60.0
"""A band counts as sound when its loud moments are at most this far below the loudest band's."""

_BAND_HZ = 250.0
_MAX_FRAMES = 400


def effective_bandwidth_hz(samples: Float32, rate_hz: int) -> float:
    """Highest frequency with sound in it, in steps of 250 Hz.

    samples: float32 [T].  Per band of 250 Hz the 95th percentile over time of the power is taken, over the frames
    within 50 dB of the loudest one; the answer is the top of the highest band within `BANDWIDTH_FLOOR_DB` of the
    strongest band.  A recording that was once sampled at 16 kHz gives about 8000 in a file of any rate.
    """
    size = 1 << max(8, round(np.log2(rate_hz * 0.023)))
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    count = min(_MAX_FRAMES, 1 + (len(samples) - size) // (size // 2))
    starts = np.linspace(0, len(samples) - size, count).astype(np.int64)
    frames = samples[starts[:, None] + np.arange(size)] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    total = power.sum(axis=1)
    power = power[total >= total.max() * 1e-5]
    edges = np.arange(0, rate_hz / 2 + _BAND_HZ, _BAND_HZ)
    first = np.searchsorted(np.fft.rfftfreq(size, 1 / rate_hz), edges[:-1])
    first = np.unique(first[first < power.shape[1]])
    widths = np.diff(np.append(first, power.shape[1]))
    bands = np.percentile(np.add.reduceat(power, first, axis=1) / widths, 95, axis=0)
    if bands.max() <= 0:
        return 0.0
    top = int(np.flatnonzero(bands >= bands.max() * 10 ** (-BANDWIDTH_FLOOR_DB / 10))[-1])
    return float(min((top + 1) * _BAND_HZ, rate_hz / 2))


def clipped_share(samples: Float32) -> float:
    """Share of samples [T, C] in runs of three or more at or above 0.985 of full scale, in the worst channel."""
    worst = 0.0
    for channel in samples.T:
        high = np.abs(channel) >= 0.985
        run = high[:-2] & high[1:-1] & high[2:]
        covered = np.zeros(len(channel), bool)
        for shift in range(3):
            covered[shift : shift + len(run)] |= run
        worst = max(worst, float(covered.mean()) if len(channel) else 0.0)
    return worst


def frame_levels_db(samples: Float32, frame_samples: int) -> Float32:
    """RMS level of each frame in dB of full scale; the last frame may be short.  samples: [T], not empty."""
    starts = np.arange(0, len(samples), frame_samples)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    lengths = np.diff(np.append(starts, len(samples)))
    levels: Float32 = (10 * np.log10(energy / lengths + 1e-20)).astype(np.float32)
    return levels
