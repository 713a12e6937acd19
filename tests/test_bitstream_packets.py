"""Packets: exact size, exact codes, and a clear refusal of everything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcodec.bitstream import make_packet, pack_codes, read_packet, unpack_codes
from streamcodec.errors import BitstreamError, CorruptStream, TruncatedStream


@st.composite
def packets(draw):
    bits = draw(st.integers(1, 15))
    codes = draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=64))
    return bits, np.array(codes, np.int16)


@settings(deadline=None, derandomize=True)
@given(packets())
def test_packet_round_trips_in_exactly_the_promised_bytes(case):
    bits, codes = case
    packet = pack_codes(codes, bits)
    assert len(packet) == -(-bits * len(codes) // 8)
    back = unpack_codes(packet, bits, len(codes))
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, codes)


def test_first_code_is_in_the_most_significant_bits():
    assert pack_codes(np.array([0b1000000001, 0b1111111110]), 10) == bytes([0b10000000, 0b01111111, 0b11100000])


@pytest.mark.parametrize("bits", range(8, 16))
def test_packet_length_alone_tells_how_many_codebooks(bits):
    rng = np.random.default_rng(bits)
    lengths = set()
    for count in range(1, 65):
        codes = rng.integers(0, 2**bits, count)
        packet = pack_codes(codes, bits)
        lengths.add(len(packet))
        np.testing.assert_array_equal(unpack_codes(memoryview(packet), bits), codes)
    for length in set(range(1, 130)) - lengths:
        with pytest.raises(CorruptStream, match=f"{length} bytes long"):
            unpack_codes(bytes(length), bits)


def test_short_codes_need_to_be_told_how_many_they_are():
    assert unpack_codes(b"\x80", 5).tolist() == [16]
    with pytest.raises(BitstreamError, match="2 to 3 codes of 5 bits"):
        unpack_codes(bytes(2), 5)


@settings(deadline=None, derandomize=True)
@given(packets())
def test_every_packet_tells_how_many_codes_it_holds(case):
    bits, codes = case
    packet = make_packet(codes, bits)
    assert len(packet) == (bits * len(codes) + (bits < 8) + 7) // 8
    assert packet == pack_codes(codes, bits) or bits < 8
    for count in (None, len(codes)):
        np.testing.assert_array_equal(read_packet(memoryview(packet), bits, count), codes)
    for other in {1, len(codes) - 1, len(codes) + 1, 64} - {0, 65, len(codes)}:
        with pytest.raises(BitstreamError):
            read_packet(packet, bits, other)


@pytest.mark.parametrize("bits", range(1, 8))
def test_short_codes_of_any_number_up_to_64_are_told_apart(bits):
    made = {make_packet(np.full(count, value), bits) for count in range(1, 65) for value in (0, 2**bits - 1)}
    assert len(made) == 2 * 64
    for packet in made:
        assert make_packet(read_packet(packet, bits), bits) == packet


@pytest.mark.parametrize(
    ("packet", "bits", "error"),
    [
        (b"", 4, TruncatedStream),
        (b"\x00", 4, CorruptStream),  # no 1 in the last byte
        (b"\x12\x00", 4, CorruptStream),
        (b"\x80", 4, CorruptStream),  # a 1 behind no code
        (b"\x12\x34", 4, CorruptStream),  # the 1 stands within a code
        (b"\x12\x38" + bytes(31) + b"\x80", 4, CorruptStream),  # 66 codes
        (bytes(1000) + b"\x80", 1, CorruptStream),
        (b"\x80", 0, BitstreamError),
    ],
)
def test_packet_of_short_codes_that_was_cut_or_damaged_is_refused(packet, bits, error):
    with pytest.raises(error):
        read_packet(packet, bits)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.integers(-1, 16))
def test_what_is_read_from_random_bytes_is_what_makes_them(packet, bits):
    problem = ""
    try:
        assert make_packet(read_packet(packet, bits), bits) == packet
    except BitstreamError as error:
        problem = str(error)
    assert "\n" not in problem


def test_padding_that_is_not_zero_is_refused():
    packet = pack_codes(np.array([1, 2, 3]), 10)
    for dirt in (1, 2, 3):
        with pytest.raises(CorruptStream, match="last 2 bits"):
            unpack_codes(packet[:-1] + bytes([packet[-1] | dirt]), 10)


def test_packet_of_another_length_than_asked_for_is_refused():
    packet = pack_codes(np.arange(8), 10)
    with pytest.raises(TruncatedStream, match=r"6 bytes; 8 codes of 10 bits take 10\."):
        unpack_codes(packet[:6], 10, 8)
    with pytest.raises(CorruptStream, match="11 bytes"):
        unpack_codes(packet + b"\0", 10, 8)
    with pytest.raises(TruncatedStream, match="empty"):
        unpack_codes(b"", 10)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(-1, 20), st.one_of(st.none(), st.integers(-2, 100)))
def test_unpacking_random_bytes_gives_codes_in_range_or_one_clear_error(packet, bits, count):
    try:
        codes = unpack_codes(packet, bits, count)
    except BitstreamError as error:
        text = str(error)
    else:
        text = ""
        assert codes.min() >= 0
        assert codes.max() < 2**bits
        assert pack_codes(codes, bits) == packet
    assert "\n" not in text


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        (np.array([0, 1024]), "code 1024 does not fit in 10 bits"),
        (np.array([3, -1]), "code -1 does not fit"),
        (np.array([2**63], np.uint64), "does not fit"),
        (np.zeros((1, 3), int), r"\[1, 3\]"),
        (np.zeros(3), "float64"),
        (np.zeros(0, int), r"\[0\]"),
        (np.zeros(65, int), r"\[65\]"),
    ],
)
def test_codes_that_are_no_packet_are_refused(codes, text):
    with pytest.raises(BitstreamError, match=text):
        pack_codes(codes, 10)
