"""MP3 and Ogg with holes, tags, wrong headers and cut ends: everything is read, and what is missing is named."""

import struct

import numpy as np
import pytest
import soundfile
from sound_files import RATE_HZ, made, read, tone

from streamcodec.audio.mpeg import parse_header
from streamcodec.audio.sound import Sound

SOUND = tone(3.0)
MP3 = made(SOUND, "MP3")
ID3 = b"ID3\4\0\0\0\0\x02\x0a" + b"TIT2" + bytes(262)
ID3_WITH_FOOTER = b"ID3\4\0\x10\0\0\0\x14" + bytes(30)


def frames(data: bytes) -> list[bytes]:
    """MPEG frames that follow each other from the beginning."""
    found, at = [], 0
    while (head := parse_header(data[at : at + 4])) is not None and at + head.n_bytes <= len(data):
        found.append(data[at : at + head.n_bytes])
        at += head.n_bytes
    return found


INFO, *FRAMES = frames(MP3)


def with_count(count: int) -> bytes:
    at = max(INFO.find(b"Xing"), INFO.find(b"Info")) + 8
    return INFO[:at] + struct.pack(">I", count) + INFO[at + 4 :] + b"".join(FRAMES)


def test_the_test_file_has_a_header_frame():
    assert b"Xing" in INFO or b"Info" in INFO
    assert len(FRAMES) > 100


