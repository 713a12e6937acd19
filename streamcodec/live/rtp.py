"""RTP headers (RFC 3550, section 5.1) and the numbers behind their 16 bits."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamcodec.errors import BitstreamError

HEADER_BYTES = 12
_VERSION = 2
_LAYOUT = struct.Struct("!BBHII")
_LARGEST_LEAP = 3000  # 40 s


@dataclass(frozen=True, slots=True)
class RtpHeader:
    """A header without contributing sources, extension or padding; `payload_type` is dynamic, 96 to 127."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool = False

    def pack(self) -> bytes:
        """Twelve bytes."""
        return _LAYOUT.pack(
            _VERSION << 6,
            self.marker << 7 | self.payload_type,
            self.sequence & 0xFFFF,
            self.timestamp & 0xFFFF_FFFF,
            self.ssrc,
        )

    @classmethod
    def parse(cls, datagram: bytes) -> RtpHeader:
        """Read the first twelve bytes.

        Raises
        ------
        BitstreamError
            Too short, or not a header as `pack` makes it.
        """
        if len(datagram) < HEADER_BYTES:
            raise BitstreamError(f"a datagram of {len(datagram)} bytes; an RTP header takes {HEADER_BYTES}")
        first, second, sequence, timestamp, ssrc = _LAYOUT.unpack_from(datagram)
        if first != _VERSION << 6:
            raise BitstreamError(f"an RTP header begins with {first:#04x}; only version 2 without extras is taken")
        payload_type = second & 0x7F
        if payload_type < 96:
            raise BitstreamError(f"RTP payload type {payload_type} is not dynamic")
        return cls(payload_type, sequence, timestamp, ssrc, bool(second >> 7))


def unwrapped(sequence: int, highest: int | None) -> int:
    """Full number nearest to `highest` whose low 16 bits are `sequence`.

    Examples
    --------
    >>> unwrapped(2, 65_535), unwrapped(65_535, 65_537), unwrapped(7, None)
    (65538, 65535, 7)
    """
    if highest is None:
        return sequence
    full = (highest & ~0xFFFF) | sequence
    if full - highest > 0x8000:
        full -= 0x1_0000
    elif highest - full > 0x8000:
        full += 0x1_0000
    return full


class ReplayWindow:
    """Tells numbers seen before from new ones; what lies further back than the window counts as seen.

    Parameters
    ----------
    size : int
        Numbers below the highest that are told apart.
    """

    def __init__(self, size: int = 1024) -> None:
        self.size = size
        self.highest: int | None = None
        self._seen = 0

    def is_new(self, number: int) -> bool:
        """Whether the number was not taken yet."""
        if number < 0:
            return False
        if self.highest is None or number > self.highest:
            return True
        behind = self.highest - number
        return behind < self.size and not self._seen >> behind & 1

    def take(self, number: int) -> None:
        """Mark it as seen."""
        if self.highest is None or number > self.highest:
            ahead = self.size if self.highest is None else min(number - self.highest, self.size)
            self._seen = (self._seen << ahead | 1) & ((1 << self.size) - 1)
            self.highest = number
        else:
            self._seen |= 1 << (self.highest - number)


class StreamClock:
    """Holds a stream to its first datagram: numbers do not leap, and timestamps fit them.

    Parameters
    ----------
    frame_samples : int
        By how much the timestamp grows with each number.
    """

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self._origin: tuple[int, int] | None = None

    def check(self, number: int, timestamp: int, highest: int | None) -> None:
        """Compare a datagram with those before it, the highest number of which is given.

        Raises
        ------
        BitstreamError
            It does not fit.
        """
        first, origin = self._origin = self._origin or (number, timestamp)
        if highest is not None and number - highest > _LARGEST_LEAP:
            raise BitstreamError(f"a leap of {number - highest} datagrams; at most {_LARGEST_LEAP}")
        if (timestamp - origin - (number - first) * self.frame_samples) & 0xFFFF_FFFF:
            raise BitstreamError(f"timestamp {timestamp} does not fit datagram {number}")
