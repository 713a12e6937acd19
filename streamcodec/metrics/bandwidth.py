"""Bandwidth that a codec keeps, measured on its output."""

from __future__ import annotations

import numpy as np

from streamcodec.metrics.spectra import magnitude
from streamcodec.metrics.waveforms import Float32, Float64, check_pair

WINDOW_SAMPLES = 1024
BAND_HZ = 250.0
LOSS_DB = 12.0
FLOOR_DB = -60.0


def _inner_frames(waveform: Float64) -> Float64:
    """Magnitudes without the frames at the ends, where the reflection bends the waveform and leaks everywhere."""
    frames = magnitude(waveform, WINDOW_SAMPLES)
    return frames[2:-2] if len(frames) > 4 else frames


def bandwidth(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """Upper edge in Hz of the highest 250 Hz band that survived, 0 if none did.

    A band counts when its mean power is above -60 dB of the reference's loudest band, and has survived when the
    degraded power is at most 12 dB below the reference's.  With the same waveform twice: the reference's bandwidth.
    """
    x, y = check_pair(reference, degraded)
    bins_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / sample_rate_hz)
    band = (bins_hz[1:] / BAND_HZ).astype(int)
    power_x, power_y = (np.bincount(band, weights=np.square(_inner_frames(wave)).mean(axis=0)[1:]) for wave in (x, y))
    loud = power_x > power_x.max() * 10 ** (FLOOR_DB / 10)
    kept = loud & (power_y >= power_x * 10 ** (-LOSS_DB / 10))
    if not kept.any():
        return 0.0
    return float(min((np.flatnonzero(kept)[-1] + 1) * BAND_HZ, sample_rate_hz / 2))
