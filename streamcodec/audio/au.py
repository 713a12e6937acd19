"""AU, Sun's and NeXT's: a header and the sound, to the end of the file or to the next one."""

from __future__ import annotations

import struct
from typing import BinaryIO

from streamcodec.audio.chunks import PADDING_BYTES, is_placeholder, promised_share
from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.scan import find_in, read_at
from streamcodec.audio.view import Span


def au_layout(file: BinaryIO, size: int) -> Layout | None:
    """Pieces of an AU file, or of several joined; None if it is none."""
    pieces = []
    start: int | None = 0
    while start is not None:
        head = _au_header(read_at(file, start, 24))
        if head is None:
            break
        order, offset, declared = head
        body, magic = start + offset, read_at(file, start, 4)
        unknown = declared == 0 or is_placeholder(declared)
        end = body + declared
        if unknown or (end != size and not _au_header(read_at(file, end, 24))):
            places = (at for at in find_in(file, magic, body, size) if _au_header(read_at(file, at, 24)))
            end = next(places, size)
        rest = read_at(file, body + declared, PADDING_BYTES + 1) if end == size else b""
        if not unknown and len(rest) <= PADDING_BYTES and not any(rest):
            end = min(end, body + declared)
        next_start = end if _au_header(read_at(file, end, 24)) else None
        length = max(0, min(end, size) - body)
        share = 1.0 if unknown or length - declared >= 1 << 32 else promised_share(declared, length)
        field = struct.pack(f"{order}I", min(length, 0xFFFFFFFF))
        pieces.append(Piece((Span(start, 8), field, Span(start + 12, max(0, offset - 12 + length))), share))
        start = next_start
    return Layout("AU", pieces) if pieces else None


def _au_header(head: bytes) -> tuple[str, int, int] | None:
    """Byte order, start and length of the sound."""
    order = {b".snd": ">", b"dns.": "<"}.get(head[:4])
    if order is None or len(head) < 24:
        return None
    offset, length, encoding, rate_hz, channels = struct.unpack(f"{order}5I", head[4:])
    if not (24 <= offset < 1 << 20 and 1 <= encoding <= 27 and rate_hz and 1 <= channels <= 1024):
        return None
    return order, offset, length
