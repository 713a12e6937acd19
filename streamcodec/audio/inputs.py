"""Sound to encode from wherever it comes: files, pipes and standard input, with a header or as bare samples."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

import soundfile

from streamcodec.audio.pcm import RawSound, pcm_layout
from streamcodec.audio.sound import AudioInfo, Float32, Sound, check_finite
from streamcodec.audio.stream import StreamedSound
from streamcodec.errors import AudioError
from streamcodec.files import is_stream, open_input


class OpenSound(Protocol):
    """Sound that can be read once; see `Sound`."""

    info: AudioInfo

    @property
    def problem(self) -> str | None:
        """See `Sound`."""
        ...

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        """See `Sound`."""
        ...


def open_sound(path: Path, raw: RawSound | None = None) -> OpenSound:
    """Open a sound file, a pipe, a device or `streamcodec.files.STDIN`, once.

    Parameters
    ----------
    raw : RawSound, optional
        The input is bare samples of this kind; without it, a sound file of any format, also in a pipe.

    Raises
    ------
    AudioError, MissingExtraError
        See `Sound`.
    OSError
        It cannot be read, or what came through a pipe has no room in the folder for temporary files.
    """
    if raw is not None:
        return _Samples(path, raw)
    return _Piped(path) if is_stream(path) else Sound(path)


class _Piped(StreamedSound):
    """A sound file in a stream that is closed when it has been read."""

    def __init__(self, path: Path) -> None:
        self._stream = open_input(path)
        try:
            super().__init__(self._stream, str(path))
        except BaseException as error:
            self._close()
            if isinstance(error, OSError) and error.filename is None:
                text = f"{error.strerror or error}; what comes through {path} is copied there"
                raise OSError(error.errno, text, tempfile.gettempdir()) from None
            raise

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        try:
            yield from super().blocks(block_samples)
        finally:
            self._close()

    def _close(self) -> None:
        """Close the pipe and the copy of what came through it."""
        self._file.close()
        self._stream.close()


class _Samples:
    """Bare samples."""

    def __init__(self, path: Path, raw: RawSound) -> None:
        self._stream: BinaryIO = open_input(path)
        self._path, self._raw = path, raw
        self.problem: str | None = None
        n_samples = 0 if is_stream(path) else path.stat().st_size // raw.frame_bytes
        self.info = AudioInfo(raw.sample_rate_hz, raw.channels, n_samples)

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        raw, position = self._raw, 0
        for data in self._pieces(block_samples * raw.frame_bytes):
            block, _ = soundfile.read(
                io.BytesIO(data), dtype="float32", always_2d=True, samplerate=raw.sample_rate_hz,
                channels=raw.channels, **pcm_layout(raw.fmt),
            )  # fmt: skip
            check_finite(block, position, self._path)
            position += len(block)
            yield block
        if not position:
            raise AudioError(f"{self._path} holds no samples; give sound.")

    def _pieces(self, most_bytes: int) -> Iterator[bytes]:
        """Whole samples of all channels, as soon as they come."""
        rest = b""
        read = getattr(self._stream, "read1", self._stream.read)
        with closing(self._stream):
            while data := read(most_bytes - len(rest)):
                data = rest + data
                whole = len(data) - len(data) % self._raw.frame_bytes
                rest = data[whole:]
                if whole:
                    yield data[:whole]
        if rest:
            self.problem = f"its last {len(rest)} bytes are no whole sample of {self._raw.channels} x {self._raw.fmt}"
