"""Sound files: read in blocks (`streamcodec.audio.sound`), written whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from streamcodec.audio.sound import AudioInfo, Float32, Sound, StrPath, audio_info, check_finite, read_blocks
from streamcodec.errors import AudioError
from streamcodec.files import atomic_output

__all__ = ["AudioInfo", "AudioWriter", "Float32", "Sound", "audio_info", "read_blocks", "write_audio"]

_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
_WRITE_SAMPLES = 16_384  # libsndfile's Vorbis encoder overflows the stack on long writes


class AudioWriter:
    """Writes a sound file piece by piece; as a context manager, which the file survives only without an error.

    Parameters
    ----------
    path : path
        Ends in .wav, .flac (both 16 bit) or .ogg (Vorbis).  An old file is replaced when the new one is complete.
    sample_rate_hz : int
        Rate of the file.
    channels : int
        Channels of the file.

    Attributes
    ----------
    n_samples : int
        Samples per channel written so far.
    clipped_samples : int
        How many values were outside [-1, 1] and were set to its edge, over all channels.
    """

    def __init__(self, path: StrPath, sample_rate_hz: int, channels: int) -> None:
        self.n_samples = 0
        self.clipped_samples = 0
        self._path, self._sample_rate_hz, self._channels = path, sample_rate_hz, channels
        suffix = Path(path).suffix.lower()
        if suffix not in _FORMATS:
            raise AudioError(f"{path} ends in {suffix or 'nothing'!r}; sound is written to {', '.join(_FORMATS)}.")
        self._format, self._subtype = _FORMATS[suffix]
        self._stack = ExitStack()
        self._file: Any = None

    def __enter__(self) -> AudioWriter:
        with ExitStack() as stack:
            output = stack.enter_context(atomic_output(self._path))
            try:
                file = soundfile.SoundFile(
                    output, "w", self._sample_rate_hz, self._channels, format=self._format, subtype=self._subtype
                )
            except soundfile.SoundFileError as error:
                raise AudioError(
                    f"{self._path} cannot be {self._channels} channels at {self._sample_rate_hz} Hz: {_reason(error)}"
                ) from None
            self._file = stack.enter_context(file)
            self._stack = stack.pop_all()
        return self

    def write(self, samples: Float32) -> None:
        """Append samples, float [T, channels] or, if mono, [T]; full scale is [-1, 1].

        Raises
        ------
        AudioError
            The shape or the type is wrong, or a sample is not finite.
        """
        if self._file is None:
            raise AudioError(f"{self._path} is not open; write to it inside a with block.")
        block = samples[:, None] if samples.ndim == 1 else samples
        if block.ndim != 2 or block.shape[1] != self._channels or block.dtype.kind != "f":
            raise AudioError(
                f"samples are {samples.dtype} {list(samples.shape)}; {self._path} takes floats [T, {self._channels}]."
            )
        check_finite(block, self.n_samples, self._path)
        for start in range(0, len(block), _WRITE_SAMPLES):
            part = block[start : start + _WRITE_SAMPLES]
            clipped = np.clip(part, -1, 1).astype(np.float32)
            self.clipped_samples += int(np.count_nonzero(np.abs(part) > 1))
            try:
                self._file.write(clipped)
            except soundfile.SoundFileError as error:
                raise AudioError(f"{self._path} cannot be written: {_reason(error)}") from None
        self.n_samples += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None
        self._stack.__exit__(kind, error, trace)


def write_audio(path: StrPath, samples: Float32, sample_rate_hz: int) -> int:
    """Write a sound file at once; how many values were clipped.

    samples: float [T, channels] or [T].  See `AudioWriter`.
    """
    with AudioWriter(path, sample_rate_hz, 1 if samples.ndim == 1 else samples.shape[-1]) as writer:
        writer.write(samples)
    return writer.clipped_samples


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().removesuffix(".") + "."
