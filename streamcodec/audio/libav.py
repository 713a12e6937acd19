"""Formats that libsndfile does not know, by PyAV, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec.audio.view import FileView
from streamcodec.errors import AudioError, MissingExtraError

Float32 = NDArray[np.float32]
EXTRA = "formats"
_EXACT = ("mov", "matroska", "asf", "ogg", "wv", "ape", "tta")
_MISSING_S = 0.2


class LibavSound:
    """The first sound track of a file.

    Parameters
    ----------
    view : FileView
        The file.
    container : str, optional
        Its format, where nothing in the file tells it.

    Attributes
    ----------
    sample_rate_hz, channels : int
        Of the track.
    n_samples : int
        Per channel, as the file says or libav estimates; 0 if neither.
    note : str
        After reading: what could not be read, or nothing.

    Raises
    ------
    MissingExtraError
        PyAV is not installed.
    AudioError
        libav cannot read it, or it has no sound track; the text goes after the file's name.
    OSError
        The file cannot be read.
    """

    def __init__(self, view: FileView, container: str | None = None) -> None:
        try:
            import av
        except ImportError:
            raise MissingExtraError("av", EXTRA) from None
        self.note = ""
        self._av: Any = av
        self._view = view
        try:
            self._file = av.open(view, mode="r", format=container)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise view.failure or AudioError(f"cannot be read by libav either: {_reason(error)}") from None
        if not self._file.streams.audio:
            self._file.close()
            raise AudioError("has no sound track.")
        self._stream: Any = self._file.streams.audio[0]
        context = self._stream.codec_context
        self.sample_rate_hz = int((context and context.sample_rate) or 0)
        self.channels = int((context and context.channels) or 0)
        if self.sample_rate_hz < 1 or self.channels < 1:
            self._file.close()
            raise AudioError("has a sound track that libav cannot decode.")
        stream = self._stream
        length = float((stream.duration or 0) * (stream.time_base or 0)) or (self._file.duration or 0) / av.time_base
        self.n_samples = round(length * self.sample_rate_hz)
        self.slack_samples = self._slack()

    def blocks(self) -> Iterator[Float32]:
        """Sound as it comes, float32 [any, channels]; what cannot be decoded is left out and noted."""
        av, damaged = self._av, 0
        layout = self._stream.codec_context.layout
        resampler = av.AudioResampler(format="flt", layout=layout, rate=self.sample_rate_hz)
        packets = self._file.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self.note = f"libav cannot read on: {_reason(error)}".removesuffix(".")
                packet = None
            if (failure := self._view.failure) is not None:
                raise failure
            try:
                frames = () if packet is None else packet.decode()
            except (av.FFmpegError, ValueError):
                damaged += 1
                frames = ()
            for frame in frames:
                yield from (self._samples(out) for out in resampler.resample(frame))
            if packet is None:
                break
        yield from (self._samples(out) for out in resampler.resample(None))
        if damaged:
            lost = f"{damaged} packet(s) could not be decoded, and are left out"
            self.note = f"{self.note}; {lost}" if self.note else lost

    def _slack(self) -> int:
        """How far off `n_samples` may be: containers know their length nearly, bare streams are only guessed at."""
        exact = any(name in self._file.format.name for name in _EXACT)
        return round(_MISSING_S * self.sample_rate_hz) if exact else self.n_samples

    def close(self) -> None:
        """Close libav's side of the file."""
        self._file.close()

    def _samples(self, frame: Any) -> Float32:
        return np.ascontiguousarray(frame.to_ndarray().reshape(-1, self.channels), np.float32)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).removesuffix(".") + "."
