"""One frame of one stream as a packet: K codes, most significant bit first, and nothing else but what tells K."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import BitstreamError, CorruptStream, TruncatedStream

MAX_CODEBOOKS = 64
MAX_BITS_PER_CODE = 15
LENGTH_TELLS_BITS = 8
"""Codes of so many bits or more: every K has a length of its own."""


def make_packet(codes: NDArray[np.integer[Any]], bits_per_code: int) -> bytes:
    """Packet of one frame, which `read_packet` reads without being told K.

    Codes of 8 bits or more are packed as `pack_codes` does.  Shorter ones are followed by a 1, then zeros up to the
    byte: a byte more where the codes fill theirs.

    Raises
    ------
    BitstreamError
        The codes have a wrong shape, type or range.

    Examples
    --------
    >>> make_packet(np.array([1, 1023]), bits_per_code=10).hex(" "), make_packet(np.array([1, 2, 3]), 4).hex(" ")
    ('00 7f f0', '12 38')
    """
    packed = pack_codes(codes, bits_per_code)
    if bits_per_code >= LENGTH_TELLS_BITS:
        return packed
    n_padding = 8 * len(packed) - bits_per_code * len(codes)
    return packed[:-1] + bytes([packed[-1] | 1 << (n_padding - 1)]) if n_padding else packed + b"\x80"


def read_packet(
    packet: bytes | bytearray | memoryview, bits_per_code: int, n_codebooks: int | None = None
) -> NDArray[np.int16]:
    """Codes of a packet that `make_packet` made, int16 [K].

    Parameters
    ----------
    packet : bytes
        One packet.
    bits_per_code : int
        1 to 15.
    n_codebooks : int or None
        K that the packet must have, any when None.

    Raises
    ------
    TruncatedStream
        The packet is empty, or shorter than `n_codebooks` needs.
    CorruptStream
        No K gives this packet, or K is not `n_codebooks`.

    Examples
    --------
    >>> read_packet(bytes.fromhex("1238"), bits_per_code=4)
    array([1, 2, 3], dtype=int16)
    """
    if bits_per_code >= LENGTH_TELLS_BITS or not len(packet):
        return unpack_codes(packet, bits_per_code, n_codebooks)
    check_bits(bits_per_code)
    last = packet[-1]
    n_padding = (last & -last).bit_length()  # the 1 and the zeros behind it
    count, rest = divmod(8 * len(packet) - n_padding, bits_per_code)
    if not last or rest or not 1 <= count <= MAX_CODEBOOKS:
        raise CorruptStream(
            f"a packet of {len(packet)} bytes that ends in {last:08b} holds no whole number of codes of "
            f"{bits_per_code} bits from 1 to {MAX_CODEBOOKS}, then a 1; this packet was cut or damaged."
        )
    if n_codebooks not in (None, count):
        raise CorruptStream(f"the packet holds {count} codes of {bits_per_code} bits, not {n_codebooks}.")
    end = bytes([last & last - 1]) if n_padding < 8 else b""  # the last byte without the 1
    return unpack_codes(bytes(packet[:-1]) + end, bits_per_code, count)


def pack_codes(codes: NDArray[np.integer[Any]], bits_per_code: int) -> bytes:
    """Codes without gaps: exactly ceil(bits_per_code * K / 8) bytes, padding bits zero.

    Parameters
    ----------
    codes : integer array [K]
        K from 1 to 64, each code from 0 to 2 ** bits_per_code - 1; K may differ from packet to packet.
    bits_per_code : int
        1 to 15.

    Raises
    ------
    BitstreamError
        The codes have a wrong shape, type or range.

    Examples
    --------
    >>> pack_codes(np.array([1, 1023]), bits_per_code=10).hex(" ")
    '00 7f f0'
    """
    check_bits(bits_per_code)
    if codes.ndim != 1 or codes.dtype.kind not in "iu" or not 1 <= codes.shape[0] <= MAX_CODEBOOKS:
        raise BitstreamError(
            f"codes of a packet are {codes.dtype} {list(codes.shape)}; they must be integers, [1] to [{MAX_CODEBOOKS}]."
        )
    value, seen = 0, 0
    code: int
    for code in codes.tolist():
        value = value << bits_per_code | code
        seen |= code
    if seen >> bits_per_code:  # also where a code is negative
        raise range_error(int(codes.min()), int(codes.max()), bits_per_code)
    n_bits = bits_per_code * len(codes)
    n_bytes = (n_bits + 7) // 8
    return (value << (8 * n_bytes - n_bits)).to_bytes(n_bytes, "big")


def unpack_codes(
    packet: bytes | bytearray | memoryview, bits_per_code: int, n_codebooks: int | None = None
) -> NDArray[np.int16]:
    """Codes that `pack_codes` packed, int16 [K].

    Parameters
    ----------
    packet : bytes
        What it gave.
    bits_per_code : int
        1 to 15.
    n_codebooks : int or None
        K that the packet must have; None takes it from the packet's length, which tells K whenever a code has
        8 bits or more (with fewer, `make_packet` and `read_packet` need not be told).

    Raises
    ------
    TruncatedStream
        The packet is shorter than `n_codebooks` needs, or empty.
    CorruptStream
        It is longer, its length fits no K, or its padding bits are not zero.
    BitstreamError
        The length fits several K and `n_codebooks` is None.

    Examples
    --------
    >>> unpack_codes(bytes.fromhex("007ff0"), bits_per_code=10)
    array([   1, 1023], dtype=int16)
    """
    check_bits(bits_per_code)
    n_bytes = len(packet)
    count = _infer_codebooks(n_bytes, bits_per_code) if n_codebooks is None else n_codebooks
    if not 1 <= count <= MAX_CODEBOOKS:
        raise BitstreamError(f"{count} codebooks were asked for; a packet has 1 to {MAX_CODEBOOKS}.")
    expected = (bits_per_code * count + 7) // 8
    if n_bytes != expected:
        error = TruncatedStream if n_bytes < expected else CorruptStream
        raise error(f"the packet is {n_bytes} bytes; {count} codes of {bits_per_code} bits take {expected}.")
    value = int.from_bytes(packet, "big")
    n_padding = 8 * n_bytes - bits_per_code * count
    if value & ((1 << n_padding) - 1):
        raise CorruptStream(f"the last {n_padding} bits of the packet must be zero; this packet was cut or damaged.")
    value >>= n_padding
    mask = (1 << bits_per_code) - 1
    shifts = range(bits_per_code * (count - 1), -1, -bits_per_code)
    return np.array([value >> shift & mask for shift in shifts], np.int16)


def check_bits(bits_per_code: int) -> None:
    """Refuse a number of bits that no model has."""
    if not 1 <= bits_per_code <= MAX_BITS_PER_CODE:
        raise BitstreamError(f"{bits_per_code} bits per code were given; a code has 1 to {MAX_BITS_PER_CODE}.")


def range_error(low: int, high: int, bits_per_code: int) -> BitstreamError:
    """Error for codes that do not fit, given the lowest and the highest of them."""
    limit = (1 << bits_per_code) - 1
    worst = low if low < 0 else high
    return BitstreamError(f"code {worst} does not fit in {bits_per_code} bits; codes go from 0 to {limit}.")


def _infer_codebooks(n_bytes: int, bits_per_code: int) -> int:
    """The one K whose packet is `n_bytes` long."""
    if n_bytes == 0:
        raise TruncatedStream("the packet is empty; a lost packet is decoded as None.")
    low = 8 * (n_bytes - 1) // bits_per_code + 1
    high = min(8 * n_bytes // bits_per_code, MAX_CODEBOOKS)
    if low > high:
        raise CorruptStream(f"no packet of codes of {bits_per_code} bits is {n_bytes} bytes long.")
    if low < high:
        raise BitstreamError(
            f"{n_bytes} bytes hold {low} to {high} codes of {bits_per_code} bits; say which with n_codebooks."
        )
    return low
