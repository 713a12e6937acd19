"""Mel distance, as "Improved RVQGAN" (Kumar et al. 2023, sections 3.6 and 4.3) measures a codec.

Sum over seven windows w of the mean over frames and bands of |log10 max(M_w(x), 1e-5) - log10 max(M_w(y), 1e-5)|,
where M_w is the mel magnitude (power 1) with windows of 32, 64, ..., 2048 samples and 5, 10, ..., 320 bands, hop
w / 4.  The magnitudes themselves have weight 0.  The windows are in samples: a value at 24 kHz and one at 44.1 kHz
are not comparable.
"""

from __future__ import annotations

import numpy as np

from streamcodec.metrics.spectra import magnitude, mel_bands
from streamcodec.metrics.waveforms import Float32, check_pair

WINDOWS_SAMPLES = (32, 64, 128, 256, 512, 1024, 2048)
N_MELS = (5, 10, 20, 40, 80, 160, 320)
FLOOR = 1e-5


def mel_distance(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """Mel distance of two waveforms [T]; 0 is identical, lower is better."""
    total = 0.0
    x, y = check_pair(reference, degraded)
    for window, n_mels in zip(WINDOWS_SAMPLES, N_MELS, strict=True):
        bands = mel_bands(sample_rate_hz, window, n_mels).T
        log_x, log_y = (np.log10(np.maximum(magnitude(wave, window) @ bands, FLOOR)) for wave in (x, y))
        total += float(np.abs(log_x - log_y).mean())
    return total
