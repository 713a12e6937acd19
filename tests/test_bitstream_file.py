"""The `.scx` container: what goes in comes out, at the stated bitrate, from any place and over any pipe."""

import doctest
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scx_files import Pipe, file_bytes, joined, make_header, random_codes, read_all

from streamcodec.bitstream import ScxReader, ScxWriter
from streamcodec.errors import BitstreamError, UnsupportedVersion, WrongModel

DOCUMENT = Path(__file__).parent.parent / "docs" / "bitstream.md"


@st.composite
def streams(draw):
    header = make_header(
        channels=draw(st.integers(1, 8)),
        n_codebooks=draw(st.integers(1, 64)),
        bits_per_code=draw(st.integers(1, 15)),
        block_frames=draw(st.integers(0, 20)),
        hop_samples=draw(st.sampled_from([64, 320, 512])),
        sample_rate_hz=draw(st.sampled_from([8000, 24_000, 44_100, 48_000])),
    )
    codes = random_codes(header, draw(st.integers(0, 50)), draw(st.integers(0, 9)))
    cuts = sorted(draw(st.lists(st.integers(0, codes.shape[2]), max_size=5)))
    return header, codes, cuts


@settings(deadline=None, derandomize=True)
@given(streams(), st.booleans())
def test_codes_round_trip_however_they_are_cut_and_wherever_they_go(stream, pipe):
    header, codes, cuts = stream
    file = Pipe() if pipe else io.BytesIO()
    with ScxWriter(file, header) as writer:
        for start, stop in zip([0, *cuts], [*cuts, codes.shape[2]], strict=True):
            writer.write(codes[:, :, start:stop])
    data = bytes(file.data) if pipe else file.getvalue()
    reader = ScxReader(Pipe(data))
    assert reader.header.n_samples == (None if pipe else header.samples_for(codes.shape[2]))
    blocks = list(reader)
    assert all(block.dtype == np.int16 and block.shape[2] == header.block_frames for block in blocks[:-1])
    np.testing.assert_array_equal(joined(blocks, header), codes)
    assert reader.n_samples == header.samples_for(codes.shape[2])
    assert reader.frame == reader.decoded_frames == codes.shape[2]
    assert reader.read_block() is None


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("n_codebooks", range(1, 13))
def test_one_minute_is_within_two_percent_of_the_stated_bitrate(n_codebooks, channels):
    header = make_header(n_codebooks=n_codebooks, channels=channels)
    data = file_bytes(header, random_codes(header, 60 * 75))
    assert header.bitrate_bps == 750 * n_codebooks * channels
    assert 1 < 8 * len(data) / 60 / header.bitrate_bps < 1.02


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("n_frames", [28, 29])
def test_seeking_gives_what_reading_on_gives(known, n_frames):
    header = make_header(channels=2, n_codebooks=3, block_frames=7)
    codes = random_codes(header, n_frames)
    pipe = Pipe()
    with ScxWriter(pipe, header) as writer:
        writer.write(codes)
    data = file_bytes(header, codes) if known else bytes(pipe.data)
    file = io.BytesIO(b"something before" + data)
    file.seek(16)
    reader = ScxReader(file)
    for frame in [*range(n_frames, -1, -1), 5, 20]:
        reader.seek(frame)
        assert reader.frame == frame
        np.testing.assert_array_equal(joined(list(reader), header), codes[:, :, frame:])
        assert reader.frame == n_frames
    for frame in (-1, n_frames + 1, 10_000, 2**80):
        with pytest.raises(BitstreamError, match=f"no frame {frame}"):
            reader.seek(frame)


def test_seeking_past_the_end_of_a_file_of_unknown_length_is_found_out_in_time():
    pipe = Pipe()
    header = make_header(block_frames=7)
    with ScxWriter(pipe, header) as writer:
        writer.write(random_codes(header, 10))
    reader = ScxReader(io.BytesIO(pipe.data))
    reader.seek(12)
    with pytest.raises(BitstreamError, match="no frame 12"):
        reader.read_block()
    with pytest.raises(BitstreamError, match="no frame"):
        ScxReader(io.BytesIO(pipe.data)).seek(21 + 70)
    with pytest.raises(BitstreamError, match="cannot seek"):
        ScxReader(Pipe(pipe.data)).seek(0)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 24_000, 44_100, 48_000, 768_000])
