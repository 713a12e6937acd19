"""Synthetic sound for the corpus tests: voices, noise and music-like chords that survive conditioning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, sosfilt


def voice(seed: int, seconds: float = 1.5, rate_hz: int = 44_100, pitch_hz: float | None = None) -> np.ndarray:
    """Pulses of a voice with breath noise up to the top of the band; a pause of 0.2 s in the middle; peak 0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = pitch_hz or rng.uniform(90, 250)
    wave = sum(np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, 20))
    wave = wave + 0.3 * rng.standard_normal(len(t))
    wave[len(t) // 2 : len(t) // 2 + rate_hz // 5] *= 0.01
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def narrow(wave: np.ndarray) -> np.ndarray:
    """What is left of 44.1 kHz sound after a stay at 16 kHz."""
    return soxr.resample(soxr.resample(wave, 44_100, 16_000), 16_000, 44_100)[: len(wave)]


def noise(seed: int, seconds: float = 1.5, rate_hz: int = 44_100) -> np.ndarray:
    """Filtered noise, like wind or water."""
    rng = np.random.default_rng(seed)
    wave = sosfilt(butter(1, 2000, fs=rate_hz, output="sos"), rng.standard_normal(round(seconds * rate_hz)))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def save(path: Path, wave: np.ndarray, rate_hz: int = 44_100) -> Path:
    """Write a sound file, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz)
    return path


def folder_of_voices(root: Path, speakers: int = 5, files: int = 3, seconds: float = 1.5) -> Path:
    """A folder with one folder a speaker; the last speaker's recordings were once sampled at 16 kHz."""
    for speaker in range(speakers):
        for number in range(files):
            wave = voice(100 * speaker + number, seconds, pitch_hz=100 + 30 * speaker)
            save(root / f"s{speaker}" / f"{number}.wav", narrow(wave) if speaker == speakers - 1 else wave)
    return root
