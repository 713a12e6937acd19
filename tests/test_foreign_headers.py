"""`.scx` headers that are not the model's are refused at once; its own, of any size, are decoded in pieces."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scx_files import file_bytes, read_all
from small_models import small_checkpoint

from streamcodec import Codec
from streamcodec.bitstream import ScxHeader, ScxWriter
from streamcodec.config import CodecConfig
from streamcodec.errors import BitstreamError, CorruptStream, TruncatedStream, WrongModel
from streamcodec.transcode import decode_file

CONFIG = CodecConfig("short", 24_000, 1, 2, (8,), 2, n_codebooks=3, codebook_size=256, code_dim=2, dilations=(1,))
HOP = CONFIG.hop_samples


def loaded(folder: Path, config: CodecConfig, **options: Any) -> Codec:
    small_checkpoint(folder / "short.safetensors", config=config)
    return Codec.load(folder / "short.safetensors", **options)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return loaded(tmp_path_factory.mktemp("weights"), CONFIG)


def header_of(codec: Codec, **changes: Any) -> ScxHeader:
    config = codec.config
    own = ScxHeader(
        codec.model_id,
        sample_rate_hz=config.sample_rate_hz,
        codec_rate_hz=config.sample_rate_hz,
        hop_samples=config.hop_samples,
        channels=1,
        n_codebooks=config.n_codebooks,
        bits_per_code=config.bits_per_code,
        block_frames=changes.pop("block_frames", 4),
    )
    return replace(own, **changes)


def coded(header: ScxHeader, n_frames: int) -> bytes:
    codes = np.random.default_rng(0).integers(0, 2, (header.channels, header.n_codebooks, n_frames))
    return file_bytes(header, codes)


def decode(codec: Codec, data: bytes, folder: Path, **options: Any) -> Any:
    (folder / "in.scx").write_bytes(data)
    return decode_file(codec, folder / "in.scx", folder / "out.wav", **options)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("field", "value", "own"),
    [
        *(("hop_samples", value, "8 in") for value in (1, 7, 9, 16, 320, 65_535)),
        *(("codec_rate_hz", value, "24000 in") for value in (1000, 23_999, 24_001, 48_000, 384_000)),
        *(("bits_per_code", value, "8 in") for value in (1, 7, 9, 15)),
        *(("n_codebooks", value, "has 3") for value in (4, 12, 64)),
    ],
)
def test_header_that_contradicts_the_model_is_refused_by_the_field(
    codec: Codec, tmp_path: Path, field: str, value: int, own: str, strict: bool
) -> None:
    data = coded(header_of(codec, sample_rate_hz=768_000, **{field: value}), 9)
    with pytest.raises(CorruptStream, match=f"header's {field} is {value}, but .*{own}"):
        decode(codec, data, tmp_path, strict=strict)
    with pytest.raises(CorruptStream, match=field):  # whatever follows the header
        decode(codec, data[:41], tmp_path, strict=strict)
    assert [path.name for path in tmp_path.iterdir()] == ["in.scx"]


def test_header_of_another_model_is_refused_as_such_first(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(WrongModel):
        decode(codec, coded(header_of(codec, model_id=bytes(8), hop_samples=1), 9), tmp_path)


@pytest.mark.parametrize("n_codebooks", [1, 2, 3])
@pytest.mark.parametrize(("channels", "rate_hz"), [(1, 24_000), (8, 1000), (2, 768_000)])
def test_what_the_model_leaves_open_is_decoded(
    codec: Codec, tmp_path: Path, n_codebooks: int, channels: int, rate_hz: int
) -> None:
    header = header_of(codec, n_codebooks=n_codebooks, channels=channels, sample_rate_hz=rate_hz)
    report = decode(codec, coded(header, 9), tmp_path, strict=True)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.frames, info.channels, info.samplerate) == (report.n_samples, channels, rate_hz)
    assert report.n_samples == header.samples_for(9) > 0


def test_blocks_of_any_size_give_the_same_sound(codec: Codec, tmp_path: Path) -> None:
    sounds = []
    for block_frames in (1, 74, 75, 76, 400, 65_535):
        header = header_of(codec, block_frames=block_frames, channels=2, sample_rate_hz=44_100)
        decode(codec, coded(header, 400), tmp_path, strict=True)
        sounds.append(soundfile.read(tmp_path / "out.wav")[0])
    assert sounds[0].std() > 0
    for sound in sounds[1:]:
        np.testing.assert_array_equal(sound, sounds[0])


@pytest.mark.parametrize("n_samples", [10_000, 2**32, 2**63, 2**64 - 1])
def test_length_that_the_file_does_not_hold_makes_no_sound_of_that_length(
    codec: Codec, tmp_path: Path, n_samples: int
) -> None:
    data = coded(header_of(codec), 9)
    forged = header_of(codec, n_samples=n_samples).to_bytes() + data[41:]
    with pytest.raises(BitstreamError):
        decode(codec, forged, tmp_path, strict=True)
    report = decode(codec, forged, tmp_path)
    assert report.problem is not None
    assert report.n_samples <= 12 * HOP


def test_block_of_65535_frames_that_is_not_there_makes_no_sound(codec: Codec, tmp_path: Path) -> None:
    whole = coded(header_of(codec, block_frames=65_535), 65_535)
    with pytest.raises(TruncatedStream):
        decode(codec, whole[:265], tmp_path, strict=True)
    report = decode(codec, whole[:265], tmp_path)
    assert report.n_samples == (265 - 45) // 3 * HOP
    (tmp_path / "out.wav").unlink()


def peak_bytes(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("strides", "changes", "n_frames"),
    [
        ((8, 32), {"channels": 8, "n_codebooks": 1}, 6000),  # 49 MB of sound in one block
        ((2,), {"channels": 8, "n_codebooks": 1, "sample_rate_hz": 768_000}, 40_000),  # 82 MB once resampled
        ((64, 64, 8), {"channels": 8, "sample_rate_hz": 192_000}, 8),  # 8 MB a frame, 67 MB once resampled
    ],
)
def test_memory_depends_on_no_block_size_channels_or_rate(
    tmp_path: Path, strides: tuple[int, ...], changes: dict[str, int], n_frames: int
) -> None:
    rate_hz = {"codec_rate_hz": 24_000}
    config = replace(CONFIG, strides=strides, decoder_width=2 ** len(strides))
    codec = loaded(tmp_path, config)
    data = coded(header_of(codec, block_frames=65_535, **rate_hz, **changes), n_frames)
    assert peak_bytes(lambda: decode(codec, data, tmp_path, strict=True)) < 12_000_000
    assert (tmp_path / "out.wav").stat().st_size > 20_000_000


def test_codes_of_a_large_block_are_unpacked_in_pieces(codec: Codec) -> None:
    header = header_of(codec, block_frames=65_535, channels=8, n_codebooks=3, bits_per_code=15)
    file = io.BytesIO()
    with ScxWriter(file, header) as writer:
        codes = np.random.default_rng(0).integers(0, 2**15, (8, 3, 60_001)).astype(np.int16)
        writer.write(codes)
    data = file.getvalue()
    blocks: list[np.ndarray] = []
    peak = peak_bytes(lambda: blocks.extend(read_all(data)[1]))
    np.testing.assert_array_equal(np.concatenate(blocks, 2), codes)
    assert peak < 5 * len(data)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.data())
def test_mutated_file_with_a_checksum_that_holds_is_refused_or_decoded_to_its_length(
    codec: Codec, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    draw = data.draw
    changes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "hop_samples": st.integers(1, 65_535),
                "codec_rate_hz": st.integers(1000, 384_000),
                "bits_per_code": st.integers(1, 15),
                "n_codebooks": st.integers(1, 64),
                "channels": st.integers(1, 8),
                "sample_rate_hz": st.sampled_from([1000, 24_000, 44_100, 768_000]),
                "block_frames": st.integers(1, 65_535),
                "n_samples": st.integers(0, 2**64 - 1),
            },
        )
    )
    header = header_of(codec, **changes)
    rest = bytearray(coded(header_of(codec, n_codebooks=draw(st.integers(1, 3))), draw(st.integers(0, 20)))[41:])
    for _ in range(draw(st.integers(0, 3))):
        rest[draw(st.integers(0, len(rest) - 1))] ^= draw(st.integers(1, 255))
    strict = draw(st.booleans())
    own = header_of(codec)
    foreign = [n for n in ("hop_samples", "codec_rate_hz", "bits_per_code") if getattr(header, n) != getattr(own, n)]
    try:
        report = decode(codec, header.to_bytes() + bytes(rest), folder, strict=strict)
    except BitstreamError as error:
        problem = str(error)
    else:
        problem = ""
        assert soundfile.info(folder / "out.wav").frames == report.n_samples
        assert report.n_samples <= header.samples_for(8 * len(rest) // header.frame_bits + 1) + 1
    assert "\n" not in problem
    assert not foreign or any(field in problem for field in foreign)


@pytest.mark.parametrize("more", ["another", b"\x00", b"TAG" + bytes(125)])
def test_what_follows_the_end_of_a_file_is_counted_and_refused_when_strict(
    codec: Codec, tmp_path: Path, more: str | bytes
) -> None:
    whole = coded(header_of(codec), 9)
    more = whole if isinstance(more, str) else more
    assert decode(codec, whole, tmp_path).unread_bytes == 0
    report = decode(codec, whole + more, tmp_path)
    assert (report.unread_bytes, report.problem, report.n_samples) == (len(more), None, 9 * HOP)
    (tmp_path / "out.wav").unlink()
    with pytest.raises(CorruptStream, match=f"{len(more)} bytes follow the end"):
        decode(codec, whole + more, tmp_path, strict=True)
    assert not (tmp_path / "out.wav").exists()
