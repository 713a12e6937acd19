"""A folder of real speech in several formats, also with files that cannot be tokenised; and what compares folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile
import soxr

from streamcodec.cli.loopback import sample_path

BAD = {
    "a/corrupt.ogg": "cannot be read",
    "empty.wav": "holds no samples",
    "nan.wav": "must be finite",
    "nothing.flac": "cannot be read",
    "short.wav": "too short",
    "slow.wav": "sample rate",
}
GOOD = {  # name: rate, channels, format, seconds
    "a/opus.opus": (24_000, 1, "OGG/OPUS", 1.1),
    "a/same rate.wav": (24_000, 1, "WAV/FLOAT", 0.7),
    "b/c/stereo.flac": (44_100, 2, "FLAC/PCM_16", 0.5),
    "b/upper.WAV": (16_000, 1, "WAV/PCM_16", 0.9),
    "b/ünïcode.wav": (48_000, 1, "WAV/PCM_24", 0.3),
    "mp3.mp3": (22_050, 1, "MP3/MPEG_LAYER_III", 0.6),
    "vorbis.ogg": (8000, 1, "OGG/VORBIS", 0.4),
}


def speech(rate_hz: int, first_s: float, seconds: float) -> np.ndarray:
    """Float32 [T] of the bundled sample."""
    samples, source_hz = soundfile.read(sample_path(), dtype="float32")
    whole = soxr.resample(samples, source_hz, rate_hz).astype(np.float32)
    return whole[int(first_s * rate_hz) :][: int(seconds * rate_hz)]


def good_folder(folder: Path) -> Path:
    """Only sound, and a file that is none."""
    for at, (name, (rate_hz, channels, kind, seconds)) in enumerate(GOOD.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.stack([speech(rate_hz, at + c / 10, seconds) for c in range(channels)], 1)
        fmt, subtype = kind.split("/")
        soundfile.write(path, samples, rate_hz, format=fmt, subtype=subtype)
    (folder / "notes.txt").write_text("not sound, and not looked at")
    return folder


def mixed_folder(folder: Path) -> Path:
    """Sound, and files that cannot be tokenised."""
    good_folder(folder)
    (folder / "a/corrupt.ogg").write_bytes(np.random.default_rng(0).bytes(3000))
    (folder / "nothing.flac").write_bytes(b"")
    soundfile.write(folder / "empty.wav", np.zeros(0, np.float32), 24_000)
    soundfile.write(folder / "short.wav", np.ones(300, np.float32), 24_000)
    soundfile.write(folder / "nan.wav", np.full(5000, np.nan, np.float32), 24_000, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", np.zeros(5000, np.float32), 10)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copies(folder: Path, count: int) -> Path:
    """`count` files of 1.5 s each."""
    folder.mkdir()
    soundfile.write(folder / "000.wav", speech(24_000, 0, 1.5), 24_000)
    for number in range(1, count):
        shutil.copy(folder / "000.wav", folder / f"{number:03d}.wav")
    return folder
