"""Sound is read as far as it goes: stale and missing lengths, joined files, cut files; what is missing is named."""

import struct

import numpy as np
import pytest
import soundfile
from sound_files import RATE_HZ, made, patched, read, tone

from streamcodec.audio.sound import Sound
from streamcodec.audio.view import FileView
from streamcodec.errors import AudioError

SOUND = tone(0.7)
WAV, PCM_24 = made(SOUND, "WAV", "PCM_16"), made(tone(0.7, channels=2), "WAV", "PCM_24")
CHUNK = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 13) + b"a recorder\0\0\0\0"
UNKNOWN = {
    "wav 0": patched(WAV, b"data", "<I", 0),
    "wav -1": patched(patched(WAV, b"data", "<I", 0xFFFFFFFF), b"RIFF", "<I", 0xFFFFFFFF),
    "wav of arecord": patched(WAV, b"data", "<I", 0x80000000),
    "wav of sox": patched(WAV, b"data", "<I", 0x7FFFF000 - 36),
    "rf64 0": patched(made(SOUND, "RF64", "PCM_16"), b"ds64\x1c\0\0\0" + made(SOUND, "RF64", "PCM_16")[20:28], "<Q", 0),
    "w64 0": patched(made(SOUND, "W64", "PCM_16"), b"data\xf3", "<q", 0),
    "w64 24": patched(made(SOUND, "W64", "PCM_16"), b"data\xf3", "<q", 24),
    "aiff 0": patched(made(SOUND, "AIFF", "PCM_16"), b"SSND", ">I", 0),
    "aiff 8": patched(made(SOUND, "AIFF", "PCM_16"), b"SSND", ">I", 8),
    "aiff -1": patched(made(SOUND, "AIFF", "PCM_16"), b"SSND", ">I", 0xFFFFFFFF),
    "au -1": patched(made(SOUND, "AU", "PCM_16"), b".snd\0\0\0\x18", ">I", 0xFFFFFFFF),
    "au 0": patched(made(SOUND, "AU", "PCM_16"), b".snd\0\0\0\x18", ">I", 0),
    "caf -1": patched(made(SOUND, "CAF", "PCM_16"), b"data", ">q", -1),
    "caf 4": patched(made(SOUND, "CAF", "PCM_16"), b"data", ">q", 4),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_length_that_was_never_written_leaves_the_sound_whole(tmp_path, name):
    samples, problem = read(tmp_path / "a.snd", UNKNOWN[name])
    assert problem == ""
    np.testing.assert_allclose(samples, SOUND, atol=1e-4)


@pytest.mark.parametrize("fmt", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "BW64"])
def test_a_file_that_was_cut_gives_what_is_there_and_says_so(tmp_path, fmt):
    data = made(SOUND, fmt.replace("BW64", "RF64"), "PCM_16").replace(b"RF64", b"BW64" if fmt == "BW64" else b"RF64")
    cut = len(data) // 2
    samples, problem = read(tmp_path / "a", data[:cut])
    assert abs(len(samples) - cut / 2) < 2200
    np.testing.assert_allclose(samples, SOUND[: len(samples)], atol=1e-4)
    assert "promises 0.70 s" in problem
    assert read(tmp_path / "a", data)[1] == ""


def test_a_length_that_stopped_growing_is_read_past_and_named(tmp_path):
    for data in (
        patched(WAV, b"data", "<I", 2000),
        patched(made(SOUND, "W64", "PCM_16"), b"data\xf3", "<q", 2024),
        patched(made(SOUND, "CAF", "PCM_16"), b"data", ">q", 2004),
        patched(made(SOUND, "AIFF", "PCM_16"), b"SSND", ">I", 2008),
        patched(made(SOUND, "AU", "PCM_16"), b".snd\0\0\0\x18", ">I", 2000),
    ):
        samples, problem = read(tmp_path / "a.wav", data)
        np.testing.assert_allclose(samples, SOUND, atol=1e-4)
        assert "its header is stale: it ends at 0.05 s, but 0.70 s were read" in problem


