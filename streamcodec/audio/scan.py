"""Look into sound files: bytes at a place, places of a pattern, lengths of tags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_SCAN_BYTES = 1 << 20


def read_at(file: BinaryIO, at: int, size: int) -> bytes:
    """`size` bytes from `at`, fewer at the end."""
    file.seek(at)
    return file.read(size)


def find_in(file: BinaryIO, pattern: bytes, start: int, end: int) -> Iterator[int]:
    """Every place of `pattern` between two places, in little memory."""
    at = start
    while at + len(pattern) <= end:
        block = read_at(file, at, min(_SCAN_BYTES + len(pattern) - 1, end - at))
        found = block.find(pattern)
        while found >= 0:
            yield at + found
            found = block.find(pattern, found + 1)
        at += _SCAN_BYTES


def tag_bytes(file: BinaryIO, at: int, end: int) -> int:
    """Length of the ID3, APE or Lyrics3 tag at a place before `end`, 0 if there is none."""
    head = read_at(file, at, 32)
    if head.startswith(b"TAG"):
        return min(128, end - at)
    if head.startswith(b"ID3") and len(head) >= 10:
        return id3_bytes(head)
    if head.startswith(b"APETAGEX") and len(head) == 32:
        size, flags = struct.unpack("<I4xI", head[12:24])
        return min(int(size) + (32 if flags & 1 << 29 else 0), end - at)
    if head.startswith(b"LYRICSBEGIN"):
        for marker in (b"LYRICS200", b"LYRICSEND"):
            for found in find_in(file, marker, at, min(end, at + 65_536)):
                return found + 9 - at
    return 0


def id3_bytes(head: bytes) -> int:
    """Length of an ID3v2 tag that begins so; 0 if it is none."""
    if len(head) < 10 or not head.startswith(b"ID3") or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte
    return 10 + size + (10 if head[5] & 0x10 else 0)
