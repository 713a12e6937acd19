"""Ogg and FLAC: where each of several streams begins that were joined into one file."""

from __future__ import annotations

import struct
from typing import BinaryIO

from streamcodec.audio.chunks import PADDING_BYTES
from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.scan import find_in, read_at
from streamcodec.audio.view import Part, Span

_BEGINS = 2
_ID3V1_BYTES, _APE_BYTES = 128, 32
_LEAST_PADDING = 32
"""So many zeros are not the end of a FLAC frame."""
_FLAC = (b'fLaC\0\0\0"', b'fLaC\x80\0\0"')
_CODECS = {
    b"\x01vorbis": ("Ogg Vorbis", False),
    b"OpusHead": ("Ogg Opus", False),
    b"\x7fFLAC": ("Ogg FLAC", True),
    b"Speex   ": ("Ogg Speex", True),
}


def ogg_layout(file: BinaryIO, size: int) -> Layout | None:
    """Streams of an Ogg file, which may follow each other; None if it is none.

    What is no page is left out and noted, also a last page that was cut.
    """
    if read_at(file, 0, 4) != b"OggS":
        return None
    layout = Layout("Ogg", [])
    spans: list[list[Span]] = []
    at, among_firsts = 0, False
    while at < size:
        page = _page(file, at)
        if page is None or at + page[1] > size:
            found = next((place for place in find_in(file, b"OggS", at + 1, size) if _page(file, place)), size)
            layout.notes.append(f"{found - at} bytes from byte {at} on are no whole Ogg page, and left out")
            at = found
            continue
        begins = bool(page[0] & _BEGINS)
        if (begins and not among_firsts) or not spans:
            spans.append([])
        among_firsts = begins
        if begins:
            codec = _CODECS.get(next((name for name in _CODECS if page[2].startswith(name)), b""))
            if codec is not None:
                layout.kind, layout.by_libav = codec
        last = spans[-1][-1] if spans[-1] else None
        if last is not None and sum(last) == at:
            spans[-1][-1] = Span(last.start, last.length + page[1])
        else:
            spans[-1].append(Span(at, page[1]))
        at += page[1]
    layout.pieces = [Piece(tuple(parts)) for parts in spans]
    return layout if layout.pieces else None


def _page(file: BinaryIO, at: int) -> tuple[int, int, bytes] | None:
    """Flags, length and first bytes of the content of the page at a place."""
    head = read_at(file, at, 27 + 255 + 16)
    if len(head) < 27 or head[:5] != b"OggS\0" or len(head) < 27 + head[26]:
        return None
    start = 27 + head[26]
    return head[5], start + sum(head[27:start]), head[start : start + 16]


def flac_layout(file: BinaryIO, start: int, size: int) -> Layout | None:
    """Streams of a FLAC file; None if it is none.

    libFLAC is not told how long they are, but reads on while there are frames.
    """
    if not read_at(file, start, 8).startswith(_FLAC):
        return None
    starts = [at for at in find_in(file, b"fLaC", start, size) if read_at(file, at, 8).startswith(_FLAC)]
    pieces = []
    for at, end in zip(starts, [*starts[1:], size], strict=True):
        info = read_at(file, at, 26)
        if len(info) < 26:
            return None
        promised = int.from_bytes(info[21:26], "big") & 0xFFFFFFFFF
        unknown = bytes([info[21] & 0xF0]) + bytes(4)
        stop = _without_tags(file, at + 26, end)
        parts: tuple[Part, ...] = (Span(at, 21), unknown, Span(at + 26, stop - at - 26))
        pieces.append(Piece(parts, n_samples=promised or None))
    return Layout("FLAC", pieces)


def _without_tags(file: BinaryIO, start: int, end: int) -> int:
    """Where the sound ends, without the ID3v1 and APE tags and the zeros after it."""
    while True:
        tail = read_at(file, max(start, end - PADDING_BYTES), min(PADDING_BYTES, end - start))
        zeros = len(tail) - len(tail.rstrip(b"\0"))
        if tail[-_ID3V1_BYTES:].startswith(b"TAG"):
            length = _ID3V1_BYTES
        elif tail[-_APE_BYTES:].startswith(b"APETAGEX"):
            size, flags = struct.unpack_from("<I4xI", tail, len(tail) - _APE_BYTES + 12)
            length = size + (_APE_BYTES if flags >> 31 else 0)
        else:
            length = zeros if zeros >= _LEAST_PADDING else 0
        if not 0 < length < end - start:
            return end
        end -= length