@pytest.mark.parametrize("count", [0, 1, len(FRAMES) // 3, len(FRAMES) - 5])
def test_an_mp3_whose_header_promises_less_is_read_whole(tmp_path, count):
    whole, _ = read(tmp_path / "a.mp3", MP3)
    samples, problem = read(tmp_path / "a.mp3", with_count(count))
    assert problem == ""
    if count:
        np.testing.assert_array_equal(samples, whole)
    assert len(samples) >= len(SOUND)


def test_an_mp3_whose_header_promises_more_says_so(tmp_path):
    samples, problem = read(tmp_path / "a.mp3", with_count(10 * len(FRAMES)))
    assert len(SOUND) <= len(samples) < len(SOUND) + 3000
    assert "breaks off: its header promises 30." in problem
    part = FRAMES[: len(FRAMES) // 3]
    samples, problem = read(tmp_path / "b.mp3", INFO + b"".join(part) + FRAMES[-1][:30])
    assert 576 * len(part) - 1152 <= len(samples) <= 576 * len(part)  # less what the encoder put before the sound
    assert "breaks off: its header promises 2.9" in problem


def test_an_mp3_without_a_header_frame_is_as_long_as_its_frames(tmp_path):
    # the first frames are the largest: their bitrate, taken for all, would give too short a length
    loud = [frame for frame in FRAMES if len(frame) == max(map(len, FRAMES))] * 2
    quiet = [frame for frame in FRAMES if len(frame) == min(map(len, FRAMES))]
    for parts in (FRAMES, loud + quiet * 9, quiet + loud * 9):
        (tmp_path / "a.mp3").write_bytes(b"".join(parts))
        sound = Sound(tmp_path / "a.mp3")
        n_samples = sum(len(block) for block in sound.blocks(10_000))
        assert abs(n_samples - len(parts) * 576) <= 2 * 1152
        assert n_samples == sound.info.n_samples
        assert sound.problem is None


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a"])
def test_tags_around_and_between_mp3s_are_passed_over(tmp_path, name):
    alone, _ = read(tmp_path / name, MP3)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 1968, 1, 5 << 29) + bytes(8) + bytes(1968)
    lyrics = b"LYRICSBEGININD0000211LYR00010some words000033LYRICS200"
    old = b"TAG" + bytes(125)
    data = (ID3, ID3_WITH_FOOTER, MP3, lyrics, old, ID3, MP3, ape, ID3, MP3, old)
    samples, problem = read(tmp_path / name, b"".join(data))
    assert problem == ""
    np.testing.assert_array_equal(samples, np.concatenate([alone] * 3))


@pytest.mark.parametrize(
    "hole", [bytes(50_000), b"\xff" * 3000, b"<html>" * 500, np.random.default_rng(1).bytes(70_000)]
)
def test_a_hole_in_an_mp3_is_read_past_and_named(tmp_path, hole):
    half = len(FRAMES) // 2
    start = len(INFO) + sum(map(len, FRAMES[:half]))
    data = with_count(len(FRAMES))[:start] + hole + b"".join(FRAMES[half:])
    samples, problem = read(tmp_path / "a.mp3", data)
    assert abs(len(samples) - len(SOUND)) < 3000
    assert problem == f"{len(hole)} bytes from byte {start} on are no MPEG frames, and left out"
    later = read(tmp_path / "b.mp3", MP3)[0][-RATE_HZ // 2 :]
    assert np.corrcoef(samples[-len(later) :, 0], later[:, 0])[0, 1] > 0.99


def test_mpeg_layers_one_and_two_are_read_to_their_last_frame(tmp_path):
    # frames of silence: valid headers and all bit allocations zero
    for header, n_samples in ((b"\xff\xfd\xa4\xc0", 1152), (b"\xff\xff\xa4\xc0", 384)):
        head = parse_header(header)
        assert head is not None
        assert head.n_samples == n_samples
        samples, problem = read(tmp_path / "a.mp2", (header + bytes(head.n_bytes - 4)) * 50)
        assert (len(samples), problem) == (50 * n_samples, "")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_with_a_hole_or_a_cut_end_says_what_is_missing(tmp_path, subtype):
    data = made(np.concatenate([tone(4.0, hz) for hz in (200, 300, 500)]), "OGG", subtype, 24_000)
    total = len(read(tmp_path / "a", data)[0])
    pages = [at for at in range(len(data) - 4) if data[at : at + 4] == b"OggS"]
    cut = (pages[-2] + pages[-1]) // 2
    samples, problem = read(tmp_path / "a", data[:cut])
    assert 0 < len(samples) < total
    assert f"{cut - pages[-2]} bytes from byte {pages[-2]} on are no whole Ogg page" in problem
    middle = pages[len(pages) // 2]
    samples, problem = read(tmp_path / "a", data[:middle] + bytes(9999) + data[middle:])
    assert len(samples) == total
    assert f"9999 bytes from byte {middle} on are no whole Ogg page" in problem


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_damaged_or_lost_ogg_page_is_told_of(tmp_path, subtype):
    data = made(np.random.default_rng(0).uniform(-0.3, 0.3, (24_000 * 6, 1)), "OGG", subtype, 24_000)
    pages = [at for at in range(len(data) - 4) if data[at : at + 4] == b"OggS"]
    middle, after = pages[len(pages) // 2 : len(pages) // 2 + 2]
    damaged = bytearray(data)
    damaged[middle + 400] ^= 255
    for broken in (damaged, data[:middle] + data[after:]):
        samples, problem = read(tmp_path / "a", bytes(broken))
        assert 0 < len(samples) < 24_000 * 6
        assert f"{len(samples) / 24_000:.2f} s of 6.00 s could be read" in problem


@pytest.mark.parametrize("size", [1000, 5000, 65_536])
def test_blocks_of_an_mp3_are_those_of_the_whole(tmp_path, size):
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE_HZ), RATE_HZ)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    blocks = np.concatenate(list(Sound(path).blocks(size)))
    np.testing.assert_allclose(blocks, whole, atol=1e-6)


def test_joined_streams_are_read_in_blocks_of_the_size_that_is_asked_for(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(MP3 * 3)
    sound = Sound(path)
    for size in (1, 576, 10_007, 1 << 20):
        if size > 1:
            lengths = [len(block) for block in sound.blocks(size)]
            assert set(lengths[:-1]) <= {size}
            assert sum(lengths) == sound.info.n_samples
    assert len(next(sound.blocks(1))) == 1


def test_a_joined_file_that_cannot_be_read_is_named(tmp_path):
    broken = made(SOUND, "OGG", "VORBIS")
    broken = broken[:40] + b"\xff" * 20 + broken[60:]
    first = made(SOUND, "OGG", "VORBIS")
    samples, problem = read(tmp_path / "a.ogg", first + broken)
    assert len(samples) == len(SOUND)
    assert "2 files are joined in it; number 2 cannot be read, as it is Ogg Vorbis: " in problem
    assert str(tmp_path) not in problem
    assert soundfile.info(tmp_path / "a.ogg").frames == len(SOUND)
