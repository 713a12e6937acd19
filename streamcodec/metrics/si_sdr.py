"""Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), in dB."""

from __future__ import annotations

import numpy as np

from streamcodec.metrics.waveforms import Float32, check_pair

_TINY = 1e-20
LIMIT_DB = 100.0


def si_sdr(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """SI-SDR of two waveforms [T] in dB, means removed, bounded to +-100 dB; higher is better.

    10 log10(|a x|^2 / |y - a x|^2) with a = <x, y> / |x|^2.  `sample_rate_hz` is not used.
    """
    x, y = check_pair(reference, degraded)
    x, y = x - x.mean(), y - y.mean()
    target = x * (x @ y / max(x @ x, _TINY))
    noise = y - target
    ratio_db = 10 * np.log10(max(target @ target, _TINY) / max(noise @ noise, _TINY))
    return float(np.clip(ratio_db, -LIMIT_DB, LIMIT_DB))
