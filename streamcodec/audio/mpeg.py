"""MP3, and MPEG audio of layers I and II: where the frames are, among tags, holes and headers that promise others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.scan import find_in, read_at, tag_bytes
from streamcodec.audio.view import Part, Span

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
_CHAIN = 3
"""So many frames in a row are no accident."""
_SEARCH_BYTES = 1 << 20
"""The first frame of an MPEG file is within so many bytes, tags aside."""
_XING_PADDING = 142
"""Where LAME says how many samples to cut off the end, in 12 bits."""
_PREFIX_BYTES = 65_536
_LOOK_BYTES = 64
_SPARE_BYTES = 900
"""Zeros after the last frame of layers I and II, whose length libmpg123 only estimates; it searches 1024 bytes."""


class Kind(NamedTuple):
    """What is alike in all frames of a stream; version and rate as they are coded."""

    version: int
    layer: int
    rate: int
    mono: bool


class Header(NamedTuple):
    """What the four bytes before a frame say."""

    kind: Kind
    n_bytes: int
    n_samples: int
    side_bytes: int


@lru_cache(1024)
def parse_header(data: bytes) -> Header | None:
    """Read the header of an MPEG audio frame; None if it is none (free bit rates, which hardly exist, included)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = data[1] >> 3 & 3, 4 - (data[1] >> 1 & 3)
    bitrate, rate, padded = data[2] >> 4, data[2] >> 2 & 3, data[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    rate_hz = _RATES_HZ[version][rate]
    bps = 1000 * _KBPS[(1, layer) if version == 3 else (2, min(layer, 2) if layer == 1 else 2)][bitrate - 1]
    kind = Kind(version, layer, rate, data[3] >> 6 == 3)
    if layer == 1:
        return Header(kind, (12 * bps // rate_hz + padded) * 4, 384, 0)
    n_samples = 576 if layer == 3 and version != 3 else 1152
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[version == 3, kind.mono]
    return Header(kind, n_samples // 8 * bps // rate_hz + padded, n_samples, side)


@dataclass
class _Stream:
    """Frames that belong together, from one header frame to the next.

    Parameters
    ----------
    kind : Kind
        Of its frames.
    first : bytes
        Header of its first frame.
    info : bytes
        The frame of a Xing or Info header that counts frames, empty without one.
    promised : int
        Frames that a header promises; 0 where none does.
    ranges : list of [int, int]
        Where the frames begin and end.
    n_frames : int
        How many there are.
    """

    kind: Kind
    first: bytes
    info: bytes
    promised: int
    ranges: list[list[int]]
    n_frames: int = 0

    def add(self, at: int, n_bytes: int) -> None:
        """Append a frame."""
        self.n_frames += 1
        if self.ranges and self.ranges[-1][1] == at:
            self.ranges[-1][1] = at + n_bytes
        else:
            self.ranges.append([at, at + n_bytes])

    def _corrected(self, info: bytearray, at: int, is_cut: bool) -> bytes:
        """The frame of a Xing header with the true number of bytes; where the end is missing, nothing is cut off it."""
        flags = info[at - 1]
        if flags & 2:
            total = len(info) + sum(end - start for start, end in self.ranges)
            info[at + 4 : at + 8] = total.to_bytes(4, "big")
        padding = at - 8 + _XING_PADDING
        if is_cut and flags & 15 == 15 and len(info) >= padding + 2:
            info[padding] &= 0xF0
            info[padding + 1] = 0
        return bytes(info)

    def piece(self) -> Piece:
        """The frames after a header frame with their true number."""
        parts: tuple[Part, ...] = tuple(Span(start, end - start) for start, end in self.ranges)
        promised = self.promised / self.n_frames if self.promised > self.n_frames + 2 else 1.0
        if self.kind.layer < 3:
            return Piece((*parts, bytes(_SPARE_BYTES)), promised)
        count = self.n_frames.to_bytes(4, "big")
        # long enough for what is in it, without padding and checksum
        info = self.info or bytes([0xFF, self.first[1] | 1, 0xA0 | self.first[2] & 0x0C, self.first[3]])
        head = parse_header(info[:4])
        assert head is not None
        at = 4 + head.side_bytes + 8
        if self.info:
            info = self._corrected(bytearray(info), at, promised > 1)
        else:
            info = (info.ljust(at - 8, b"\0") + b"Xing\0\0\0\1").ljust(head.n_bytes, b"\0")
        return Piece((info[:at], count, info[at + 4 :], *parts), promised)


def mpeg_layout(file: BinaryIO, start: int, size: int) -> Layout | None:
    """Frames of MPEG audio from `start` on, stream by stream; None if there are none.

    What is no frame is left out: tags, of which nobody needs to know, and holes, which are noted.  A stream is shown
    to the decoder with a header that counts its frames, as libmpg123 believes what it is told.
    """
    at = _next_chain(file, start, size, min(size, start + _SEARCH_BYTES))
    if at is None or at - start > max(_PREFIX_BYTES, size // 2):
        return None
    layout = Layout("MP3", [])
    if at > start:
        _note_hole(layout, start, at)
    streams: list[_Stream] = []
    while at < size:
        frame = read_at(file, at, _LOOK_BYTES)
        head = parse_header(frame[:4])
        if head is None or (streams and head.kind != streams[-1].kind and _next_chain(file, at, size, at + 1) is None):
            tag = tag_bytes(file, at, size)
            found = at + tag if tag else _next_chain(file, at, size, size)
            if not tag:
                _note_hole(layout, at, size if found is None else found)
            if found is None:
                break
            at = found
            continue
        if at + head.n_bytes > size:
            break
        marker = _info_marker(frame, head)
        if marker or not streams or head.kind != streams[-1].kind:
            promised = _promised(frame, marker, head)
            info = read_at(file, at, head.n_bytes) if marker == b"Xing" and promised else b""
            streams.append(_Stream(head.kind, frame[:4], info, promised, []))
        if not marker:
            streams[-1].add(at, head.n_bytes)
        at += head.n_bytes
    layout.pieces = [stream.piece() for stream in streams if stream.n_frames]
    if streams[0].kind.layer < 3:
        layout.kind = f"MPEG audio of layer {'I' * streams[0].kind.layer}"
    return layout if layout.pieces else None


def _note_hole(layout: Layout, start: int, end: int) -> None:
    layout.notes.append(f"{end - start} bytes from byte {start} on are no MPEG frames, and left out")


def _header(file: BinaryIO, at: int) -> Header | None:
    return parse_header(read_at(file, at, 4))


def _next_chain(file: BinaryIO, start: int, end: int, last: int) -> int | None:
    """The next place, before `last`, where `_CHAIN` frames follow each other, or fewer up to a tag or the end."""
    for at in find_in(file, b"\xff", start, last):
        head = first = _header(file, at)
        place, count = at, 0
        while head is not None and first is not None and head.kind == first.kind:
            count += 1
            place += head.n_bytes
            if count == _CHAIN or place == end or (place < end and tag_bytes(file, place, end)):
                return at
            head = _header(file, place)
    return None


def _info_marker(frame: bytes, head: Header) -> bytes:
    """Xing (also written Info) or VBRI in a frame that holds no sound but tells of the others."""
    if head.kind[1] != 3:
        return b""
    if frame.startswith((b"Xing", b"Info"), 4 + head.side_bytes):
        return b"Xing"
    return b"VBRI" if frame.startswith(b"VBRI", 36) else b""


def _promised(frame: bytes, marker: bytes, head: Header) -> int:
    at = 4 + head.side_bytes + 4
    if marker == b"Xing" and len(frame) >= at + 8 and frame[at + 3] & 1:
        return int.from_bytes(frame[at + 4 : at + 8], "big")
    return int.from_bytes(frame[50:54], "big") if marker == b"VBRI" and len(frame) >= 54 else 0


def is_adts(file: BinaryIO, start: int, end: int) -> bool:
    """Whether AAC frames (ADTS) follow each other from `start` on."""
    at, count = start, 0
    while count < _CHAIN and len(head := read_at(file, at, 7)) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        at += max(7, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)
        count += 1
    return count == _CHAIN or (count > 0 and at == end)
