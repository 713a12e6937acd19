import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from token_folder import speech

from streamcodec.audio.resample import StreamingResampler
from streamcodec.tokens.sources import Source, SourceProblem, SourceSound, find_sources, plan_shards


def test_shards_follow_from_the_sorted_list_alone(tmp_path):
    for name in ("b.wav", "a/z.flac", "B.OGG", "a-b.wav", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    found = find_sources(tmp_path)
    assert [source.path for source in found] == ["B.OGG", "a-b.wav", "a/z.flac", "b.wav"]
    rng = np.random.default_rng(0)
    for _ in range(50):
        sources = [Source(str(i), int(rng.integers(0, 100))) for i in range(int(rng.integers(1, 40)))]
        files, size = int(rng.integers(1, 9)), int(rng.integers(1, 200))
        shards = plan_shards(sources, files, size)
        assert [source for shard in shards for source in shard] == sources
        for shard, after in zip(shards, [*shards[1:], None], strict=True):
            n_bytes = sum(source.n_bytes for source in shard)
            assert len(shard) == 1 or (len(shard) <= files and n_bytes <= size)
            assert after is None or len(shard) == files or n_bytes + after[0].n_bytes > size


@pytest.mark.parametrize("chunk_frames", [1, 7, 10_000])
def test_any_chunking_gives_the_mean_of_the_channels_resampled(tmp_path, chunk_frames):
    samples = np.stack([speech(44_100, start, 1.7) for start in (0, 3)], 1)
    soundfile.write(tmp_path / "s.wav", samples, 44_100, subtype="FLOAT")
    resampler = StreamingResampler(44_100, 24_000, 1)
    expected = np.concatenate([resampler.process(samples.mean(1, keepdims=True)), resampler.finish()])[:, 0]
    sound = SourceSound(tmp_path, Source("s.wav", 0), 24_000, 320)
    chunks = list(sound.chunks(chunk_frames))
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_frames}
    found = np.concatenate(chunks).reshape(-1)
    assert sound.n_samples == len(expected) == sound.expected_samples == 40_800
    assert len(found) == 128 * 320
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-6)
    assert not found[len(expected) :].any()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_name_that_is_not_utf_8_is_read_and_stored_with_escapes(tmp_path):
    soundfile.write(tmp_path / "plain.wav", speech(24_000, 0, 0.1), 24_000)
    os.rename(tmp_path / "plain.wav", os.fsencode(tmp_path) + b"/caf\xe9.wav")
    (source,) = find_sources(tmp_path)
    assert source.name == "caf\\xe9.wav"
    sound = SourceSound(tmp_path, source, 24_000, 320)
    assert sum(len(chunk) for chunk in sound.chunks(100)) == 8
    assert len(sound.sha256) == 64


def test_a_link_to_nothing_is_a_problem_of_that_file(tmp_path):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (source,) = find_sources(tmp_path)
    with pytest.raises(SourceProblem, match="does not exist"):
        SourceSound(tmp_path, source, 24_000, 320)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_a_problem_of_that_file(tmp_path: Path):
    soundfile.write(tmp_path / "s.wav", speech(24_000, 0, 0.1), 24_000)
    (tmp_path / "s.wav").chmod(0)
    with pytest.raises(SourceProblem):
        _ = SourceSound(tmp_path, find_sources(tmp_path)[0], 24_000, 320).sha256


@pytest.mark.parametrize(("ending", "is_read"), [("wav", True), ("ogg", True), ("mp3", True), ("flac", False)])
def test_a_file_that_breaks_off_is_read_as_far_as_documented(tmp_path, ending, is_read):
    path = tmp_path / f"s.{ending}"
    soundfile.write(path, speech(24_000, 0, 2), 24_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sound = SourceSound(tmp_path, Source(path.name, 0), 24_000, 320)
    if not is_read:
        with pytest.raises(SourceProblem, match="cannot be read on"):
            list(sound.chunks(100))
        return
    assert 12_000 < sum(chunk.size for chunk in sound.chunks(100)) < 36_000
