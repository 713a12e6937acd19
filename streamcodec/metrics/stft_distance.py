"""Multi-scale STFT distance, as "Improved RVQGAN" (Kumar et al. 2023, section 4.3) measures a codec.

Sum over windows of 2048 and 512 samples (hop a quarter) of mean |log10 max(X, 1e-5)^2 - log10 max(Y, 1e-5)^2|
+ mean |X - Y|, where X and Y are magnitudes.  More sensitive to high frequencies than the mel distance, and like
it not comparable between sample rates.
"""

from __future__ import annotations

import numpy as np

from streamcodec.metrics.spectra import magnitude
from streamcodec.metrics.waveforms import Float32, check_pair

WINDOWS_SAMPLES = (2048, 512)
FLOOR = 1e-5


def stft_distance(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """STFT distance of two waveforms [T]; 0 is identical, lower is better.

    `sample_rate_hz` is not used: the windows are in samples.
    """
    total = 0.0
    x, y = check_pair(reference, degraded)
    for window in WINDOWS_SAMPLES:
        mag_x, mag_y = magnitude(x, window), magnitude(y, window)
        log_x, log_y = (2 * np.log10(np.maximum(mag, FLOOR)) for mag in (mag_x, mag_y))
        total += float(np.abs(log_x - log_y).mean()) + float(np.abs(mag_x - mag_y).mean())
    return total
