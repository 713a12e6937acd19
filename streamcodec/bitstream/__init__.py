"""Packets and the `.scx` file container, as docs/bitstream.md specifies them; a leaf: numpy alone."""

from streamcodec.bitstream._header import ScxHeader, is_scx
from streamcodec.bitstream._packets import pack_codes, unpack_codes
from streamcodec.bitstream._reader import ScxReader
from streamcodec.bitstream._writer import ScxWriter

__all__ = ["ScxHeader", "ScxReader", "ScxWriter", "is_scx", "pack_codes", "unpack_codes"]
