"""Damaged, cut and hostile `.scx` files: one clear error, nothing lost before it, no memory out of proportion."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scx_files import Pipe, file_bytes, joined, make_header, random_codes, read_all

from streamcodec.bitstream import ScxReader, ScxWriter
from streamcodec.errors import BitstreamError, CorruptStream, TruncatedStream

HEADER_BYTES = 41
HEADER = make_header(channels=2, n_codebooks=3, block_frames=4)
CODES = random_codes(HEADER, 10)
KNOWN = file_bytes(HEADER, CODES)
BLOCK_BYTES = 8 + 30
END = len(KNOWN) - 16


def _unknown():
    pipe = Pipe()
    with ScxWriter(pipe, HEADER) as writer:
        writer.write(CODES)
    return bytes(pipe.data)


FILES = {"known": KNOWN, "unknown": _unknown()}


@pytest.mark.parametrize("name", FILES)
def test_file_cut_at_any_byte_gives_all_whole_blocks_then_one_error(name):
    for size in range(len(KNOWN)):
        if size < HEADER_BYTES:
            with pytest.raises(TruncatedStream):
                ScxReader(io.BytesIO(FILES[name][:size]))
            continue
        reader, blocks, error = read_all(FILES[name][:size])
        whole = 10 if size >= END else 4 * ((size - HEADER_BYTES) // BLOCK_BYTES)
        np.testing.assert_array_equal(joined(blocks, HEADER), CODES[:, :, :whole])
        assert isinstance(error, TruncatedStream)
        assert f"decoded {whole} frames ({whole / 75:.2f} s)." in str(error)
        with pytest.raises(TruncatedStream):
            reader.read_block()


@pytest.mark.parametrize("name", FILES)
def test_file_cut_at_any_byte_gives_all_whole_frames_when_not_strict(name):
    for size in range(HEADER_BYTES, len(KNOWN)):
        reader, blocks, error = read_all(FILES[name][:size], strict=False)
        full, rest = divmod(min(size, END) - HEADER_BYTES, BLOCK_BYTES)
        frames = min(10, 4 * full + min(4, max(0, rest - 4) * 8 // HEADER.frame_bits))
        assert error is None
        assert isinstance(reader.problem, TruncatedStream)
        assert f"decoded {frames} frames" in str(reader.problem)
        np.testing.assert_array_equal(joined(blocks, HEADER), CODES[:, :, :frames])
        assert reader.frame == reader.decoded_frames == frames


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found_and_touches_no_block_before_it(name):
    for bit in range(8 * len(KNOWN)):
        data = bytearray(FILES[name])
        data[bit // 8] ^= 1 << bit % 8
        if bit // 8 < HEADER_BYTES:
            with pytest.raises(BitstreamError):
                ScxReader(io.BytesIO(data))
            continue
        _, blocks, error = read_all(bytes(data))
        before = min(10, 4 * ((bit // 8 - HEADER_BYTES) // BLOCK_BYTES)) if bit // 8 < END else 10
        assert isinstance(error, CorruptStream)
        assert f"decoded {before} frames" in str(error)
        np.testing.assert_array_equal(joined(blocks, HEADER), CODES[:, :, :before])


def test_any_flipped_bit_costs_one_block_when_concealing():
    for bit in range(8 * HEADER_BYTES, 8 * len(KNOWN)):
        data = bytearray(KNOWN)
        data[bit // 8] ^= 1 << bit % 8
        reader, blocks, error = read_all(bytes(data), on_corrupt="conceal")
        assert error is None
        assert isinstance(reader.problem, CorruptStream)
        assert reader.corrupt_blocks == 1
        hit = (bit // 8 - HEADER_BYTES) // BLOCK_BYTES if bit // 8 < END else None
        assert [block.shape for block in blocks] == [
            (2, 0 if index == hit else 3, count) for index, count in enumerate((4, 4, 2))
        ]
        assert reader.lost_frames == (0 if hit is None else (4, 4, 2)[hit])
        assert reader.frame == 10
        for index, block in enumerate(blocks):
            if index != hit:
                np.testing.assert_array_equal(block, CODES[:, :, 4 * index : 4 * index + 4])


def test_flipped_bit_in_a_file_of_unknown_length_costs_one_block_or_the_end():
    for bit in range(8 * HEADER_BYTES, 8 * len(KNOWN)):
        data = bytearray(FILES["unknown"])
        data[bit // 8] ^= 1 << bit % 8
        reader, blocks, error = read_all(bytes(data), on_corrupt="conceal")
        hit, within = divmod(bit // 8 - HEADER_BYTES, BLOCK_BYTES)
        end_is_lost = hit == 2 and within < 4  # nothing tells then how short the last block is
        if end_is_lost:
            assert isinstance(error, TruncatedStream)
        else:
            assert error is None
            assert reader.corrupt_blocks == 1
        for index, block in enumerate(blocks):
            if index == hit and bit // 8 < END:
                assert block.shape == (2, 0, 4 if end_is_lost else (4, 4, 2)[index])
            else:
                np.testing.assert_array_equal(block, CODES[:, :, 4 * index : 4 * index + 4])


def test_block_that_is_missing_doubled_or_moved_is_found():
    head, first, second = KNOWN[:41], KNOWN[41:79], KNOWN[79:117]
    rest = KNOWN[117:]
    for data in (head + second + rest, head + first + first + second + rest, head + second + first + rest):
        _, _, error = read_all(data)
        assert isinstance(error, CorruptStream)
        reader, _, error = read_all(data, on_corrupt="conceal")
        assert reader.corrupt_blocks > 0


def test_seeking_over_a_damaged_block_reads_on_behind_it():
    data = bytearray(KNOWN)
    data[60] ^= 1
    reader = ScxReader(io.BytesIO(data))
    with pytest.raises(CorruptStream, match="block 0"):
        reader.read_block()
    reader.seek(5)
    np.testing.assert_array_equal(joined(list(reader), HEADER), CODES[:, :, 5:])


def test_seeking_behind_a_cut_tells_of_the_cut():
    reader = ScxReader(io.BytesIO(KNOWN[:60]))
    for frame in (5, 9):
        reader.seek(frame)
        with pytest.raises(TruncatedStream, match=f"0 bytes into block {frame // 4}; decoded 0 frames"):
            reader.read_block()
    reader.seek(1)
    with pytest.raises(TruncatedStream, match="19 bytes into block 0"):
        reader.read_block()


def _peak_bytes(data, **options):
    """Read a file to its end; peak of the memory that took."""
    text = ""
    tracemalloc.start()
    try:
        reader = ScxReader(io.BytesIO(data), **options)
        for block in reader:
            assert block.shape[1] in (0, reader.header.n_codebooks)
            assert 0 < block.shape[2] <= reader.header.block_frames
    except BitstreamError as error:
        text = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in text
    assert len(text) < 250
    return peak


@st.composite
def hostile_files(draw):
    """A header of any numbers with a checksum that holds, and bytes of any kind behind it."""
    edges = [0, 1, 2, 255, 65_535, 2**32 - 1, 2**63, 2**64 - 1]

    def number(size):
        return st.one_of(st.sampled_from(edges), st.integers(0, 2**64)).map(lambda value: value % 256**size)

    sane = draw(st.booleans())
    fields = (
        draw(number(1)) % 2 if sane else draw(number(1)),
        *(draw(number(1)) % most + 1 if sane else draw(number(1)) for most in (8, 64, 15)),
        draw(number(2)),
        draw(number(2)),
        draw(st.binary(min_size=8, max_size=8)),
        24_000 if sane else draw(number(4)),
        24_000 if sane else draw(number(4)),
        draw(number(8)),
    )
    data = struct.pack(">4sBBBBBHH8sIIQ", b"\x89SCX", 1, *fields)
    return data + struct.pack(">I", zlib.crc32(data)) + draw(st.one_of(st.binary(max_size=300), st.just(KNOWN[41:])))


OPTIONS = [{}, {"strict": False, "on_corrupt": "conceal"}]


@pytest.mark.parametrize("options", OPTIONS)
@settings(deadline=None, derandomize=True)
@given(hostile_files())
def test_hostile_file_gives_one_error_and_no_big_allocation(options, data):
    assert _peak_bytes(data, **options) < 50 * len(data) + 100_000


@pytest.mark.parametrize("options", OPTIONS)
@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=500))
def test_reader_survives_random_bytes(options, data):
    assert _peak_bytes(data, **options) < 50 * len(data) + 100_000
    _peak_bytes(KNOWN[:HEADER_BYTES] + data, **options)
    _peak_bytes(FILES["unknown"][:HEADER_BYTES] + data, **options)


@pytest.mark.parametrize("bits", [1, 10, 15])
def test_memory_is_a_small_multiple_of_one_block(bits):
    small = make_header(channels=8, n_codebooks=64, bits_per_code=bits, block_frames=1000)
    codes = random_codes(small, 3000)
    data = file_bytes(small, codes)
    assert _peak_bytes(data) < 60 * len(data) / 3 + 200_000
    cut = data[: 41 + 20_000]
    assert _peak_bytes(cut, strict=False) < 60 * len(cut) + 200_000


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (5, 2, "flags are 0x02"),
        (6, 0, "channels is 0; it must be from 1 to 8"),
        (6, 255, "channels is 255"),
        (7, 0, "n_codebooks is 0"),
        (7, 65, "n_codebooks is 65"),
        (8, 16, "bits_per_code is 16"),
        (9, 0, "no frames in a block"),
        (11, 0, "hop_samples is 0"),
        (21, 0, "sample_rate_hz is 0"),
        (25, 0, "codec_rate_hz is 0"),
    ],
)
def test_header_that_no_encoder_writes_is_refused_by_the_field(offset, value, text):
    width = {9: 2, 11: 2, 21: 4, 25: 4}.get(offset, 1)
    data = bytearray(KNOWN[:37])
    data[offset : offset + width] = value.to_bytes(width, "big")
    with pytest.raises(BitstreamError, match=text):
        ScxReader(io.BytesIO(bytes(data) + struct.pack(">I", zlib.crc32(data))))


def test_padding_that_is_not_zero_is_refused_although_its_checksum_holds():
    header = make_header(n_codebooks=1)
    data = bytearray(file_bytes(header, random_codes(header, 1)))
    assert len(data) == 41 + 10 + 16
    data[46] |= 1
    data[47:51] = struct.pack(">I", zlib.crc32(bytes(4) + data[41:47]))
    assert isinstance(read_all(bytes(data))[2], CorruptStream)


def test_other_files_are_told_apart_at_once():
    for data in (b"RIFF", b"R", b"fLaC" + bytes(100)):
        with pytest.raises(CorruptStream, match=r"not a \.scx file"):
            ScxReader(io.BytesIO(data))
    with pytest.raises(TruncatedStream, match="empty"):
        ScxReader(io.BytesIO(b""))
