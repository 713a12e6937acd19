"""The content decides the format, not the name; what needs PyAV says so; what is no sound is refused by its kind."""

import io
import os
import re
import socket
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from small_models import small_checkpoint
from sound_files import RATE_HZ, made, patched, read, tone

from streamcodec.audio.libav import EXTRA
from streamcodec.audio.sound import Sound, read_blocks
from streamcodec.audio.stream import StreamedSound
from streamcodec.cli import main
from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.evaluation.clips import collect_clips, items_of_paths
from streamcodec.evaluation.sound_files import read_sound
from streamcodec.tokens import TokenDataset
from streamcodec.training.corpus.archive import folder_members
from streamcodec.training.corpus.decode import decode

ROOT = Path(__file__).parent.parent
SOUND = tone(1.6)
NAMES = ("a.mp3", "a.wav", "a.snd", "a")


def coded(container: str, codec: str, layout: str = "mono") -> bytes:
    """`SOUND` by PyAV."""
    av = pytest.importorskip("av", reason="needs streamcodec[formats]")
    data = io.BytesIO()
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ
    with av.open(data, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout)
        stream.bit_rate = 32_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(SOUND.T), format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(stream.format.name, layout, rate_hz, stream.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux([packet for packet in stream.encode(None) if packet.size])
    return data.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("adts", "aac"), ("mp4", "aac"), ("matroska", "aac"), ("webm", "libopus"), ("ogg", "flac"), ("ogg", "libopus"),
     ("flac", "flac"), ("mp3", "libmp3lame"), ("wv", "wavpack"), ("mpegts", "aac"), ("asf", "wmav2"), ("mov", "alac")],
)  # fmt: skip
def test_any_format_under_any_name_is_read_as_what_it_is(tmp_path, container, codec):
    data = coded(container, codec)
    for name in NAMES:
        samples, problem = read(tmp_path / name, data)
        rate_hz = Sound(tmp_path / name).info.sample_rate_hz
        assert abs(len(samples) / rate_hz - 1.6) < 0.1
        assert problem == ""
        spectrum = np.abs(np.fft.rfft(samples[:, 0]))
        assert abs(np.argmax(spectrum) * rate_hz / len(samples) - 330) < 5