def test_chunks_tags_and_padding_after_the_sound_are_not_taken_for_it(tmp_path):
    odd = made(SOUND[:999], "WAV", "PCM_U8")
    assert odd[-1:] == b"\0"
    assert len(odd) % 2 == 0
    tails = (
        *(CHUNK, CHUNK + CHUNK, CHUNK[:20], CHUNK + bytes(512), bytes(700)),
        *(b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\x05hello"),
    )
    for tail in tails:
        for data, samples in ((WAV, SOUND), (odd, SOUND[:999]), (odd[:-1], SOUND[:999])):
            found, problem = read(tmp_path / "a.wav", data + tail)
            assert (len(found), problem) == (len(samples), "")
    found, problem = read(tmp_path / "a.wav", WAV + CHUNK + b"\x01\x02\x03\x04\x05 rest")
    assert (len(found), problem) == (len(SOUND), "10 bytes after its last chunk are no sound, and left out")


def test_a_length_that_counts_the_header_or_padding_too_is_no_problem(tmp_path):
    au, at = made(SOUND, "AU", "PCM_16"), b".snd\0\0\0\x18"
    n_bytes = 2 * len(SOUND)
    for data in (
        patched(WAV, b"data", "<I", len(WAV)),
        patched(WAV, b"data", "<I", n_bytes + 1),
        patched(made(SOUND, "AIFF", "PCM_16"), b"SSND", ">I", n_bytes + 8 + 54),
        patched(au, at, ">I", len(au)),
        au + bytes(300),
    ):
        samples, problem = read(tmp_path / "a", data)
        assert (len(samples), problem) == (len(SOUND), "")


def test_an_empty_wav_with_chunks_after_it_stays_empty(tmp_path):
    (tmp_path / "a.wav").write_bytes(made(SOUND[:0], "WAV", "PCM_16") + CHUNK)
    with pytest.raises(AudioError, match="holds no samples"):
        list(Sound(tmp_path / "a.wav").blocks(100))


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_24"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("CAF", "PCM_16"),
     ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_files_joined_into_one_are_read_one_after_the_other(tmp_path, fmt, subtype):
    rate_hz = 24_000
    parts = [made(tone(seconds, hz), fmt, subtype, rate_hz) for seconds, hz in ((0.4, 300), (0.3, 500), (0.5, 700))]
    alone = [read(tmp_path / "a", part)[0] for part in parts]
    samples, problem = read(tmp_path / "a", b"".join(parts))
    assert problem == ""
    np.testing.assert_array_equal(samples, np.concatenate(alone))
    assert Sound(tmp_path / "a").info.n_samples == len(samples)


@pytest.mark.parametrize("fmt", ["WAV", "OGG", "FLAC", "MP3"])
@pytest.mark.parametrize(("channels", "rate_hz"), [(2, RATE_HZ), (1, 16_000)])
def test_a_joined_file_of_another_rate_or_layout_is_named_and_left_out(tmp_path, fmt, channels, rate_hz):
    first, other = made(SOUND, fmt), made(tone(0.3, channels=channels), fmt, None, rate_hz)
    samples, problem = read(tmp_path / "a.wav", first + other)
    assert len(samples) == len(read(tmp_path / "b.wav", first)[0])
    assert f"2 files are joined in it; number 2 has {channels} channel(s) at {rate_hz} Hz" in problem


def test_joined_wavs_may_forget_padding_and_have_chunks_of_any_length(tmp_path):
    data = made(SOUND[:999], "WAV", "PCM_U8")[:-1]
    for size in range(12):
        chunk = b"note" + struct.pack("<I", size) + b"R" * size
        samples, problem = read(tmp_path / "a.wav", data + chunk + data + chunk + data)
        assert (len(samples), problem) == (3 * 999, "")


def test_a_disk_that_fails_is_named_and_no_end_of_the_sound(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(WAV)
    blocks = Sound(tmp_path / "a.wav").blocks(1000)

    def fail(self, at, size):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FileView, "_read_at", fail)
    with pytest.raises(AudioError, match=r"a\.wav cannot be read.*: Input/output error"):
        next(blocks)


def test_the_unfinished_first_of_two_joined_wavs_ends_where_the_second_begins(tmp_path):
    au = made(SOUND, "AU", "PCM_16")
    unfinished = patched(au, b".snd\0\0\0\x18", ">I", 0xFFFFFFFF)
    for data in (patched(WAV, b"data", "<I", 0xFFFFFFFF) + WAV, unfinished + au, unfinished + unfinished):
        samples, problem = read(tmp_path / "a.wav", data)
        np.testing.assert_allclose(samples, np.concatenate([SOUND, SOUND]), atol=1e-4)
        assert problem == ""


def test_a_wav_that_was_cut_before_another_was_appended_ends_where_that_begins(tmp_path):
    samples, problem = read(tmp_path / "a.wav", WAV[:15_000] + WAV)
    assert len(samples) == (15_000 - 44) // 2 + len(SOUND)
    assert "breaks off: its header promises 0.70 s, 0.34 s are there" in problem
    au = made(SOUND, "AU", "PCM_16")
    samples, problem = read(tmp_path / "a.au", au[:15_000] + au + au)
    assert len(samples) == (15_000 - 24) // 2 + 2 * len(SOUND)
    assert "breaks off: its header promises 0.70 s, 0.34 s are there" in problem


def test_a_wrapped_length_past_four_gigabytes_is_read_to_the_end(tmp_path):
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(patched(WAV, b"data", "<I", 1 << 20)[:44])
        file.truncate(44 + (1 << 32) + (1 << 20))  # a hole, no room on the disk
    sound = Sound(path)
    assert sound.info.n_samples == ((1 << 32) + (1 << 20)) // 2
    assert sound.problem is None


@pytest.mark.parametrize(
    "fmt", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"]
)
def test_every_coding_of_an_unclosed_wav_is_read(tmp_path, fmt):
    data = made(SOUND, "WAV", fmt)
    whole, _ = read(tmp_path / "a.wav", data)
    samples, problem = read(tmp_path / "a.wav", patched(data, b"data", "<I", 0))
    assert problem == ""
    np.testing.assert_array_equal(samples[: len(SOUND)], whole[: len(SOUND)])


def test_a_big_endian_wav_without_a_length_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, SOUND, RATE_HZ, format="WAV", subtype="PCM_16", endian="BIG")
    data = path.read_bytes()
    assert data.startswith(b"RIFX")
    samples, problem = read(path, patched(data, b"data", ">I", 0))
    np.testing.assert_allclose(samples, SOUND, atol=1e-4)
    assert problem == ""


