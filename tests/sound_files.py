"""Sound files made in memory, whole, cut, joined and with other lengths in their headers than they have."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

from streamcodec.audio.sound import Sound

RATE_HZ = 22_050


def tone(seconds: float, hz: float = 330.0, channels: int = 1) -> np.ndarray:
    """Float32 [T, channels], half of full scale, each channel an octave above the one before."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.stack([0.5 * np.sin(2 * np.pi * hz * 2**c * t) for c in range(channels)], 1).astype(np.float32)


def made(sound: np.ndarray, fmt: str, subtype: str | None = None, rate_hz: int = RATE_HZ) -> bytes:
    """Bytes of a file as libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate_hz, format=fmt, subtype=subtype)
    return file.getvalue()


def patched(data: bytes, chunk: bytes, size: str, value: int) -> bytes:
    """The file with another length for a chunk."""
    at = data.index(chunk) + (16 if size.endswith("q") and chunk == b"data\xf3" else len(chunk))
    return data[:at] + struct.pack(size, value) + data[at + struct.calcsize(size) :]


def read(path: Path, data: bytes) -> tuple[np.ndarray, str]:
    """Sound and problem of a file with this content."""
    path.write_bytes(data)
    sound = Sound(path)
    samples = np.concatenate(list(sound.blocks(5000)))
    return samples, sound.problem or ""
