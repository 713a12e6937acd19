"""Turn the bytes of a sound file into samples."""

from __future__ import annotations

import io
from pathlib import PurePosixPath

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamcodec.errors import AudioError, MissingExtraError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3", ".aiff", ".aif", ".au", ".g722", ".m4a"})
"""File names that are taken for sound."""

_BY_LIBAV = {".g722": "g722", ".m4a": None}


def decode(data: bytes, path: str) -> tuple[NDArray[np.float32], int]:
    """Samples float32 [T, C] and rate in Hz of the sound file `data`, whose `path` tells its format.

    Raises
    ------
    AudioError
        Not a sound file, damaged, empty, or with values that are not finite.
    MissingExtraError
        G.722 and M4A need PyAV, which is not installed.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if not data:
        raise AudioError("the file is empty, too large or cannot be read")
    if suffix in _BY_LIBAV:
        samples, rate_hz = _decode_libav(data, _BY_LIBAV[suffix])
    else:
        try:
            samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"the file cannot be decoded: {error.error_string}") from None
        except (ValueError, OverflowError, MemoryError) as error:
            raise AudioError(f"the file cannot be decoded: {error}") from None
    if not len(samples):
        raise AudioError("the file holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError("the file holds values that are not numbers")
    if not 4000 <= rate_hz <= 384_000:
        raise AudioError(f"the rate is {rate_hz} Hz; it must be from 4000 to 384000")
    return samples, int(rate_hz)


def _decode_libav(data: bytes, container: str | None) -> tuple[NDArray[np.float32], int]:
    try:
        import av
    except ImportError:
        raise MissingExtraError("av", "train") from None
    try:
        with av.open(io.BytesIO(data), mode="r", format=container) as file:
            stream = file.streams.audio[0]
            resampler = av.AudioResampler(format="fltp")
            blocks = [out.to_ndarray() for frame in file.decode(stream) for out in resampler.resample(frame)]
            rate_hz = int(stream.rate)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"the file cannot be decoded: {getattr(error, 'strerror', error)}") from None
    if not blocks:
        raise AudioError("the file holds no samples")
    return np.ascontiguousarray(np.concatenate(blocks, axis=1).T, dtype=np.float32), rate_hz