def test_a_flac_without_a_length_is_read_and_one_with_a_wrong_length_too(tmp_path):
    data = made(SOUND, "FLAC")
    for n_samples, text in ((0, ""), (100, ""), (2 * len(SOUND), "0.70 s of 1.40 s could be read")):
        field = bytes([data[21] & 0xF0]) + n_samples.to_bytes(4, "big")
        for tag in (b"", b"TAG" + bytes(125)):
            samples, problem = read(tmp_path / "a.flac", data[:21] + field + data[26:] + tag)
            np.testing.assert_allclose(samples, SOUND, atol=1e-4)
            assert text in problem
            assert bool(text) == bool(problem)


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [("NIST", "PCM_16"), ("NIST", "PCM_24"), ("NIST", "ULAW"), ("VOC", "PCM_16"), ("VOC", "ULAW"), ("AVR", "PCM_16"),
     ("SVX", "PCM_16"), ("SVX", "PCM_S8"), ("WVE", "ALAW")],
)  # fmt: skip
def test_older_formats_that_break_off_are_read_and_named(tmp_path, fmt, subtype):
    channels = 2 if fmt in ("NIST", "AVR") else 1
    whole = made(tone(0.5, channels=channels), fmt, subtype, 8000)
    samples, problem = read(tmp_path / "a.wav", whole)
    assert len(samples) - RATE_HZ // 2 in (0, 1)  # libsndfile takes the byte that ends a VOC for a sample
    assert problem == ""
    cut, problem = read(tmp_path / "a.wav", whole[: len(whole) // 2])
    np.testing.assert_array_equal(cut, samples[: len(cut)])
    assert len(cut) > 0.4 * len(samples)
    assert f"its header promises {len(samples) / 8000:.2f} s, {len(cut) / 8000:.2f} s are there" in problem


def test_an_sds_file_that_breaks_off_is_refused_instead_of_ending_in_silence(tmp_path):
    whole = made(tone(0.5), "SDS", None, 44_100)
    assert len(read(tmp_path / "a.sds", whole)[0]) == RATE_HZ // 2
    (tmp_path / "a.sds").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="it breaks off: its header promises"):
        Sound(tmp_path / "a.sds")


def ape_tag(header: bool) -> bytes:
    """An APE tag with one item, which may have a header as well as its footer."""
    item = struct.pack("<II", 3, 0) + b"Title\0abc"

    def edge(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, flags)

    return edge(0xA0000000) + item + edge(0x80000000) if header else item + edge(0)


TAGS = {
    "ID3v1": b"TAG" + b"x" * 125,
    "ID3v2": b"ID3\4\0\0\0\0\1\2" + b"y" * 130,
    "APE": ape_tag(True),
    "Lyrics3": b"LYRICSBEGIN" + b"z" * 20 + b"000031LYRICS200",
}


@pytest.mark.parametrize("fmt", ["WAV", "AIFF", "W64", "CAF"])
@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_files_joined_behind_a_tag_are_read_too(tmp_path, fmt, tag):
    whole = made(SOUND[:9000], fmt)
    alone, _ = read(tmp_path / "a", whole)
    samples, problem = read(tmp_path / "a", whole + tag + whole + tag + tag + whole + tag)
    np.testing.assert_array_equal(samples, np.concatenate([alone, alone, alone]))
    assert problem == ""


@pytest.mark.parametrize(
    ("other", "tag"),
    [(other, tag) for other in ("FLAC", "OGG", "AU") for tag in (b"", *TAGS.values())]
    + [("MP3", tag) for tag in TAGS.values()],  # without a tag nothing tells the frames of an MP3 from samples
)
def test_another_format_behind_a_wav_is_named_and_not_taken_for_its_samples(tmp_path, other, tag):
    samples, problem = read(tmp_path / "a.wav", made(SOUND, "WAV") + tag + made(SOUND, other))
    assert len(samples) == len(SOUND)
    assert "left out" in problem


@pytest.mark.parametrize("n_samples", [0, 1, None])
@pytest.mark.parametrize(
    "tail",
    [ape_tag(True), ape_tag(False), ape_tag(True) + b"TAG" + bytes(125), bytes(500), bytes(9000)],
)
def test_tags_and_padding_after_a_flac_are_left_out(tmp_path, tail, n_samples):
    data = made(SOUND, "FLAC")
    length = len(SOUND) if n_samples is None else n_samples
    data = data[:21] + bytes([data[21] & 0xF0]) + length.to_bytes(4, "big") + data[26:] + tail
    samples, problem = read(tmp_path / "a.flac", data + data)
    np.testing.assert_allclose(samples, np.concatenate([SOUND, SOUND]), atol=1e-4)
    assert problem == ""


def test_a_flac_is_read_up_to_its_promised_end_and_what_follows_is_named(tmp_path):
    whole = made(SOUND, "FLAC")
    samples, problem = read(tmp_path / "a.flac", whole + b"no sound" * 100)
    np.testing.assert_allclose(samples, SOUND, atol=1e-4)
    assert problem == f"what follows sample {len(SOUND)} is no FLAC, and left out"


def test_a_flac_that_breaks_off_names_the_sample(tmp_path):
    frame = 4096  # libsndfile's, at this rate
    whole = made(tone(2), "FLAC")
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    came = 0
    blocks = Sound(tmp_path / "a.flac").blocks(100)
    try:
        for block in blocks:
            came += len(block)
        text = "no error"
    except AudioError as error:
        text = str(error)
    assert "cannot be read on from sample " in text
    told = int(text.split("sample ")[1].split(":")[0])
    assert told % frame == 0
    assert 0 <= told - came < 100
    assert 0 < told < 2 * RATE_HZ


def test_any_bytes_after_any_header_end_with_sound_or_one_error(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for fmt in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"):
        whole = made(SOUND, fmt)
        for _ in range(12):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 200), 4):
                data[at] = rng.integers(256)
            path.write_bytes(bytes(data[: rng.integers(len(data))]))
            text, count = "", 1
            try:
                count = sum(len(block) for block in Sound(path).blocks(4096))
            except AudioError as error:
                text = str(error)
            assert count > 0
            assert "\n" not in text
