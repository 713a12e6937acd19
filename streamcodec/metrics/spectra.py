"""Short-time spectra and mel bands, numpy only.

The definitions are those of the toolkits that published numbers come from (torch.stft with centred, reflected
frames and a periodic Hann window; librosa's mel bands with Slaney's scale and area normalisation), so that a
distance computed here is comparable with a published one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from streamcodec.metrics.waveforms import Float64


def magnitude(waveform: Float64, window_samples: int) -> Float64:
    """|STFT| of `waveform` [T], hop a quarter of the window: float64 [frames, window_samples // 2 + 1]."""
    hop = window_samples // 4
    half = window_samples // 2
    # A clip shorter than half a window cannot be reflected that far: numpy reflects again and again.
    mode = "reflect" if len(waveform) > 1 else "edge"
    padded = np.pad(waveform, half, mode=mode)  # type: ignore[call-overload]
    frames = sliding_window_view(padded, window_samples)[::hop]
    spectrum: Float64 = np.abs(np.fft.rfft(frames * _hann(window_samples), axis=-1))
    return spectrum


@lru_cache(maxsize=16)
def _hann(length: int) -> Float64:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def hz_to_mel(frequency_hz: Float64) -> Float64:
    """Slaney's mel: linear below 1 kHz (3 mel per 200 Hz), 27 mel per factor of 6.4 above."""
    frequency_hz = np.asarray(frequency_hz, dtype=np.float64)
    above = 15 + 27 * np.log(np.maximum(frequency_hz, 1000) / 1000) / np.log(6.4)
    return np.where(frequency_hz < 1000, frequency_hz * 3 / 200, above)


def mel_to_hz(mel: Float64) -> Float64:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@lru_cache(maxsize=64)
def mel_bands(sample_rate_hz: int, window_samples: int, n_mels: int) -> Float64:
    """Triangular bands from 0 Hz to half the rate, each of area 1 Hz: float64 [n_mels, window_samples // 2 + 1]."""
    bins_hz = np.fft.rfftfreq(window_samples, 1 / sample_rate_hz)
    top = hz_to_mel(np.array(sample_rate_hz / 2))
    edges_hz = mel_to_hz(np.linspace(0.0, float(top), n_mels + 2))
    low, peak, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangle = np.minimum((bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak))
    bands: Float64 = np.maximum(triangle, 0) * 2 / (high - low)
    bands.setflags(write=False)
    return bands
