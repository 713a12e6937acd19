"""Sound files whole in memory, for measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamcodec.audio.sound import Sound, check_rate
from streamcodec.metrics.waveforms import Float32

_BLOCK_SAMPLES = 1 << 16


def read_sound(path: Path, notes: list[str] | None = None) -> tuple[Float32, int]:
    """A file's samples, channels averaged, float32 [T], and its rate in Hz; `notes` is told what could not be read.

    Raises
    ------
    AudioError
        The file cannot be read, holds no sound, or a sample that is not finite, or has a rate of no sound.
    MissingExtraError
        Its format needs PyAV, which is not installed.
    """
    sound = Sound(path)
    check_rate(sound.info, path)
    samples = np.concatenate([block.mean(axis=1) for block in sound.blocks(_BLOCK_SAMPLES)])
    if sound.problem and notes is not None:
        notes.append(f"{path}: {sound.problem}")
    return samples, sound.info.sample_rate_hz
