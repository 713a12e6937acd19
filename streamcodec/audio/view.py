"""Sound files as a decoder should see them: pieces of a file, and bytes in place of wrong ones, as one file."""

from __future__ import annotations

import io
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from streamcodec.errors import AudioError
from streamcodec.stopping import interruptible


class Span(NamedTuple):
    """`length` bytes of a file from `start`."""

    start: int
    length: int


Part = bytes | Span
"""What a view shows: bytes of its own, or some of the file's."""


class _View:
    """What libsndfile and libav ask of a file; an exception is kept in `error`, as neither can pass it on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.error: BaseException | None = None
        self._at = 0

    @property
    def failure(self) -> BaseException | None:
        """What to raise for `error`: an AudioError for a file that cannot be read, anything else as it is."""
        if isinstance(self.error, OSError):
            return AudioError(f"cannot be read: {self.error.strerror or self.error}.")
        return self.error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another place, also past the end."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        """Place in the view."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, fewer only at the end or after an error."""
        if size < 0:
            size = self.size - self._at
        taken = []
        try:
            while size > 0 and (data := self._read_at(self._at, size)):
                taken.append(data)
                self._at += len(data)
                size -= len(data)
        except BaseException as error:
            self.error = error
        return b"".join(taken)

    def _read_at(self, at: int, size: int) -> bytes:
        raise NotImplementedError


class FileView(_View):
    """Parts of a file, one after the other, as a file that can be read and searched.

    Parameters
    ----------
    file : binary file
        Open for reading and seekable; it is moved.
    parts : sequence of Part
        What the view shows.

    Examples
    --------
    >>> FileView(io.BytesIO(b"0123456789"), [b"<", Span(3, 4), b">"]).read()
    b'<3456>'
    """

    def __init__(self, file: BinaryIO, parts: Sequence[Part]) -> None:
        self._file, self._parts = file, parts
        lengths = (len(part) if isinstance(part, bytes) else part.length for part in parts)
        self._starts = list(itertools.accumulate(lengths, initial=0))
        super().__init__(self._starts[-1])

    def _read_at(self, at: int, size: int) -> bytes:
        if at >= self.size:
            return b""
        number = bisect_right(self._starts, at) - 1
        part, offset = self._parts[number], at - self._starts[number]
        if isinstance(part, bytes):
            return part[offset : offset + size]
        self._file.seek(part.start + offset)
        return self._file.read(min(size, part.length - offset))


class StreamView(_View):
    """A header, and after it what a pipe delivers, which can be read once and forwards only.

    A decoder may look for what follows the sound: everywhere but where the pipe is, there is nothing to be read.

    Parameters
    ----------
    header : bytes
        Shown first; can be read again.
    stream : binary stream
        Pipe, socket or terminal.
    length : int
        Most bytes to take from it.
    """

    def __init__(self, header: bytes, stream: BinaryIO, length: int) -> None:
        super().__init__(len(header) + length)
        self._header, self._stream = header, stream
        self._next = len(header)

    def _read_at(self, at: int, size: int) -> bytes:
        if at < len(self._header):
            return self._header[at : at + size]
        if at != self._next:
            return b""
        with interruptible():
            data = self._stream.read(min(size, self.size - at)) or b""
        self._next += len(data)
        return data
