"""Packets and the `.scx` file container, as docs/bitstream.md specifies them; a leaf: numpy alone."""

from streamcodec.bitstream._header import ScxHeader, is_scx
from streamcodec.bitstream._packets import make_packet, pack_codes, read_packet, unpack_codes
from streamcodec.bitstream._reader import ScxReader
from streamcodec.bitstream._writer import ScxWriter

__all__ = [
    "ScxHeader",
    "ScxReader",
    "ScxWriter",
    "is_scx",
    "make_packet",
    "pack_codes",
    "read_packet",
    "unpack_codes",
]