@pytest.mark.parametrize("container", ["matroska", "adts", "ogg"])
def test_what_pyav_cannot_decode_is_named(tmp_path, container):
    data = coded(container, "flac" if container == "ogg" else "aac")
    broken = bytearray(data)
    broken[len(data) // 2 : len(data) // 2 + 600] = np.random.default_rng(0).bytes(600)
    samples, problem = read(tmp_path / "a", bytes(broken))
    assert 0 < len(samples) < len(SOUND)
    assert "1 packet(s) could not be decoded" in problem or "s could be read; the rest is damaged or missing" in problem
    if container == "matroska":  # the others do not say how long they are
        samples, problem = read(tmp_path / "a", data[: len(data) // 2])
        assert 0 < len(samples) < 0.7 * len(SOUND)
        assert "s could be read; the rest is damaged or missing" in problem


@pytest.mark.parametrize(
    "fmt", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "VOC", "NIST", "AVR", "PVF", "IRCAM", "SVX", "HTK", "MAT5"]
)
def test_formats_of_libsndfile_are_read_under_any_name(tmp_path, fmt):
    for name in NAMES:
        samples, problem = read(tmp_path / name, made(SOUND, fmt))
        assert abs(len(samples) - len(SOUND)) < 3000
        assert problem == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is empty"),
        (bytes(40_000), "begins with zeros"),
        (b"<!doctype html><p>Gone" * 900, "a web page"),
        (b"\xef\xbb\xbf\n<HTML>" * 900, "a web page"),
        ("Dear listener, ça va? ".encode() * 3000, "it is text"),
        (b"%PDF-1.7\n" + bytes(9000), "a PDF file"),
        (b"PK\3\4" + bytes(9000), "a zip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9000), "a PNG image"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(4000), "macOS's companion"),
        (np.random.default_rng(5).bytes(200_000), "of no format that is known"),
        (b"RIFF\x24\0\0\0WAVE", "cannot be read as a sound file"),
        (b"OggS" + bytes(5000), "cannot be read as a sound file"),
        (b"\0\0\0\x20ftypM4A " + bytes(500), "cannot be read as a sound file"),
    ],
)
def test_what_is_no_sound_is_refused_under_every_name_in_one_line(tmp_path, data, text):
    for name in (*NAMES, "a.au", "a.gsm", "a.vox", "a.raw", "a.ogg", "a.g722" if text[:2] == "a " else "a.m4a"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AudioError, match=text) as caught:
            list(read_blocks(tmp_path / name, 1000))
        assert "\n" not in str(caught.value)
        assert "does not exist" not in str(caught.value)


def test_one_reader_serves_every_part(tmp_path):
    path = tmp_path / "a.mp3"
    data = coded("mp4", "aac")
    samples, _ = read(path, data)
    mono, rate_hz = read_sound(path)
    np.testing.assert_array_equal(mono, samples[:, 0])
    trained, trained_hz = decode(data, "folder/a.wav")
    np.testing.assert_array_equal(trained, samples)
    assert rate_hz == trained_hz == RATE_HZ
    notes: list[str] = []
    path.write_bytes(patched(made(SOUND, "WAV"), b"data", "<I", 1 << 20))
    assert len(read_sound(path, notes)[0]) == len(SOUND)
    assert notes[0].startswith(f"{path}: it breaks off")
    with pytest.raises(AudioError, match="breaks off"):
        decode(path.read_bytes(), "a.wav")


def test_evaluate_goes_on_without_a_file_that_needs_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    soundfile.write(tmp_path / "b.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE_HZ), RATE_HZ)
    clips, notes = collect_clips(items_of_paths([tmp_path]), 24_000, 4)
    assert [clip.name.rpartition("/")[2] for clip in clips] == ["b.wav"]
    assert len(notes) == 1
    assert "a.m4a is MP4; av is not installed; install it with: pip install 'streamcodec[formats]'" in notes[0]


@pytest.mark.skipif(os.name != "posix", reason="names with control characters are those of POSIX")
@pytest.mark.parametrize("verb", ["plot", "evaluate", "listen"])
def test_notes_on_files_whose_names_steer_a_terminal_are_escaped(tmp_path, verb):
    whole = made(np.random.default_rng(0).uniform(-0.5, 0.5, (8 * RATE_HZ, 1)), "WAV")
    (tmp_path / "a\x1b[2J\nb.wav").write_bytes(whole[: len(whole) * 9 // 10])
    name = str(tmp_path / "a\x1b[2J\nb.wav")
    words = {
        "plot": ["plot", name, name, "-o", str(tmp_path / "p.png")],
        "evaluate": ["evaluate", name, "--codecs", "opus@12", "--metrics", "si_sdr", "--no-cache", "--jobs", "1"],
        "listen": ["listen", "prepare", str(tmp_path / "test"), name, "--codecs", "opus@12", "--clips", "1"],
    }
    result = CliRunner().invoke(main, words[verb])
    assert "\x1b" not in result.output
    assert r"a\x1b[2J\nb.wav: it breaks off" in result.stderr


def test_without_pyav_the_file_its_format_and_the_extra_are_named(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name, form in (("a.mp3", ("adts", "aac")), ("b.wav", ("ogg", "flac")), ("c.ogg", ("webm", "libopus"))):
        (tmp_path / "in" / name).write_bytes(coded(*form))
    (tmp_path / "in/d.wav").write_bytes(made(SOUND, "WAV"))
    monkeypatch.setitem(sys.modules, "av", None)
    for name, kind in (("a.mp3", "AAC"), ("b.wav", "Ogg FLAC"), ("c.ogg", "WebM")):
        with pytest.raises(MissingExtraError, match=rf"{re.escape(name)} is {kind}.*streamcodec\[{EXTRA}\]"):
            Sound(tmp_path / "in" / name)
    small_checkpoint(tmp_path / "m.safetensors")
    model = ["--model", str(tmp_path / "m.safetensors"), "--bitrate", "2.4"]
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["tokenize", *folders, "--format", "npz", *model])
    assert result.exit_code == 3, result.output
    assert "skipped a.mp3: it is AAC (ADTS); av is not installed" in result.stderr
    result = CliRunner().invoke(main, ["encode", str(tmp_path / "in/a.mp3"), str(tmp_path / "a.scx"), *model])
    assert result.exit_code == 1
    assert f"streamcodec[{EXTRA}]" in result.stderr


@pytest.mark.parametrize("rate_hz", [1, 999, 768_001, 400_000_000])
def test_a_rate_of_no_sound_is_refused_before_anything_is_resampled(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.wav", SOUND, rate_hz)
    small_checkpoint(tmp_path / "m.safetensors")
    name, model = str(tmp_path / "a.wav"), ["--model", str(tmp_path / "m.safetensors"), "--bitrate", "2.4"]
    output = str(tmp_path / "out.wav")
    for words in (
        ["encode", name, str(tmp_path / "a.scx"), *model],
        ["loopback", "--fast", "--input", name, "--output", output, *model],
        ["call", "--listen", "0", "--seconds", "1", "--input", name, "--output", output, *model],
        ["plot", name, name, "-o", str(tmp_path / "a.png")],
    ):
        result = CliRunner().invoke(main, words)
        assert (result.exit_code, result.stderr) == (
            1, f"AudioError: {name} has a sample rate of {rate_hz} Hz; rates from 1000 to 768000 can be read.\n"
        )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "m.safetensors"]


def test_every_extra_that_a_message_names_is_one_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    folders = (ROOT / folder for folder in ("streamcodec", "kernels", "docs", "tests"))
    paths = [*(path for folder in folders for path in folder.rglob("*.[pm][yd]")), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    named = set(re.findall(r"MissingExtraError\([^()]*?, \"(\w+)\"", text)) | {EXTRA}
    named |= {name for names in re.findall(r"streamcodec\[([\w,]+)\]", text) for name in names.split(",")}
    assert {"eval", "export", "call", "tokenize"} <= named
    assert named <= set(extras)
    assert any(need.startswith("av>=") for need in extras[EXTRA])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_sockets_and_links_in_a_folder_are_named_and_never_opened(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "a.wav", SOUND, RATE_HZ)
    os.mkfifo(folder / "deep/pipe.flac")
    os.symlink("deep/pipe.flac", folder / "to_pipe.mp3")
    os.symlink("/dev/zero", folder / "zero.wav")
    os.symlink("round.ogg", folder / "round.ogg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)
        try:
            listener.bind("socket.wav")
        finally:
            os.chdir(here)
    small_checkpoint(tmp_path / "m.safetensors")
    result = CliRunner().invoke(
        main,
        ["tokenize", str(folder), str(tmp_path / "out"), "--format", "npz", "--model", str(tmp_path / "m.safetensors"),
         "--bitrate", "2.4"],
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    for line in (
        "skipped deep/pipe.flac: it is a named pipe, not a file",
        "skipped to_pipe.mp3: it is a named pipe, not a file",
        "skipped zero.wav: it is a device, not a file",
        "skipped socket.wav: it is a socket, not a file",
        "skipped round.ogg: ",
    ):
        assert line in result.stderr
    assert len(TokenDataset.open(tmp_path / "out")) == 1
    clips, notes = collect_clips(items_of_paths([folder]), RATE_HZ, 3)
    assert len(clips) == 1
    assert sum("is a named pipe, not a file" in note for note in notes) == 2
    assert any("round.ogg cannot be read: " in note for note in notes)
    members = dict(folder_members(folder, lambda path: True))
    assert {path for path, data in members.items() if data} == {"a.wav"}
    assert {"deep/pipe.flac", "zero.wav", "socket.wav"} <= set(members)


def test_files_that_are_not_whole_are_tokenised_and_named(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    wav = made(SOUND, "WAV")
    (folder / "cut.wav").write_bytes(wav[:30_000])
    (folder / "good.wav").write_bytes(wav)
    (folder / "two.flac").write_bytes(made(SOUND, "FLAC") + made(tone(0.5, channels=2), "FLAC"))
    (folder / "unclosed.wav").write_bytes(patched(wav, b"data", "<I", 0))
    small_checkpoint(tmp_path / "m.safetensors")
    options = ["--format", "npz", "--model", str(tmp_path / "m.safetensors"), "--bitrate", "2.4"]
    for _ in range(2):  # also when all shards are there already
        result = CliRunner().invoke(main, ["tokenize", str(folder), str(tmp_path / "out"), *options])
        assert result.exit_code == 3, result.output
        assert "incomplete cut.wav: it breaks off: its header promises 1.60 s, 0.68 s are there" in result.stderr
        assert "incomplete two.flac: 2 files are joined in it" in result.stderr
        assert result.stderr.count("incomplete ") == 2
        assert "0 files skipped, 2 incomplete" in result.stdout
    dataset = TokenDataset.open(tmp_path / "out")
    assert [item.path for item in dataset.incomplete] == ["cut.wav", "two.flac"]
    assert dataset.skipped == ()
    seconds = {file.path: file.duration_s for file in dataset}
    assert seconds == pytest.approx({"cut.wav": 0.68, "good.wav": 1.6, "two.flac": 1.6, "unclosed.wav": 1.6}, abs=0.01)
    strict = CliRunner().invoke(main, ["tokenize", str(folder), str(tmp_path / "strict"), *options, "--strict"])
    assert strict.exit_code == 1
    assert "cut.wav: it breaks off" in strict.stderr


def test_encode_says_on_stderr_what_was_not_read_and_exits_with_3(tmp_path):
    small_checkpoint(tmp_path / "m.safetensors")
    for data, text in ((made(SOUND, "WAV")[:20_000], "it breaks off"), (made(SOUND, "WAV"), "")):
        (tmp_path / "a.wav").write_bytes(data)
        paths = [str(tmp_path / name) for name in ("a.wav", "a.scx", "m.safetensors")]
        result = CliRunner().invoke(main, ["encode", *paths[:2], "--model", paths[2], "--bitrate", "2.4"])
        assert result.exit_code == (3 if text else 0), result.output
        assert (f"{tmp_path / 'a.wav'}: {text}" in result.stderr) if text else result.stderr == ""


class Pipe(io.RawIOBase):
    """Delivers bytes as a pipe does: in pieces, forwards only."""

    def __init__(self, data, piece):
        self.data, self.piece = io.BytesIO(data), piece

    def read(self, size=-1):
        return self.data.read(self.piece if size < 0 else min(size, self.piece))


WAV = made(SOUND, "WAV", "PCM_16")
PIPED = {
    "wav": WAV,
    "wav of ffmpeg": patched(patched(WAV, b"data", "<I", 0xFFFFFFFF), b"RIFF", "<I", 0xFFFFFFFF),
    "wav 0": patched(WAV, b"data", "<I", 0),
    "wav of floats": patched(made(SOUND, "WAV", "FLOAT"), b"data", "<I", 0xFFFFFFFF),
    "adpcm": patched(made(SOUND, "WAV", "IMA_ADPCM"), b"data", "<I", 0xFFFFFFFF),
    "stale": patched(WAV, b"data", "<I", 1000),
    "rf64": made(SOUND, "RF64", "PCM_16"),
    "flac": made(SOUND, "FLAC"),
    "mp3": made(SOUND, "MP3"),
    "ogg": made(SOUND, "OGG"),
}


@pytest.mark.parametrize("name", PIPED)
@pytest.mark.parametrize("piece", [7, 100_000])
def test_sound_comes_through_a_pipe_as_from_a_file(tmp_path, name, piece):
    expected, _ = read(tmp_path / "a", PIPED[name])
    sound = StreamedSound(Pipe(PIPED[name], piece), "a pipe")
    samples = np.concatenate(list(sound.blocks(3000)))
    np.testing.assert_array_equal(samples[: len(expected)], expected)
    assert sound.info.sample_rate_hz == RATE_HZ
    with pytest.raises(AudioError, match="a pipe cannot be read as a sound file: it is empty"):
        StreamedSound(Pipe(b"", 1), "a pipe")


def test_a_wav_of_unknown_length_comes_out_of_a_pipe_while_it_is_written():
    source, target = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as reader, os.fdopen(target, "wb", buffering=0) as writer:
        data = PIPED["wav of ffmpeg"] + 10 * PIPED["wav of ffmpeg"][44:]
        writing = threading.Thread(target=writer.write, args=(data,))
        writing.start()
        hanging = threading.Timer(30, writer.close)  # ends a reader that waits for the end
        hanging.start()
        first = next(StreamedSound(reader, "a pipe").blocks(1000))
        hanging.cancel()
        assert not writer.closed
        np.testing.assert_allclose(first, SOUND[:1000], atol=1e-4)
        while writing.is_alive():
            os.read(reader.fileno(), 1 << 20)