def test_length_in_samples_of_the_original_is_kept_exactly(rate_hz):
    header = make_header(sample_rate_hz=rate_hz)
    for n_samples in (0, 1, 999, rate_hz, rate_hz + 1, 10 * rate_hz - 1):
        codes = random_codes(header, header.frames_for(n_samples))
        reader, blocks, error = read_all(file_bytes(header, codes, n_samples))
        assert error is None
        assert reader.header.n_samples == reader.n_samples == n_samples
        assert reader.header.n_frames == codes.shape[2]
        np.testing.assert_array_equal(joined(blocks, header), codes)
    for n_frames in (1, 7, 1000):
        assert header.frames_for(header.samples_for(n_frames)) == n_frames


def test_files_can_follow_each_other_in_one_pipe():
    header = make_header(block_frames=4)
    first, second = random_codes(header, 9, 1), random_codes(header, 4, 2)
    pipe = Pipe()
    for codes in (first, second):
        with ScxWriter(pipe, header) as writer:
            writer.write(codes)
    for codes in (first, second):
        np.testing.assert_array_equal(joined(list(ScxReader(pipe)), header), codes)
    assert pipe.position == len(pipe.data)


def test_writer_that_fails_leaves_no_end_marker():
    file, header = io.BytesIO(), make_header(block_frames=4)
    writer = ScxWriter(file, header)
    writer.write(random_codes(header, 9))
    with pytest.raises(BitstreamError), writer:
        writer.write(np.full((1, 8, 1), -1))
    _, blocks, error = read_all(file.getvalue())
    assert [block.shape[2] for block in blocks] == [4, 4]
    assert "decoded 8 frames (0.11 s)" in str(error)


def test_length_stated_at_first_is_corrected_where_the_file_can_seek():
    header = make_header(n_samples=3200)
    codes = random_codes(header, 9)
    assert read_all(file_bytes(header, codes, 2800))[0].header.n_samples == 2800
    writer = ScxWriter(Pipe(), header)
    writer.write(codes)
    with pytest.raises(BitstreamError, match="cannot seek"):
        writer.close(2800)
    with pytest.raises(BitstreamError, match="3200 samples take 10 frames, but 9 were written"):
        writer.close()


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        (np.zeros((1, 8, 2)), "float64"),
        (np.zeros((2, 8, 2), int), r"takes integers \[1, 8, frames\]"),
        (np.zeros((8, 2), int), r"\[8, 2\]"),
        (np.full((1, 8, 2), 1024), "code 1024 does not fit in 10 bits"),
        (np.full((1, 8, 2), -1), "code -1"),
    ],
)
def test_writer_refuses_codes_that_do_not_belong_into_the_file(codes, text):
    writer = ScxWriter(io.BytesIO(), make_header())
    with pytest.raises(BitstreamError, match=text):
        writer.write(codes)
    writer.close()
    with pytest.raises(BitstreamError, match="closed"):
        writer.write(np.zeros((1, 8, 2), int))


def test_file_of_another_model_or_version_is_refused_by_name():
    header = make_header()
    data = file_bytes(header, random_codes(header, 3))
    assert ScxReader(io.BytesIO(data), model_id=b"demo-mod").header.n_frames == 3
    with pytest.raises(WrongModel, match=f"{b'demo-mod'.hex()}, but {bytes(8).hex()} is loaded"):
        ScxReader(io.BytesIO(data), model_id=bytes(8))
    with pytest.raises(UnsupportedVersion, match="version 2; this program reads version 1"):
        ScxReader(io.BytesIO(data[:4] + b"\x02" + data[5:]))


def test_document_shows_the_bytes_that_are_written():
    assert doctest.testfile(str(DOCUMENT), module_relative=False).failed == 0
    dump = re.findall(r"^((?:[0-9a-f]{2} )+) ", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    header = make_header(sample_rate_hz=48_000, channels=2, n_codebooks=3, block_frames=2)
    codes = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[1023, 0, 512], [256, 255, 1], [2, 4, 8]]])
    assert bytes.fromhex("".join(dump)) == file_bytes(header, codes, 1800)
