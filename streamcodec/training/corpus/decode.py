"""Turn the bytes of a sound file into samples."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from streamcodec.audio.stream import StreamedSound
from streamcodec.errors import AudioError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3", ".aiff", ".aif", ".au", ".g722", ".m4a"})
"""File names that are taken for sound."""

_BLOCK_SAMPLES = 1 << 16


def decode(data: bytes, path: str) -> tuple[NDArray[np.float32], int]:
    """Samples float32 [T, C] and rate in Hz of the sound file `data`.

    Raises
    ------
    AudioError
        Not a sound file, damaged, cut off, empty, or with values that are not finite.
    MissingExtraError
        G.722 and M4A need PyAV, which is not installed.
    """
    if not data:
        raise AudioError("the file is empty, too large or cannot be read")
    sound = StreamedSound(io.BytesIO(data), path)
    samples = np.concatenate(list(sound.blocks(_BLOCK_SAMPLES)))
    if sound.problem:
        raise AudioError(sound.problem)
    rate_hz = sound.info.sample_rate_hz
    if not 4000 <= rate_hz <= 384_000:
        raise AudioError(f"the rate is {rate_hz} Hz; it must be from 4000 to 384000")
    return samples, rate_hz
