"""NIST SPHERE, VOC, AVR, Psion WVE and SDS: how much sound their headers promise, which libsndfile does not compare."""

from __future__ import annotations

import struct
from typing import BinaryIO

from streamcodec.audio.chunks import promised_share
from streamcodec.audio.layout import Layout, Piece
from streamcodec.audio.scan import read_at
from streamcodec.audio.view import Span
from streamcodec.errors import AudioError

_VOC = b"Creative Voice File\x1a"
_VOC_SOUND = {1: 2, 2: 0, 9: 12}
"""Kinds of blocks with sound, and the bytes before it."""
_AVR_BYTES, _WVE_BYTES = 128, 32
_SDS_BYTES, _SDS_BLOCK_BYTES, _SDS_BLOCK_SAMPLES = 21, 127, {2: 60, 3: 40, 4: 30}


def older_layout(file: BinaryIO, size: int) -> Layout | None:
    """The file as a whole, with how much it promises; None if it is none of these.

    Raises
    ------
    AudioError
        It is an SDS file that breaks off: libsndfile makes up silence for the rest.
    """
    head = read_at(file, 0, 1024)
    if head.startswith(b"NIST_1A\n"):
        return _layout("NIST SPHERE", size, _nist_share(head, size))
    if head.startswith(_VOC) and len(head) >= 26:
        return _layout("VOC", size, _voc_share(file, size))
    if head.startswith(b"2BIT") and len(head) >= _AVR_BYTES:
        mono, bits = struct.unpack_from(">HH", head, 12)
        n_bytes = struct.unpack_from(">I", head, 26)[0] * (2 if mono else 1) * max(1, bits // 8)
        return _layout("AVR", size, _share(n_bytes, size - _AVR_BYTES))
    if head.startswith(b"ALawSoundFile**\0") and len(head) >= _WVE_BYTES:
        return _layout("WVE", size, _share(struct.unpack_from(">I", head, 18)[0], size - _WVE_BYTES))
    if head[:2] == b"\xf0\x7e" and head[3:4] == b"\x01" and len(head) >= _SDS_BYTES:
        _check_sds(head, size)
        return _layout("SDS", size, 1.0)
    return None


def _layout(kind: str, size: int, share: float) -> Layout:
    return Layout(kind, [Piece((Span(0, size),), share)])


def _share(declared: int, there: int) -> float:
    """Above 1 where the end is missing; what is there beyond the promise is read anyway."""
    return max(1.0, promised_share(declared, there))


def _nist_share(head: bytes, size: int) -> float:
    fields = {}
    for line in head.decode("latin-1").split("end_head")[0].splitlines():
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2]
    if "," in fields.get("sample_coding", ""):  # compressed: its length in bytes tells nothing
        return 1.0
    try:
        numbers = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes")]
        header_bytes = int(head[8:16])
    except (KeyError, ValueError):
        return 1.0
    return _share(numbers[0] * numbers[1] * numbers[2], size - header_bytes)


def _voc_share(file: BinaryIO, size: int) -> float:
    at = struct.unpack_from("<H", read_at(file, 20, 2))[0]
    declared = there = 0
    while at + 4 <= size:
        block = read_at(file, at, 4)
        if block[0] == 0:
            break
        length = int.from_bytes(block[1:], "little")
        if block[0] in _VOC_SOUND:
            declared += length - _VOC_SOUND[block[0]]
            there += min(length, size - at - 4) - _VOC_SOUND[block[0]]
        at += 4 + length
    return _share(declared, there)


def _check_sds(head: bytes, size: int) -> None:
    bits, promised = head[6], head[10] | head[11] << 7 | head[12] << 14
    blocks = (size - _SDS_BYTES) // _SDS_BLOCK_BYTES
    there = blocks * _SDS_BLOCK_SAMPLES.get(-(-bits // 7), promised)
    if there < promised:
        raise AudioError(f"breaks off: its header promises {promised} samples, {there} are there.")
