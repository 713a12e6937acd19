"""Blocks of a `.scx` file: a checked head, codes packed without gaps, a CRC; and the end marker."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct(">HH")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">Q")
_INDEX = struct.Struct(">I")
_PIECE_CODES = 1 << 16
BLOCK_HEAD_BYTES = _HEAD.size
BLOCK_CRC_BYTES = _CRC.size
END_BYTES = _HEAD.size + _LENGTH.size + _CRC.size


def build_block(index: int, n_frames: int, payload: bytes) -> bytes:
    """Bytes of block `index`."""
    data = _head(index, n_frames) + payload
    return data + _CRC.pack(_crc(index, data))


def build_end(index: int, n_samples: int) -> bytes:
    """Bytes of the end marker that follows `index` blocks."""
    return build_block(index, 0, _LENGTH.pack(n_samples))


def parse_head(index: int, head: bytes) -> int | None:
    """Frames of block `index`, 0 for the end marker; None where the head's check does not hold."""
    (n_frames, _) = _HEAD.unpack(head)
    return n_frames if head == _head(index, n_frames) else None


def parse_body(index: int, head: bytes, body: bytes) -> memoryview | None:
    """Payload of block `index`, a view of all that follows its head, or None where the CRC does not hold."""
    payload = memoryview(body)[: -_CRC.size]
    return payload if body[-_CRC.size :] == _CRC.pack(_crc(index, head, payload)) else None


def parse_length(payload: memoryview) -> int:
    """Samples that an end marker states."""
    (n_samples,) = _LENGTH.unpack(payload)
    return int(n_samples)


def pack_block(codes: NDArray[np.integer[Any]], bits_per_code: int) -> bytes:
    """Payload of a block: `codes` [channels, K, F] frame by frame, channel by channel, MSB first, padded with zeros."""
    words = codes.transpose(2, 0, 1).astype(">u2").reshape(-1, 1)
    return np.packbits(np.unpackbits(words.view(np.uint8), axis=1)[:, 16 - bits_per_code :]).tobytes()


def unpack_block(
    payload: bytes | memoryview, channels: int, n_codebooks: int, n_frames: int, bits_per_code: int
) -> NDArray[np.int16]:
    """Codes int16 [channels, K, n_frames] of a payload, which may be longer than that.

    In pieces: bits take sixteen times the room of the bytes that they come from.
    """
    per_frame = channels * n_codebooks
    codes = np.empty((channels, n_codebooks, n_frames), np.int16)
    data = np.frombuffer(payload, np.uint8)
    piece = 8 * max(1, _PIECE_CODES // (8 * per_frame))  # frames that begin at a byte
    for start in range(0, n_frames, piece):
        frames = min(piece, n_frames - start)
        count = frames * per_frame
        first = start * per_frame * bits_per_code // 8
        bits = np.unpackbits(data[first:], count=count * bits_per_code).reshape(count, bits_per_code)
        values = np.zeros(count, np.int16)
        for j in range(bits_per_code):
            values <<= 1
            values |= bits[:, j]
        codes[:, :, start : start + frames] = values.reshape(frames, channels, n_codebooks).transpose(1, 2, 0)
    return codes


def padding_is_zero(payload: memoryview, n_bits: int) -> bool:
    """Whether the bits of the last byte that carry no code are zero."""
    n_padding = 8 * len(payload) - n_bits
    return payload[-1] & ((1 << n_padding) - 1) == 0


def _crc(index: int, *parts: bytes | memoryview) -> int:
    """CRC-32 over the index as uint32, then the parts: a block that moved fails its check."""
    crc = zlib.crc32(_INDEX.pack(index & 0xFFFFFFFF))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _head(index: int, n_frames: int) -> bytes:
    return _HEAD.pack(n_frames, _crc(index, n_frames.to_bytes(2, "big")) & 0xFFFF)
