"""WAV, RF64, BW64, W64, AIFF, 8SVX and CAF: their sound as far as it goes, whatever the lengths in their headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.scan import find_in, read_at, tag_bytes
from streamcodec.audio.view import Part, Span

_PLACEHOLDERS = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 0x100000000), range(1 << 62, 1 << 64))
"""Lengths that are written by programs that do not know the length yet."""
PADDING_BYTES = 4096
"""Zeros after the sound are padding up to this length."""
_CARELESS_BYTES = 64
"""Some programs count their header, or a byte of padding, in the length of the sound."""
_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_LIST = bytes.fromhex("6c6973742f91cf11a5d628db04c10000")
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
_OTHER_FORMATS = (b"fLaC", b"OggS", b".snd\0\0", b"dns.")
_LAST_CHUNKS = frozenset(
    b"LIST,id3 ,bext,iXML,cue ,smpl,fact,PEAK,_PMX,cart,afsp,JUNK,PAD ,"
    b"NAME,AUTH,ANNO,COMT,MARK,INST,APPL,(c) ,info,pakt,uuid,strg,free".split(b",")
)
"""Chunks that follow the sound; one of them may be cut."""


@dataclass(frozen=True)
class _Form:
    """How chunks are written.

    Parameters
    ----------
    name : str
        Of the format.
    magic : bytes
        How a file begins.
    second : tuple of bytes, int
        What stands at which place after it.
    head_bytes : int
        Before the first chunk.
    size : str
        A chunk's length, as in `struct`.
    data : bytes
        Name of the chunk with the sound.
    align : int
        Chunks begin at multiples of it.
    own : int
        Bytes that are counted in a chunk's length besides its body.
    lead : int
        Bytes of the body before the sound.
    """

    name: str
    magic: bytes
    second: tuple[bytes, int]
    head_bytes: int
    size: str
    data: bytes
    align: int = 2
    own: int = 0
    lead: int = 0

    @property
    def header_bytes(self) -> int:
        """Name and length of a chunk."""
        return len(self.data) + struct.calcsize(self.size)

    def begins(self, head: bytes) -> bool:
        """Whether a file of this form begins so."""
        text, at = self.second
        return head.startswith(self.magic) and head[at : at + len(text)] == text

    def is_name(self, name: bytes) -> bool:
        """Whether a chunk may be called so."""
        if len(name) == 16:
            return name.endswith(_GUID_TAIL) or name == _W64_LIST
        return all(0x20 <= byte < 0x7F for byte in name)


_WAVE = (b"WAVE", 8)
_FORMS = (
    _Form("WAV", b"RIFF", _WAVE, 12, "<I", b"data"),
    _Form("WAV", b"RIFX", _WAVE, 12, ">I", b"data"),
    _Form("RF64", b"RF64", _WAVE, 12, "<I", b"data"),
    _Form("BW64", b"BW64", _WAVE, 12, "<I", b"data"),
    _Form("W64", _W64_RIFF, (b"wave" + _GUID_TAIL, 24), 40, "<q", b"data" + _GUID_TAIL, align=8, own=24),
    _Form("AIFF", b"FORM", (b"AIFF", 8), 12, ">I", b"SSND", lead=8),
    _Form("AIFF", b"FORM", (b"AIFC", 8), 12, ">I", b"SSND", lead=8),
    _Form("8SVX", b"FORM", (b"8SVX", 8), 12, ">I", b"BODY"),
    _Form("16SV", b"FORM", (b"16SV", 8), 12, ">I", b"BODY"),
    _Form("CAF", b"caff", (b"\0\1", 4), 8, ">q", b"data", align=1, lead=4),
)


def is_placeholder(length: int) -> bool:
    """Whether a length in a header stands for one that is not known."""
    return any(length in lengths for lengths in _PLACEHOLDERS)


def promised_share(declared: int, length: int) -> float:
    """How much of the sound a header promises, as `Piece.promised`, by its length and the true one in bytes."""
    return declared / length if length and not 0 <= declared - length <= _CARELESS_BYTES else 1.0


def chunk_layout(file: BinaryIO, size: int) -> Layout | None:
    """Pieces of a file made of chunks; None if it is none.

    A length of 0 or of nearly all bits is that of a program that had no time, or no way, to go back and write it: the
    sound goes on to the end of the file.  It does so too where what follows the sound is neither chunk, tag, padding
    nor another file.
    """
    form = next((form for form in _FORMS if form.begins(read_at(file, 0, 40))), None)
    if form is None:
        return None
    layout = Layout(form.name, [])
    start: int | None = 0
    while start is not None:
        start = _Reader(file, form, start, size, layout).next_start
        if start is not None:
            head = read_at(file, start, 40)
            form = next(form for form in _FORMS if form.begins(head))
    return layout


class _Reader:
    """One file of chunks from `start`: adds a piece to the layout, and tells where a next file begins."""

    def __init__(self, file: BinaryIO, form: _Form, start: int, end: int, layout: Layout) -> None:
        self.file, self.form, self.start, self.end, self.layout = file, form, start, end, layout
        self.next_start: int | None = None
        self.chunks: dict[bytes, Span] = {}
        at = self._find_data()
        if at is None:
            layout.pieces.append(Piece((Span(start, end - start),)))
            return
        layout.pieces.append(self._piece(at))

    def _chunk(self, at: int) -> tuple[bytes, int] | None:
        """Name and body's length of the chunk at a place."""
        head = read_at(self.file, at, self.form.header_bytes) if at < self.end else b""
        if len(head) < self.form.header_bytes:
            return None
        name = head[: len(self.form.data)]
        return name, struct.unpack(self.form.size, head[len(name) :])[0] - self.form.own

    def _begins(self, at: int) -> bool:
        """Whether another file begins at a place."""
        head = read_at(self.file, at, 40) if at < self.end else b""
        return any(form.begins(head) for form in _FORMS)

    def _after(self, at: int, length: int) -> int:
        """Where the chunk after one at `at` begins; some programs forget the byte that makes a length even."""
        stop = at + self.form.header_bytes + length
        padded = stop + (self.start - stop) % self.form.align
        if self._begins(stop):
            return stop
        for place in dict.fromkeys((padded, stop)):
            found = self._chunk(place)
            if found is not None and self.form.is_name(found[0]):
                return place
        return padded

    def _find_data(self) -> int | None:
        at = self.start + self.form.head_bytes
        while (found := self._chunk(at)) is not None and found[0] != self.form.data:
            if found[1] < 0:
                return None
            self.chunks.setdefault(found[0], Span(at, self.form.header_bytes + found[1]))
            at = self._after(at, found[1])
        return at if found is not None else None

    def _piece(self, at: int) -> Piece:
        body = at + self.form.header_bytes
        there, declared = self.end - body, self._declared(at)
        unknown = declared <= self.form.lead or is_placeholder(declared)
        if 0 <= declared <= there:
            stop = self._follows(body + declared, 0 if unknown else PADDING_BYTES)
            if stop is not None:
                self.next_start = stop if stop < self.end else None
                return self._exact(at, declared, stop)
        wrapped = there - declared >= 1 << 32  # a field of 32 bits was too small for a long recording
        self.next_start = None if wrapped else self._joined(body)
        length = (self.next_start or self.end) - body
        return self._patched(at, length, 1.0 if unknown or wrapped else promised_share(declared, length))

    def _declared(self, at: int) -> int:
        found = self._chunk(at)
        assert found is not None
        span = self.chunks.get(b"ds64")
        if found[1] == 0xFFFFFFFF and span is not None and span.length >= 24:
            return int(struct.unpack("<Q", read_at(self.file, span.start + 16, 8))[0])
        return found[1]

    def _follows(self, at: int, padding_bytes: int) -> int | None:
        """Where this file ends, if what follows its sound, up to `at`, belongs to it or is another file."""
        padded = min(self.end, at + (self.start - at) % self.form.align)
        for place in dict.fromkeys((padded, at)):
            stop = self._end_of_chunks(place, padding_bytes)
            if stop is not None:
                return stop
        return None

    def _end_of_chunks(self, first: int, padding_bytes: int) -> int | None:
        at = first
        while self.end - at >= len(self.form.data):
            if self._begins(at):
                return at
            head = read_at(self.file, at, 16)
            found = self._chunk(at)
            if (tag := tag_bytes(self.file, at, self.end)) and at + tag <= self.end:
                at += tag
                continue
            if head.startswith(_TAGS) or (head[:4] in _LAST_CHUNKS and (found is None or found[1] > self.end - at)):
                break
            if head.startswith(_OTHER_FORMATS):
                self.layout.notes.append(f"{self.end - at} bytes from byte {at} on are another format, and left out")
                break
            if found is None or not self.form.is_name(found[0]) or not 0 <= found[1] <= self.end - at:
                rest = self.end - at
                if rest > padding_bytes or any(read_at(self.file, at, rest)):
                    if at == first:
                        return None
                    self.layout.notes.append(f"{rest} bytes after its last chunk are no sound, and left out")
                break
            at = self._after(at, found[1])
        return self.end

    def _joined(self, at: int) -> int | None:
        """Where another file begins in what is taken for sound."""
        for place in find_in(self.file, self.form.magic, at, self.end):
            if self.form.begins(read_at(self.file, place, 40)):
                return place
        return None

    def _exact(self, at: int, length: int, stop: int) -> Piece:
        if self.form.name in ("BW64", "W64"):  # libsndfile takes what follows the sound of a W64 for sound, too
            return self._patched(at, length, 1.0)
        return Piece((Span(self.start, stop - self.start),))

    def _patched(self, at: int, length: int, promised: float) -> Piece:
        """The file with its true length in the header."""
        body = Span(at + self.form.header_bytes, length)
        parts: tuple[Part, ...]
        if self.form.second == _WAVE:
            fmt = self.chunks.get(b"fmt ")
            if fmt is None:
                return Piece((Span(self.start, self.end - self.start),))
            parts = (*wav_header(read_at(self.file, *fmt), length, self.form.size[0]), body)
        else:
            room = (1 << 8 * struct.calcsize(self.form.size)) - 1
            size = struct.pack(self.form.size, min(length + self.form.own, room))
            field = at + len(self.form.data)
            parts = (Span(self.start, field - self.start), size, body)
        return Piece(parts, promised)


def wav_header(fmt: bytes, length: int, order: str = "<") -> tuple[bytes, ...]:
    """Header of a WAV or, from 4 GiB on, RF64 file of `length` bytes of sound; `fmt` is the chunk that describes it."""
    fmt += bytes(len(fmt) % 2)
    total = 4 + len(fmt) + 8 + length
    if total < 0xFFFFFFFF:
        magic = b"RIFX" if order == ">" else b"RIFF"
        sizes = (struct.pack(f"{order}I", total), struct.pack(f"{order}I", length))
        return magic, sizes[0], b"WAVE", fmt, b"data", sizes[1]
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, total + 36, length, 0, 0)
    return b"RF64\xff\xff\xff\xffWAVE", ds64, fmt, b"data\xff\xff\xff\xff"
