"""Programme loudness after ITU-R BS.1770-4, for one channel at any rate."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from streamcodec.metrics.waveforms import Float32, Float64

_BLOCK_S, _STEP_S = 0.4, 0.1
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_DB = -0.691


def loudness_lufs(waveform: Float32, sample_rate_hz: int) -> float:
    """Gated loudness of `waveform` [T] in LUFS; -inf for silence."""
    weighted = _k_weighted(waveform.astype(np.float64), sample_rate_hz)
    block, step = round(_BLOCK_S * sample_rate_hz), round(_STEP_S * sample_rate_hz)
    starts = range(0, max(1, len(weighted) - block + 1), step)
    power = np.array([np.mean(np.square(weighted[start : start + block])) for start in starts])
    for gate in (_ABSOLUTE_GATE_LUFS, None):
        if power.size:
            limit = _lufs(float(power.mean())) + _RELATIVE_GATE_LU if gate is None else gate
            power = power[power > 10 ** ((limit - _OFFSET_DB) / 10)]
    return _lufs(float(power.mean())) if power.size else float("-inf")


def _lufs(power: float) -> float:
    return _OFFSET_DB + 10 * np.log10(power) if power > 0 else float("-inf")


def k_filters(rate_hz: int) -> tuple[tuple[Float64, Float64], tuple[Float64, Float64]]:
    """Numerator and denominator of the high shelf (the head) and of the high-pass.

    From the analogue prototypes behind the standard's tables for 48 kHz.  As there, the high-pass's numerator is
    1, -2, 1, whatever its denominator is normalised by.
    """
    k = np.tan(np.pi * 1681.974450955533 / rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    numerator = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k])
    denominator = np.array([1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    shelf = numerator / denominator[0], denominator / denominator[0]
    k = np.tan(np.pi * 38.13547087602444 / rate_hz)
    q = 0.5003270373238773
    denominator = np.array([1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    return shelf, (np.array([1.0, -2.0, 1.0]), denominator / denominator[0])


def _k_weighted(waveform: Float64, rate_hz: int) -> Float64:
    shelf, high_pass = k_filters(rate_hz)
    weighted: Float64 = lfilter(*high_pass, lfilter(*shelf, waveform))
    return weighted
