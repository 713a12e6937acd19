"""Sound files: read in blocks, checked, and written whole or not at all."""

import os
import stat

import numpy as np
import pytest
import soundfile

from streamcodec.audio.files import AudioInfo, AudioWriter, audio_info, read_blocks, write_audio
from streamcodec.errors import AudioError
from streamcodec.files import atomic_output


def noise(n_samples, channels, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (n_samples, channels)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_sound_round_trips_to_sixteen_bits(tmp_path, suffix, channels):
    path, sound = tmp_path / f"a{suffix}", noise(50_001, channels)
    assert write_audio(path, sound, 22_050) == 0
    assert audio_info(path) == AudioInfo(22_050, channels, 50_001)
    assert audio_info(path).duration_s == pytest.approx(50_001 / 22_050)
    blocks = list(read_blocks(path, 1000))
    assert [len(block) for block in blocks] == [1000] * 50 + [1]
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks), sound, atol=1 / 32_767)


def test_vorbis_keeps_length_and_sound(tmp_path):
    path = tmp_path / "A.OGG"
    sound = np.sin(2 * np.pi * 440 * np.arange(60_000) / 24_000, dtype=np.float32) / 2
    with AudioWriter(path, 24_000, 1) as writer:
        for start in range(0, 60_000, 7777):
            writer.write(sound[start : start + 7777])
    assert writer.n_samples == 60_000
    back = np.concatenate(list(read_blocks(path, 320)))[:, 0]
    assert len(back) == 60_000
    assert np.corrcoef(back, sound)[0, 1] > 0.99


def test_values_out_of_range_are_clipped_and_counted(tmp_path):
    path = tmp_path / "a.wav"
    with AudioWriter(path, 24_000, 2) as writer:
        writer.write(np.array([[0.5, 1.5], [-7, 1], [-1, 1.0001]], np.float32))
        writer.write(np.array([[2.0, 0.25]]))
    assert writer.clipped_samples == 4
    assert writer.n_samples == 4
    np.testing.assert_allclose(
        np.concatenate(list(read_blocks(path, 10))), [[0.5, 1], [-1, 1], [-1, 1], [1, 0.25]], atol=1e-4
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_number_that_is_not_finite_is_refused_by_its_place(tmp_path, bad):
    sound = noise(3000, 2)
    sound[2500, 1] = bad
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, 24_000, "FLOAT")
    blocks = read_blocks(path, 1000)
    assert len(next(blocks)) == len(next(blocks)) == 1000
    with pytest.raises(AudioError, match=f"sample 2500 of channel 1 is {bad}; sound must be finite"):
        next(blocks)
    with pytest.raises(AudioError, match="sample 2500 of channel 1"):
        write_audio(tmp_path / "b.wav", sound, 24_000)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_floats_beyond_full_scale_are_read_as_they_are(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([1.5, -3.0]), 24_000, "FLOAT")
    assert np.concatenate(list(read_blocks(tmp_path / "a.wav", 10)))[:, 0].tolist() == [1.5, -3.0]


def test_what_is_no_sound_file_is_refused_in_one_line(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 24_000)
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "nothing.wav").write_bytes(b"")
    (tmp_path / "a.raw").write_bytes(bytes(100))
    for name, text in (
        ("empty.wav", "holds no samples"),
        ("text.wav", "cannot be read as a sound file"),
        ("nothing.wav", "cannot be read as a sound file"),
        ("a.raw", "cannot be read as a sound file"),
        ("missing.wav", "does not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(AudioError, match=text) as caught:
            list(read_blocks(tmp_path / name, 100))
        assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="at least one"):
        next(read_blocks(tmp_path / "empty.wav", 0))


def test_cut_or_damaged_sound_files_end_with_sound_or_one_error(tmp_path):
    for suffix in (".wav", ".flac", ".ogg"):
        path = tmp_path / f"a{suffix}"
        write_audio(path, noise(20_000, 1), 24_000)
        data = path.read_bytes()
        rng = np.random.default_rng(0)
        for size in rng.integers(0, len(data), 20):
            path.write_bytes(data[:size] + rng.bytes(20))
            text = ""
            try:
                total = sum(len(block) for block in read_blocks(path, 4096))
                assert 0 < total <= 20_000
            except AudioError as error:
                text = str(error)
            assert "\n" not in text


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros((10, 3), np.float32), r"takes floats \[T, 2\]"),
        (np.zeros(10, np.float32), r"takes floats \[T, 2\]"),
        (np.zeros((10, 2), np.int16), "int16"),
    ],
)
def test_writer_refuses_wrong_shapes_and_types(tmp_path, samples, text):
    with pytest.raises(AudioError, match=text), AudioWriter(tmp_path / "a.wav", 24_000, 2) as writer:
        writer.write(samples)
    assert not list(tmp_path.iterdir())


def test_writer_refuses_formats_it_cannot_make(tmp_path):
    for name in ("a.mp4", "a"):
        with pytest.raises(AudioError, match=r"written to \.wav, \.flac, \.ogg"):
            AudioWriter(tmp_path / name, 24_000, 1)
    with pytest.raises(AudioError, match="cannot be 9 channels"):
        write_audio(tmp_path / "a.flac", noise(10, 9), 24_000)
    with pytest.raises(AudioError, match="inside a with block"):
        AudioWriter(tmp_path / "a.wav", 24_000, 1).write(np.zeros(3, np.float32))
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, noise(100, 1), 24_000)
    old = path.read_bytes()
    writer = AudioWriter(path, 24_000, 1)
    with pytest.raises(AudioError), writer:
        writer.write(noise(100_000, 3))
    with pytest.raises(KeyError), atomic_output(path) as file:
        file.write({}[b"half"])
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.wav"]


def test_atomic_output_shows_the_old_file_until_the_new_one_is_whole(tmp_path):
    path, link = tmp_path / "a.scx", tmp_path / "link.scx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    with atomic_output(link) as file:
        file.write(b"new, and patched")
        file.seek(0)
        file.write(b"NEW")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"NEW, and patched"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["a.scx", "link.scx"]


def test_atomic_output_makes_files_that_others_may_read(tmp_path):
    with atomic_output(tmp_path / "a") as file:
        file.write(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_atomic_output_says_which_path_cannot_be_written(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "a.scx"):
        with pytest.raises(OSError, match=str(path.parent)), atomic_output(path):
            pass


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="this system has no /dev/null")
def test_atomic_output_never_replaces_a_device():
    before = os.stat("/dev/null")
    with atomic_output("/dev/null") as file:
        file.write(b"gone")
    after = os.stat("/dev/null")
    assert (before.st_ino, before.st_mode, before.st_rdev) == (after.st_ino, after.st_mode, after.st_rdev)
