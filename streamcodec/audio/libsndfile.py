"""Formats of libsndfile, by soundfile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamcodec.audio.view import FileView, StreamView
from streamcodec.errors import AudioError
from streamcodec.stopping import uninterrupted

Float32 = NDArray[np.float32]

_READ_SAMPLES = 1 << 16
_MPEG_SLACK = 3 * 1152
_MANY = 1 << 60
"""libsndfile's frames where it does not know how many there are."""


class _Quiet(soundfile.SoundFile):  # type: ignore[misc]
    """Does not seek to where it is after every read.

    That fails where the length is not known, and costs MP3 the bits that a frame takes from those before it.
    """

    def seekable(self) -> bool:
        """Say no, whatever the file can."""
        return False


class Sndfile:
    """Decodes with libsndfile; `LibavSound` has the same attributes.

    Parameters
    ----------
    view : FileView or StreamView
        The file.
    kind : str
        Its format, "" where it was not recognised; it is not taken for MPEG audio then.

    Raises
    ------
    AudioError
        libsndfile cannot read it; the text goes after the file's name.
    """

    note = ""

    def __init__(self, view: FileView | StreamView, kind: str) -> None:
        self._view = view
        try:
            with uninterrupted():
                self._file = _Quiet(view)
        except (soundfile.SoundFileError, TypeError) as error:
            raise view.failure or AudioError(f"is {kind or 'of no format that is known'}: {_reason(error)}") from None
        if self._file.format == "MP3" and not kind.startswith("MP"):
            self._file.close()
            raise AudioError("is of no format that is known.")
        self.sample_rate_hz, self.channels = int(self._file.samplerate), int(self._file.channels)
        self.n_samples = int(self._file.frames) if self._file.frames < _MANY else 0
        self.slack_samples = _MPEG_SLACK if self._file.subtype.startswith("MPEG") else 0

    def blocks(self) -> Iterator[Float32]:
        """Sound as it comes, float32 [any, channels]; where it cannot be read on, what came before."""
        while True:
            room = np.full((_READ_SAMPLES, self.channels), np.nan, np.float32)
            try:
                with uninterrupted():
                    block: Float32 = self._file.read(out=room)
            except soundfile.SoundFileError as error:
                came = int(np.isnan(room).any(axis=1).argmax())  # soundfile does not tell how much it was
                if came:
                    yield room[:came]
                raise self._view.failure or AudioError(_reason(error)) from None
            if (failure := self._view.failure) is not None:
                raise failure
            if not len(block):
                return
            yield block

    def close(self) -> None:
        """Close it."""
        self._file.close()


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().removesuffix(".") + "."
