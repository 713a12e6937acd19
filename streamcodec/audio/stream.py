"""Sound from pipes, sockets and terminals, which can be read once and forwards only."""

from __future__ import annotations

import tempfile
import weakref
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from streamcodec.audio.chunks import is_placeholder, wav_header
from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.libav import LibavSound
from streamcodec.audio.libsndfile import Sndfile
from streamcodec.audio.sound import AudioInfo, Sound
from streamcodec.audio.view import StreamView
from streamcodec.errors import AudioError

_COPY_BYTES = 1 << 20
_HEADER_BYTES = 1 << 24
_ENDLESS = 1 << 61
_PEEK_BYTES = 64
"""libsndfile looks at the beginning of the sound before it reads it."""
_PLAIN_CODES = (1, 3, 6, 7, 0xFFFE)
"""PCM, float, A-law, mu-law, extensible: what an RF64 can hold."""


class StreamedSound(Sound):
    r"""A sound file of any format in a stream that is open already.

    What can be searched is read as a file is.  From a pipe, a WAV whose length its writer did not know is read as it
    comes; of `info`, `n_samples` is 0, and blocks can be read once.  Everything else that comes through a pipe is
    copied to a temporary file first, because formats keep what matters at their ends too.

    Parameters
    ----------
    stream : binary stream
        Not closed.  A pipe is read to its end.
    name : str
        What errors call it.

    Raises
    ------
    AudioError, MissingExtraError
        See `Sound`.

    Examples
    --------
    >>> import io, struct
    >>> header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    >>> sound = StreamedSound(io.BytesIO(header + b"data\xff\xff\xff\xff" + bytes(2000)), "standard input")
    >>> sound.info.sample_rate_hz, sum(len(block) for block in sound.blocks(300))
    (8000, 1000)
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self._path = Path(name)
        self._live: Sndfile | None = None
        self._file: BinaryIO = stream
        if stream.seekable():
            self._examine(stream)
            return
        head, fmt = _header(stream)
        if fmt:
            begin = _exactly(stream, _PEEK_BYTES)
            self._examine_live(StreamView(b"".join((*wav_header(fmt, _ENDLESS), begin)), stream, _ENDLESS))
            return
        self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it ends with this object
        weakref.finalize(self, self._file.close)
        self._file.write(head)
        while data := stream.read(_COPY_BYTES):
            self._file.write(data)
        self._examine(self._file)

    def _examine_live(self, view: StreamView) -> None:
        piece = Piece(())
        self._layout = Layout("WAV", [piece])
        self._found, self._notes = [], []
        try:
            self._live = Sndfile(view, "WAV")
        except AudioError as error:
            raise self._unreadable(error) from None
        self._readable = [(piece, 0)]
        self.info = AudioInfo(self._live.sample_rate_hz, self._live.channels, 0)

    def _open(self) -> AbstractContextManager[BinaryIO]:
        return nullcontext(self._file)

    def _decoder(self, file: BinaryIO, piece: Piece) -> Sndfile | LibavSound:
        return self._live or super()._decoder(file, piece)


def _header(stream: BinaryIO) -> tuple[bytes, bytes]:
    """What was read to tell whether this is a WAV of unknown length, and if it is, its chunk "fmt "."""
    head, fmt = _exactly(stream, 12), b""
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return head, b""
    sizes_64 = b""
    while len(head) < _HEADER_BYTES:
        chunk = _exactly(stream, 8)
        head += chunk
        if len(chunk) < 8:
            break
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"data":
            if length == 0xFFFFFFFF and len(sizes_64) >= 24:
                length = int.from_bytes(sizes_64[16:24], "little")
            is_plain = int.from_bytes(fmt[8:10], "little") in _PLAIN_CODES
            return head, fmt if is_plain and (length == 0 or is_placeholder(length)) else b""
        body = _exactly(stream, min(length + length % 2, _HEADER_BYTES))
        head += body
        if name == b"fmt ":
            fmt = chunk + body
        elif name == b"ds64":
            sizes_64 = body
    return head, b""


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end."""
    taken = b""
    while len(taken) < size and (data := stream.read(size - len(taken))):
        taken += data
    return taken
