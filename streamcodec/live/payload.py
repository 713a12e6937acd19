"""What a media datagram carries: one packet, and coarse copies of the ones before it.

=====  ================================================================================
bytes  meaning
=====  ================================================================================
1      loss that the sender of this sees in what it receives, in 255ths
1      K, codebooks of the packet, 1 to 64
1      R, copies, times 16, plus C, codebooks of a copy; zero, or 1 to 4 and 1 to 15
n      the packet
R c    copies: the first C codes of the frame before this one, of the one before it, ...
=====  ================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from streamcodec.bitstream import read_packet
from streamcodec.config import CodecConfig
from streamcodec.errors import BitstreamError

MAX_COPIES = 4
MAX_COPY_CODEBOOKS = 15
_HEAD_BYTES = 3


@dataclass(frozen=True, slots=True)
class Media:
    """A packet, copies of those before it (nearest first), and the loss that its sender sees, 0 to 1."""

    packet: bytes
    n_codebooks: int
    copies: tuple[bytes, ...] = ()
    copy_codebooks: int = 0
    seen_loss: float = 0.0

    def pack(self) -> bytes:
        """Bytes of a datagram."""
        loss = min(max(round(255 * self.seen_loss), 0), 255)
        copies = len(self.copies) << 4 | self.copy_codebooks if self.copies else 0
        return bytes((loss, self.n_codebooks, copies)) + self.packet + b"".join(self.copies)

    @classmethod
    def parse(cls, payload: bytes, config: CodecConfig) -> Media:
        """Read and check every field against the model.

        Raises
        ------
        BitstreamError
            Anything is not as `pack` makes it.
        """
        if len(payload) < _HEAD_BYTES:
            raise BitstreamError(f"a payload of {len(payload)} bytes; its head takes {_HEAD_BYTES}")
        loss, n_codebooks, copies = payload[:_HEAD_BYTES]
        n_copies, copy_codebooks = copies >> 4, copies & 15
        if not 1 <= n_codebooks <= config.n_codebooks or copy_codebooks > config.n_codebooks:
            raise BitstreamError(f"{n_codebooks} codebooks, copies of {copy_codebooks}; {config.n_codebooks} at most")
        if n_copies > MAX_COPIES or (n_copies == 0) != (copy_codebooks == 0):
            raise BitstreamError(f"{n_copies} copies of {copy_codebooks} codebooks; at most {MAX_COPIES} copies")
        packet_bytes = config.packet_bytes(n_codebooks)
        copy_bytes = config.packet_bytes(copy_codebooks) if n_copies else 0
        expected = _HEAD_BYTES + packet_bytes + n_copies * copy_bytes
        if len(payload) != expected:
            raise BitstreamError(f"a payload of {len(payload)} bytes; what it holds takes {expected}")
        at = _HEAD_BYTES + packet_bytes
        packet = payload[_HEAD_BYTES:at]
        parts = tuple(payload[start : start + copy_bytes] for start in range(at, expected, copy_bytes or 1))
        read_packet(packet, config.bits_per_code, n_codebooks)
        for part in parts:
            read_packet(part, config.bits_per_code, copy_codebooks)
        return cls(packet, n_codebooks, parts, copy_codebooks, loss / 255)
