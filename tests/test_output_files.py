"""Files are written whole or not at all, whatever their names are and however much room there is."""

import errno
import os
import stat
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from streamcodec.audio.files import AudioWriter, is_own_sound, read_blocks, write_audio
from streamcodec.audio.pcm import PCM_FORMATS, pcm_bytes, pcm_layout, wav_header
from streamcodec.errors import AudioError
from streamcodec.files import (
    append_text,
    atomic_output,
    check_replaceable,
    descriptor,
    open_input,
    printable,
    remove_partial_files,
    write_bytes,
    write_text,
)

resource = pytest.importorskip("resource", reason="limits, FIFOs and numbered streams are those of POSIX")


def sine(n_samples, channels=1):
    return np.repeat(np.sin(np.arange(n_samples) / 10).astype(np.float32)[:, None] * 0.5, channels, axis=1)


@contextmanager
def little_room():
    """No file may be longer than 8192 bytes; what is longer fails as on a full disk.

    Not a fixture: pytest would write its progress within the limit, and stop where its output is a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Unwritable(Exception):
    """Raised by a test in the place of what the product does not expect."""


NAMES = {
    "255 bytes": "x" * 251 + ".scx",
    "three bytes a character": "文" * 83 + ".scx",
    "four bytes a character": "\N{MUSICAL SYMBOL G CLEF}" * 62 + ".scx",
    "combining": "e\N{COMBINING ACUTE ACCENT}" * 80 + ".scx",
    "newline": "a\nb.scx",
    "leading dash": "--force.scx",
    "only a dash": "-",
    "no UTF-8": os.fsdecode(b"\xff\xfe\x80.scx"),
    "long and no UTF-8": os.fsdecode(b"\xe9" * 255),
    "quotes and braces": "{0} '[red]\" %s.scx",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        with atomic_output(path) as file:
            file.write(b"codes")
            (part,) = (entry for entry in os.listdir(tmp_path) if entry.endswith(".part"))
            assert len(os.fsencode(part)) <= 120
        assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"codes"


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path):
    begun = False
    with pytest.raises(OSError, match="too long") as caught, atomic_output(tmp_path / ("é" * 128)):
        begun = True
    assert (caught.value.filename, begun) == (str(tmp_path / ("é" * 128)), False)


def test_names_are_printed_in_one_line_of_text():
    assert printable("日本 語.wav") == "日本 語.wav"
    assert printable("a\nb\r\x1b]0;title\x07") == "a\\nb\\r\\x1b]0;title\\x07"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("right\u202eleft\u2028next") == "right\\u202eleft\\u2028next"
    assert printable("a\u200fb\u061cc") == "a\\u200fb\\u061cc"


def test_a_missing_folder_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("gone/target.wav")
    for path, named, kind in (
        ("missing/a.wav", "missing", FileNotFoundError),
        (tmp_path / "no" / "such" / "a.wav", str(tmp_path / "no" / "such"), FileNotFoundError),
        ("file/a.wav", "file/a.wav", NotADirectoryError),
        ("dangling", str(tmp_path / "gone"), FileNotFoundError),
    ):
        with pytest.raises(kind) as caught, atomic_output(path):
            pass
        assert caught.value.filename == named
        assert ".part" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, code):
    def refused(self, file, mode, given):
        raise OSError(code, os.strerror(code), str(given))

    monkeypatch.setattr("streamcodec.files._Output.__init__", refused)
    with pytest.raises(PermissionError, match=r"a\.flac cannot be written to this folder") as caught:
        write_bytes(tmp_path / "a.flac", b"x")
    assert caught.value.filename == str(tmp_path)


def test_a_write_protected_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    path.write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to everything
    with pytest.raises(PermissionError, match="write-protected"):
        write_text(path, "new")
    assert path.read_text() == "kept"


def append(path):
    for _ in range(3):
        append_text(path, "é" * 1000)
    assert path.read_text(encoding="utf-8") == "é" * 3000
    path.unlink()
    append_text(path, "é" * 5000)


def test_without_room_a_log_that_grows_is_named(tmp_path):
    with pytest.raises(OSError, match="too large") as caught, little_room():
        append(tmp_path / "log")
    assert caught.value.filename == str(tmp_path / "log")


WRITERS = {
    "text": lambda path: write_text(path, "n" * 20_000),
    "pieces": lambda path: in_pieces(path, 20, 1000),
    "at the end": lambda path: in_pieces(path, 1, 8300),
    "WAV": lambda path: write_audio(path.with_suffix(".wav"), sine(30_000), 8000),
    "FLAC": lambda path: write_audio(path.with_suffix(".flac"), noise(30_000), 8000),
    "short FLAC": lambda path: write_audio(path.with_suffix(".flac"), noise(4500), 8000),
    "Vorbis": lambda path: write_audio(path.with_suffix(".ogg"), noise(100_000), 8000),
}


def noise(n_samples):
    return np.random.default_rng(1).uniform(-0.9, 0.9, n_samples).astype(np.float32)


def in_pieces(path, count, size):
    with atomic_output(path) as file:
        for _ in range(count):
            file.write(b"p" * size)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_without_room_the_error_names_the_file_and_nothing_is_left(tmp_path, write):
    with pytest.raises(OSError) as caught, little_room():  # noqa: PT011
        write(tmp_path / "full")
    assert caught.value.errno == errno.EFBIG
    assert os.path.splitext(caught.value.filename)[0] == str(tmp_path / "full")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(("call", "code"), [("fsync", errno.EDQUOT), ("replace", errno.ENOSPC)])
def test_an_error_at_the_very_end_is_like_one_before(tmp_path, monkeypatch, call, code):
    def fails(*_):
        raise OSError(code, os.strerror(code), "a hidden name")

    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write_bytes(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert os.listdir(tmp_path) == ["a.npz"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_device_is_named(size):
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes("/dev/full", b"x" * size)
    assert caught.value.filename == "/dev/full"


def test_an_error_of_the_writer_is_not_hidden_by_what_waits_to_be_written(tmp_path):
    def fail():
        with atomic_output(tmp_path / "a") as file:
            file.write(b"x" * 8000)
            file.flush()
            file.write(b"x" * 8000)  # stays in the buffer
            raise Unwritable

    with pytest.raises(Unwritable), little_room():
        fail()
    assert not os.listdir(tmp_path)


def test_partial_files_can_be_removed_at_once(tmp_path):
    def remove():
        with atomic_output(tmp_path / "a") as file:
            file.write(b"x")
            remove_partial_files()
            assert not os.listdir(tmp_path)

    with pytest.raises(FileNotFoundError):
        remove()
    with atomic_output(tmp_path / "b") as file:
        file.write(b"x")
    remove_partial_files()
    assert os.listdir(tmp_path) == ["b"]


def test_standard_streams_and_numbers_are_streams(tmp_path):
    read, write = os.pipe()
    assert [descriptor(path) for path in ("/dev/stdin", "/dev/stdout", f"/dev/fd/{read}", "/proc/self/fd/7")] == [
        *(0, 1, read, 7)
    ]
    assert descriptor(tmp_path / "stdout") is None
    with atomic_output(f"/dev/fd/{write}") as file:
        assert not file.seekable()
        file.write(b"through")
    os.close(write)
    with open_input(f"/dev/fd/{read}") as file:
        assert file.read() == b"through"
    os.close(read)


def test_a_stream_into_a_file_is_appended_to_where_it_stands(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"before ")
    with path.open("ab") as file, atomic_output(f"/dev/fd/{file.fileno()}") as output:
        output.write(b"after")
    assert path.read_bytes() == b"before after"


def test_a_reader_that_has_gone_is_a_broken_pipe_with_the_name(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def write():
        with atomic_output(fifo) as file:
            os.close(reader)
            file.write(b"x" * 100_000)

    with pytest.raises(BrokenPipeError) as caught:
        write()
    assert caught.value.filename == str(fifo)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_the_input_is_never_the_output_by_whatever_name(tmp_path):
    source = tmp_path / "a.wav"
    source.write_bytes(b"sound")
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "soft").symlink_to("a.wav")
    (tmp_path / "loop").mkdir()
    for name in ("a.wav", "hard", "soft", "loop/../a.wav"):
        with pytest.raises(FileExistsError, match="is the input"):
            check_replaceable(f"{tmp_path}/{name}", source, lambda path: True, "", force=True)
    with source.open("rb") as file, pytest.raises(FileExistsError, match="is the input"):
        check_replaceable(source, f"/dev/fd/{file.fileno()}", lambda path: True, "", force=True)


def test_old_files_of_another_kind_are_replaced_only_with_force(tmp_path):
    source, target, empty = tmp_path / "a", tmp_path / "b", tmp_path / "empty"
    for path in (source, target):
        path.write_bytes(b"sound")
    empty.touch()
    with pytest.raises(FileExistsError, match="exists and is precious; give another name, or --force"):
        check_replaceable(target, source, lambda path: False, "is precious")
    check_replaceable(target, source, lambda path: True, "is precious")
    check_replaceable(target, source, lambda path: False, "is precious", force=True)
    for harmless in (empty, tmp_path / "new", os.devnull):
        check_replaceable(harmless, source, lambda path: False, "is precious")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_sound_written_here_is_told_from_recordings(tmp_path, suffix):
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    write_audio(ours, sine(3000), 16_000)
    soundfile.write(theirs, sine(3000), 16_000)
    (tmp_path / "text").write_text("no sound")
    assert [is_own_sound(path) for path in (ours, theirs, tmp_path / "text")] == [True, False, False]


def test_a_wav_is_whole_in_every_reader_and_says_its_length(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, sine(12_345, 2), 44_100)
    data = path.read_bytes()
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    at = data.index(b"data")
    assert int.from_bytes(data[at + 4 : at + 8], "little") == 4 * 12_345 == len(data) - at - 8
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.frames, info.samplerate, info.channels) == (
        *("WAV", "PCM_16", 12_345, 44_100, 2),
    )


@pytest.mark.parametrize(
    ("n_bytes", "magic"), [((1 << 32) - 200, b"RIFF"), ((1 << 32) - 100, b"RF64"), (1 << 40, b"RF64")]
)
def test_the_header_becomes_rf64_exactly_when_a_length_does_not_fit(n_bytes, magic):
    header = wav_header(48_000, 2, n_bytes, roomy=True)
    assert header[:4] == magic
    assert len(header) == len(wav_header(48_000, 2, 0, roomy=True))
    if magic == b"RF64":
        assert header[4:16] == b"\xff\xff\xff\xffWAVEds64"
        sizes = [int.from_bytes(header[at : at + 8], "little") for at in (20, 28, 36)]
        assert sizes == [len(header) + n_bytes - 8, n_bytes, n_bytes // 4]


def test_a_recording_past_4_gib_is_read_to_its_end(tmp_path):
    """The middle is a hole in the file, which takes no room on the disk."""
    path, total = tmp_path / "long.wav", (1 << 31) + 1000
    with AudioWriter(path, 8000, 1) as writer:
        writer.write(sine(1000))
        writer._file.seek(total - 1000)
        writer.write(sine(1000))
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this file system has no holes")
    with soundfile.SoundFile(path) as file:
        assert (file.format, file.frames) == ("RF64", total)
        file.seek(total - 1000)
        np.testing.assert_allclose(file.read(dtype="float32"), sine(1000)[:, 0], atol=1e-4)


def through_a_pipe(write):
    """What comes out of a pipe that `write(path)` writes to."""
    read_end, write_end = os.pipe()
    taken = []

    def drain():
        with os.fdopen(read_end, "rb") as file:
            taken.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        write(f"/dev/fd/{write_end}")
    finally:
        os.close(write_end)
        thread.join()
    return taken[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_wav_in_a_pipe_is_read_to_its_end(tmp_path, known):
    def write(path):
        with AudioWriter(path, 16_000, 2, fmt="wav", n_samples=50_000 if known else None) as writer:
            for _ in range(5):
                writer.write(sine(10_000, 2))

    data = through_a_pipe(write)
    (tmp_path / "a.wav").write_bytes(data)
    assert soundfile.info(tmp_path / "a.wav").frames == 50_000
    assert sum(len(block) for block in read_blocks(tmp_path / "a.wav", 4096)) == 50_000
    stated = int.from_bytes(data[data.index(b"data") + 4 :][:4], "little")
    assert stated == (200_000 if known else 0xFFFFFFFF)


@pytest.mark.parametrize("fmt", PCM_FORMATS)
def test_bare_samples_are_what_their_name_says(tmp_path, fmt):
    data = through_a_pipe(lambda path: AudioWriter(path, 16_000, 2, fmt=fmt).__enter__().__exit__(None, None, None))
    assert data == b""
    with AudioWriter(tmp_path / "a", 16_000, 2, fmt=fmt) as writer:
        writer.write(sine(1000, 2))
    assert (tmp_path / "a").stat().st_size == 2000 * pcm_bytes(fmt)
    back, _ = soundfile.read(tmp_path / "a", samplerate=16_000, channels=2, **pcm_layout(fmt))
    np.testing.assert_allclose(back, sine(1000, 2), atol=0.02 if pcm_bytes(fmt) == 1 else 1e-4)
    if fmt == "s16be":
        np.testing.assert_allclose(np.fromfile(tmp_path / "a", ">i2") / 32_768, sine(1000, 2).ravel(), atol=1e-4)


def test_a_flac_needs_a_file_and_a_pipe_without_an_ending_a_format():
    with pytest.raises(AudioError, match="cannot take a FLAC") as caught:
        through_a_pipe(lambda path: AudioWriter(path, 16_000, 1, fmt="flac").__enter__())
    assert "wav, ogg" in str(caught.value)
    with pytest.raises(AudioError, match="format 'mp3' is unknown; choose one of wav"):
        AudioWriter("a.mp3", 16_000, 1, fmt="mp3")


def test_vorbis_goes_through_a_pipe(tmp_path):
    def write(path):
        with AudioWriter(path, 16_000, 1, fmt="ogg") as writer:
            writer.write(sine(30_000))

    (tmp_path / "a.ogg").write_bytes(through_a_pipe(write))
    assert soundfile.info(tmp_path / "a.ogg").frames == 30_000
