"""Sound files: read in blocks (`streamcodec.audio.sound`), written whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import soundfile

from streamcodec.audio.pcm import (
    MADE_BY,
    PCM_FORMATS,
    SOUND_FORMATS,
    Sink,
    made_here,
    pcm_bytes,
    pcm_layout,
    wav_header,
)
from streamcodec.audio.sound import AudioInfo, Float32, Sound, StrPath, audio_info, check_finite, read_blocks
from streamcodec.errors import AudioError
from streamcodec.files import atomic_output, descriptor
from streamcodec.stopping import uninterrupted

__all__ = [
    "AudioInfo",
    "AudioWriter",
    "Float32",
    "Sound",
    "audio_info",
    "is_own_sound",
    "output_format",
    "read_blocks",
    "write_audio",
]

_CODED = {"flac": {"format": "FLAC", "subtype": "PCM_16"}, "ogg": {"format": "OGG", "subtype": "VORBIS"}}
_WAV_SAMPLES = "s16le"
_MOST_SAMPLES = 1 << 48  # what is longer is no length but a fault in somebody's header
_LONG_BYTES = 4_000_000_000
_WRITE_SAMPLES = 16_384  # libsndfile's Vorbis encoder overflows the stack on long writes


class AudioWriter:
    """Writes sound piece by piece; as a context manager, which the file survives only without an error.

    Parameters
    ----------
    path : path
        An old file is replaced when the new one is complete; pipes and `streamcodec.files.STDOUT` are written to as
        the sound comes.
    sample_rate_hz : int
        Rate of the file.
    channels : int
        Channels of the file.
    fmt : str, optional
        "wav", "flac" (both 16 bit), "ogg" (Vorbis) or, for bare samples, one of `streamcodec.audio.pcm.PCM_FORMATS`.
        None goes by the path's ending; standard output gets a WAV.  A WAV becomes an RF64 when it passes 4 GiB.
    n_samples : int, optional
        Samples per channel that will come: the header of a WAV in a pipe says so.  Where it is not known, that header
        has the largest length, as is the custom, and readers go on to the end.

    Attributes
    ----------
    n_samples : int
        Samples per channel written so far.
    clipped_samples : int
        How many values were outside [-1, 1] and were set to its edge, over all channels.
    """

    def __init__(
        self,
        path: StrPath,
        sample_rate_hz: int,
        channels: int,
        *,
        fmt: str | None = None,
        n_samples: int | None = None,
    ) -> None:
        self.n_samples = 0
        self.clipped_samples = 0
        self._path, self._sample_rate_hz, self._channels = path, sample_rate_hz, channels
        self._format = output_format(path, fmt)
        known = n_samples is not None and n_samples < _MOST_SAMPLES
        self._stated_bytes = (n_samples or 0) * channels * pcm_bytes(_WAV_SAMPLES) if known else None
        self._stack = ExitStack()
        self._file: Any = None
        self._sink: Sink
        self._output: BinaryIO | None = None

    def __enter__(self) -> AudioWriter:
        with ExitStack() as stack:
            output = stack.enter_context(atomic_output(self._path))
            seekable = output.seekable()
            if self._format == "flac" and not seekable:
                raise AudioError(
                    f"{self._path} cannot take a FLAC, whose header is completed at the end; "
                    f"give the name of a file, or one of {', '.join(name for name in SOUND_FORMATS if name != 'flac')}"
                )
            roomy = seekable or (self._stated_bytes or 0) > _LONG_BYTES
            wav = self._format == "wav"
            layout = _CODED.get(self._format) or pcm_layout(_WAV_SAMPLES if wav else self._format)
            header_bytes = len(wav_header(1, 1, None, roomy=roomy)) if wav else 0
            self._sink = Sink(output, header_bytes)
            try:
                with uninterrupted():
                    self._file = soundfile.SoundFile(self._sink, "w", self._sample_rate_hz, self._channels, **layout)
                    if self._format in _CODED:
                        self._file.software = MADE_BY
            except (soundfile.SoundFileError, ValueError) as error:
                raise AudioError(
                    f"{self._path} cannot be {self._channels} channels at {self._sample_rate_hz} Hz: {_reason(error)}"
                ) from None
            if wav:
                output.write(self._header(None if seekable else self._stated_bytes, roomy))
            stack.push(self._close)
            self._output = output if wav and seekable else None
            self._stack = stack.pop_all()
        return self

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the sound; the length goes into the header of a WAV that can seek."""
        file, self._file = self._file, None
        with uninterrupted():
            file.close()
        if kind is None:
            self._sink.check()
            if self._output is not None:
                self._output.seek(0)
                self._output.write(self._header(self._sink.n_bytes, True))

    def _header(self, n_bytes: int | None, roomy: bool) -> bytes:
        return wav_header(self._sample_rate_hz, self._channels, n_bytes, roomy=roomy)

    def write(self, samples: Float32) -> None:
        """Append samples, float [T, channels] or, if mono, [T]; full scale is [-1, 1].

        Raises
        ------
        AudioError
            The shape or the type is wrong, or a sample is not finite.
        OSError
            There is no room, or nobody reads the pipe any more.
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
                with uninterrupted():
                    self._file.write(clipped)
            except soundfile.SoundFileError as error:
                raise AudioError(f"{self._path} cannot be written: {_reason(error)}") from None
            self._sink.check()
        self.n_samples += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def output_format(path: StrPath, fmt: str | None = None) -> str:
    """Format that `AudioWriter` writes to a path.

    Raises
    ------
    AudioError
        The path's ending does not tell, or `fmt` is not a format that can be written.
    """
    if fmt is not None and fmt not in (*SOUND_FORMATS, *PCM_FORMATS):
        raise AudioError(f"format {fmt!r} is unknown; choose one of {', '.join((*SOUND_FORMATS, *PCM_FORMATS))}")
    suffix = Path(path).suffix.lower()
    if fmt is None and descriptor(path) is None and suffix[1:] not in SOUND_FORMATS:
        endings = ", ".join(f".{name}" for name in SOUND_FORMATS)
        ending = f"ends in {suffix!r}" if suffix else "has no ending"
        raise AudioError(f"{path} {ending}; sound is written to {endings}.")
    return fmt or suffix[1:] or SOUND_FORMATS[0]


def is_own_sound(path: StrPath) -> bool:
    """Whether a sound file was written by `AudioWriter`, and so is no recording that somebody made."""
    try:
        with open(path, "rb") as file, soundfile.SoundFile(file) as sound:
            return made_here(sound)
    except soundfile.SoundFileError:
        return False


def write_audio(path: StrPath, samples: Float32, sample_rate_hz: int) -> int:
    """Write a sound file at once; how many values were clipped.

    samples: float [T, channels] or [T].  See `AudioWriter`.
    """
    with AudioWriter(path, sample_rate_hz, 1 if samples.ndim == 1 else samples.shape[-1]) as writer:
        writer.write(samples)
    return writer.clipped_samples


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().removesuffix(".") + "."
