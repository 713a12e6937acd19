"""Delay and level of a decoded waveform, put right before scoring, so that a metric sees the codec's damage only."""

from __future__ import annotations

import numpy as np
from scipy.signal import correlate, correlation_lags

from streamcodec.metrics.waveforms import Float32

LONGEST_DELAY_S = 0.25
DELAY_MARGIN = 1.1
GAIN_LIMIT = 2.0


def delay_samples(reference: Float32, degraded: Float32, longest: int) -> int:
    """Samples by which `degraded` comes late, from -longest to longest, by cross-correlation.

    0 unless another delay correlates clearly better (10 %), since a periodic sound correlates well with itself moved
    by a period, and every codec here has had its nominal delay removed.
    """
    x = reference.astype(np.float64) - reference.mean()
    y = degraded.astype(np.float64) - degraded.mean()
    correlation = correlate(y, x, mode="full", method="fft")
    lags = correlation_lags(len(y), len(x), mode="full")
    near = np.abs(lags) <= longest
    correlation, lags = correlation[near], lags[near]
    best = int(np.argmax(correlation))
    at_zero = float(correlation[np.flatnonzero(lags == 0)[0]])
    return int(lags[best]) if correlation[best] > DELAY_MARGIN * max(at_zero, 0.0) else 0


def align(reference: Float32, degraded: Float32, sample_rate_hz: int) -> Float32:
    """`degraded` moved by its delay, cut or padded to the reference's length, at the reference's RMS (within 6 dB)."""
    moved = degraded
    if reference.any() and degraded.any():
        delay = delay_samples(reference, degraded, int(LONGEST_DELAY_S * sample_rate_hz))
        moved = degraded[delay:] if delay >= 0 else np.concatenate([np.zeros(-delay, np.float32), degraded])
    moved = fit_length(moved, len(reference))
    level, wanted = (float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) for wave in (moved, reference))
    gain = float(np.clip(wanted / level, 1 / GAIN_LIMIT, GAIN_LIMIT)) if level > 0 and wanted > 0 else 1.0
    return (moved * gain).astype(np.float32)


def fit_length(waveform: Float32, length: int) -> Float32:
    """`waveform` [T] cut, or padded with silence, to `length` samples."""
    out = np.zeros(length, np.float32)
    out[: len(waveform)] = waveform[:length]
    return out
