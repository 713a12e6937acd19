"""`encode` and `decode` in a pipeline, what they may replace, and what they say when something goes wrong."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from small_models import small_checkpoint

from streamcodec.audio.files import read_blocks, write_audio
from streamcodec.audio.pcm import pcm_layout
from streamcodec.cli import main
from streamcodec.cli._options import OUTPUT_FILE
from streamcodec.stopping import Stopped, interruptible, stopping_on_signals, uninterrupted

pytestmark = pytest.mark.skipif(os.name != "posix", reason="FIFOs and numbered streams are those of POSIX")

RATE_HZ, N_SAMPLES = 16_000, 20_011


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def command(*words):
    return [sys.executable, "-m", "streamcodec", *map(str, words)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipes")
    small_checkpoint(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    sound = np.cumsum(rng.standard_normal((N_SAMPLES, 2)), axis=0)
    sound = (0.8 * sound / np.abs(sound).max()).astype(np.float32)
    soundfile.write(folder / "in.wav", sound, RATE_HZ)
    soundfile.write(folder / "in.flac", sound, RATE_HZ)
    assert run("encode", folder / "in.wav", folder / "in.scx", *options(folder)).exit_code == 0
    assert run("decode", folder / "in.scx", folder / "out.wav", *options(folder)[:2]).exit_code == 0
    return folder


def options(place):
    return "--model", place / "model.safetensors", "--bitrate", 2.4


@pytest.fixture
def encode(place):
    return lambda *words: run("encode", *options(place), *words)


@pytest.fixture
def decode(place):
    return lambda *words: run("decode", *options(place)[:2], *words)


def piped(words, data=None, *, run):
    """Run with the pipe IN, which delivers `data`, and the pipe OUT; the result and what came out."""
    ends = [*os.pipe(), *os.pipe()]
    taken = []

    def feed():
        with os.fdopen(ends[1], "wb") as file:
            file.write(data or b"")

    def drain():
        with os.fdopen(ends[2], "rb") as file:
            taken.append(file.read())

    threads = [threading.Thread(target=feed), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    names = {"IN": f"/dev/fd/{ends[0]}", "OUT": f"/dev/fd/{ends[3]}"}
    result = run(*(names.get(word, word) for word in words))
    for end in (ends[0], ends[3]):
        os.close(end)
    for thread in threads:
        thread.join()
    return result, taken[0]


def samples(data, folder):
    (folder / "got.wav").write_bytes(data)
    return soundfile.read(folder / "got.wav", dtype="float32")[0]


def test_a_pipe_carries_the_same_codes_and_the_same_sound_as_files(place, encode, decode, tmp_path):
    result, codes = piped(("IN", "OUT"), (place / "in.wav").read_bytes(), run=encode)
    assert result.exit_code == 0, result.output
    assert str(len(codes)) in result.output
    result, sound = piped(("IN", "OUT", "--format", "wav"), codes, run=decode)
    assert result.exit_code == 0, result.output
    expected = soundfile.read(place / "out.wav", dtype="float32")[0]
    assert len(expected) == N_SAMPLES
    np.testing.assert_array_equal(samples(sound, tmp_path), expected)


@pytest.mark.parametrize("name", ["in.flac", "in.wav"])
def test_a_fifo_is_opened_once(place, encode, decode, tmp_path, name):
    for verb, source, target, words in (
        (encode, place / name, tmp_path / "a.scx", ()),
        (decode, place / "in.scx", tmp_path / "a.flac", ("--json",)),
    ):
        fifo = tmp_path / f"fifo{source.suffix}"
        os.mkfifo(fifo)
        opened = []

        def feed(fifo=fifo, source=source, opened=opened):
            with open(fifo, "wb") as file:
                opened.append(1)
                file.write(source.read_bytes())

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        result = verb(fifo, target, *words)
        thread.join(5)
        assert (result.exit_code, opened, thread.is_alive()) == (0, [1], False), result.output
    assert soundfile.info(tmp_path / "a.flac").frames == N_SAMPLES


@pytest.mark.parametrize("fmt", ["u8", "s16le", "s24be", "f32le", "f64be", "mulaw"])
def test_bare_samples_are_coded_as_the_sound_that_they_are(place, encode, decode, tmp_path, fmt):
    sound = np.concatenate(list(read_blocks(place / "in.wav", 4096)))
    soundfile.write(tmp_path / "a.raw", sound, RATE_HZ, **pcm_layout(fmt))
    data = (tmp_path / "a.raw").read_bytes()
    layout = ("--format", fmt, "--rate", RATE_HZ, "--channels", 2)
    result, codes = piped(("IN", "OUT", *layout), data, run=encode)
    assert result.exit_code == 0, result.output
    assert encode(tmp_path / "a.raw", tmp_path / "a.scx", *layout).exit_code == 0
    result, back = piped(("IN", "OUT", "--format", fmt), codes, run=decode)
    assert result.exit_code == 0, result.output
    assert len(back) == len(data)
    (tmp_path / "b.raw").write_bytes(back)
    heard, _ = soundfile.read(tmp_path / "b.raw", samplerate=RATE_HZ, channels=2, **pcm_layout(fmt))
    assert decode(tmp_path / "a.scx", tmp_path / "c.wav").exit_code == 0
    atol = {"u8": 0.01, "mulaw": 0.05}.get(fmt, 1e-4)
    np.testing.assert_allclose(heard, soundfile.read(tmp_path / "c.wav")[0], atol=atol)


def test_decoded_sound_has_the_rate_that_was_asked_for(place, decode, tmp_path):
    assert decode(place / "in.scx", tmp_path / "a.wav", "--rate", 44_100).exit_code == 0
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.frames) == (44_100, round(N_SAMPLES * 44_100 / RATE_HZ))
    result, data = piped(
        ("IN", "OUT", "--rate", 8000, "--format", "s16le"), (place / "in.scx").read_bytes(), run=decode
    )
    assert (result.exit_code, len(data)) == (0, 4 * round(N_SAMPLES / 2))


def test_what_a_wav_in_a_pipe_says_of_its_length_may_be_unknown(place, encode, tmp_path):
    data = bytearray((place / "in.wav").read_bytes())
    at = data.index(b"data") + 4
    for stated in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        data[4:8] = data[at : at + 4] = stated.to_bytes(4, "little")
        result, codes = piped(("IN", "OUT", "--json"), bytes(data), run=encode)
        assert result.exit_code == 0, result.output
        assert f'"n_samples": {N_SAMPLES}' in result.output
        assert len(codes) > 500


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--format", "s16le"), "give --format and --rate"),
        (("--rate", 8000), "give --format and --rate"),
        (("--channels", 1), "give --format and --rate"),
        (("--format", "s17le", "--rate", 8000), "'s17le' is not one of"),
    ],
)
def test_bare_samples_must_be_described(place, encode, tmp_path, words, text):
    result = encode(place / "in.wav", tmp_path / "x.scx", *words)
    assert (result.exit_code, text in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("data", "words", "text"),
    [
        (b"", (), "cannot be read as a sound file"),
        (b"hello, this is a page and no sound", (), "cannot be read as a sound file"),
        (b"", ("--format", "s16le", "--rate", 8000), "holds no samples"),
        (bytes(6) + b"\x00\x00\xc0\x7f", ("--format", "f32le", "--rate", 8000, "--channels", 1), None),
        (bytes(8) + b"\x00\x00\xc0\x7f", ("--format", "f32le", "--rate", 8000), "must be finite"),
    ],
)
def test_a_pipe_without_sound_is_one_clear_line(encode, data, words, text):
    result, _ = piped(("IN", "OUT", *words), data, run=encode)
    if text is None:  # the last sample is not whole
        assert (result.exit_code, "last 2 bytes are no whole sample" in result.stderr) == (3, True)
        return
    assert (result.exit_code, result.stderr.count("\n"), text in result.stderr) == (1, 1, True), result.output


def test_dash_is_standard_input_and_output_and_reports_go_to_stderr(place):
    coded = subprocess.run(
        command("encode", "-", "-", "--json", *options(place)), input=(place / "in.wav").read_bytes(),
        capture_output=True, check=True,
    )  # fmt: skip
    report = json.loads(coded.stderr)
    assert (report["n_samples"], report["n_bytes"]) == (N_SAMPLES, len(coded.stdout))
    assert coded.stdout.startswith(b"\x89SCX")


def test_a_file_called_dash_is_a_file(place, encode, decode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.wav").write_bytes((place / "in.wav").read_bytes())
    assert encode("./-x.wav", "./-").exit_code == 0
    assert encode("--", "-x.wav", "-y.scx").exit_code == 0
    assert (tmp_path / "-").read_bytes() == (tmp_path / "-y.scx").read_bytes()
    assert decode("--strict", "--", "./-", "-z.wav").exit_code == 0
    assert soundfile.info(tmp_path / "-z.wav").frames == N_SAMPLES


@pytest.mark.parametrize(
    "name", ["a\nb.scx", os.fsdecode(b"\xff\xfe.scx"), "\x1b[31mred.scx", "{0}[b].scx", "会議" * 41 + "の.scx"]
)
def test_odd_names_are_written_and_shown_in_one_line(place, encode, decode, tmp_path, name, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    result = encode(place / "in.wav", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).exists()
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout
    result = decode(tmp_path / name, tmp_path / (name[:40] + ".flac"))
    assert result.exit_code == 0, result.output
    result = decode(tmp_path / name, tmp_path / "missing" / name)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output


def test_a_bar_shows_any_name(place, encode, tmp_path):
    from streamcodec.cli._options import progress_bar

    for name in ("{0}", "{task}", "[/red]", "a\nb", "\udcff"):
        with progress_bar(name) as bar:
            bar.start(None)
            bar.advance(1)
            assert bar._progress.columns[0].render(bar._progress.tasks[0]).plain.count("\n") == 0


RECORDINGS = {
    "encode over a sound": ("encode", "in.wav", "theirs.flac"),
    "encode over text": ("encode", "in.wav", "notes.txt"),
    "encode over its input": ("encode", "in.wav", "in.wav"),
    "decode over a sound": ("decode", "in.scx", "theirs.flac"),
    "decode over its input": ("decode", "in.scx", "in.scx", "--format", "wav"),
    "loopback over its input": ("loopback", "--fast", "--input", "in.wav", "--output", "in.wav"),
    "loopback over a sound": ("loopback", "--fast", "--input", "in.wav", "--output", "theirs.flac"),
    "call over a sound": ("call", "--listen", 0, "--seconds", 1, "--output", "theirs.flac"),
    "call over its input": ("call", "--listen", 0, "--seconds", 1, "--input", "in.wav", "--output", "in.wav"),
    "a picture over a sound": ("plot", "in.wav", "in.wav", "-o", "theirs.flac"),
    "a table over a sound": ("evaluate", "in.wav", "--csv", "theirs.flac"),
    "ratings over a sound": ("listen", "analyse", ".", "--csv", "theirs.flac"),
    "a picture of ratings over a sound": ("listen", "analyse", ".", "--plot", "theirs.flac"),
}


@pytest.mark.parametrize("words", RECORDINGS.values(), ids=RECORDINGS)
def test_somebodys_file_is_never_replaced_unasked(place, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name in ("in.wav", "in.scx"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    (tmp_path / "theirs.flac").write_bytes((place / "in.flac").read_bytes())
    (tmp_path / "notes.txt").write_text("notes")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = () if words[0] in ("plot", "evaluate", "listen") else options(place)[: 2 if words[0] == "decode" else 4]
    result = run(*words, *model)
    assert result.exit_code in (1, 2), result.output
    assert result.stderr.strip().splitlines()[-1].endswith(("give another name, or --force to replace it",
                                                            "give the output another name",
                                                            "give another name."))  # fmt: skip
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    if words[0] in ("encode", "decode", "loopback"):
        forced = run(*words, "--force", *model)
        same = "is the input" in result.stderr
        assert (forced.exit_code, "is the input" in forced.stderr) == (int(same), same)


@pytest.mark.parametrize("fmt", ["MP3", "W64", "AU", "NIST", "m4a", "scx"])
def test_tables_and_pictures_replace_no_sound_of_any_format(place, tmp_path, fmt):
    theirs = tmp_path / "theirs.png"
    if fmt == "m4a":
        theirs.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    elif fmt == "scx":
        theirs.write_bytes((place / "in.scx").read_bytes())
    else:
        soundfile.write(theirs, np.zeros(8000, np.float32), 8000, format=fmt)
    before = theirs.read_bytes()
    result = run("plot", place / "in.wav", place / "in.wav", "-o", theirs)
    assert result.exit_code == 2, result.output
    assert "is a sound file, which this would replace" in result.stderr
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("old", [b"", b"\x89PNG\r\n\x1a\n" + bytes(500), b"<html></html>", b"a,b\n1,2\n", b"{}"])
def test_tables_and_pictures_replace_older_ones(place, tmp_path, old):
    (tmp_path / "old.png").write_bytes(old)
    assert OUTPUT_FILE.convert(str(tmp_path / "old.png"), None, None) == tmp_path / "old.png"


def test_what_was_made_here_may_be_made_again(place, encode, decode, tmp_path):
    for _ in range(2):
        assert encode(place / "in.wav", tmp_path / "a.scx").exit_code == 0
        for suffix in ("wav", "flac", "ogg"):
            assert decode(tmp_path / "a.scx", tmp_path / f"a.{suffix}").exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["a.flac", "a.ogg", "a.scx", "a.wav"]


def test_damage_is_reported_with_what_was_done_and_what_to_do(place, decode, tmp_path):
    whole = (place / "in.scx").read_bytes()
    flipped = bytearray(whole)
    flipped[100] ^= 4
    end = bytearray(whole)
    end[-1] ^= 4
    for name, data, kind, said in (
        ("flipped.scx", flipped, "CorruptStream", "frame(s) of damaged blocks"),
        ("end.scx", end, "CorruptStream", "is damaged"),
        ("cut.scx", whole[:-20], "TruncatedStream", "the file ends"),
    ):
        (tmp_path / name).write_bytes(data)
        result = decode(tmp_path / name, tmp_path / "o.wav")
        assert result.exit_code == 3
        line = result.stderr.splitlines()[-1]
        assert line.startswith(f"{kind}: {tmp_path / name}: ")
        assert said in line
        assert f"{tmp_path / 'o.wav'} was written" in line
        assert line.endswith(f"get a whole copy of {name}.")
        assert "Ask for" not in result.stderr
        strict = decode(tmp_path / name, tmp_path / "strict.wav", "--strict")
        assert (strict.exit_code, (tmp_path / "strict.wav").exists()) == (1, False)
    assert "concealed" not in decode(place / "in.scx", tmp_path / "o.wav").output


def test_a_missing_folder_is_named(place, encode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = encode(place / "in.wav", "not/there/a.scx")
    assert (result.exit_code, result.stderr) == (
        *(1, "FileNotFoundError: not/there: there is no such folder to write a.scx to; make it first\n"),
    )


def test_a_reader_that_goes_ends_it_quietly_with_the_code_of_sigpipe(place):
    process = subprocess.Popen(
        command("decode", place / "in.scx", "-", *options(place)[:2]), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_report_that_finds_no_room_is_one_clear_line(place):
    for words in (("info", "base-24k"), ("info", "base-24k", "--json")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (1, b"OSError: standard output: No space left on device\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_and_is_told_by_the_exit_code(place, tmp_path, number):
    process = subprocess.Popen(
        command("encode", "-", tmp_path / "a.scx", *options(place)), stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    data = bytearray((place / "in.wav").read_bytes())
    data[data.index(b"data") + 4 :][:4] = b"\xff" * 4
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff" * 4
    process.stdin.write(data)
    process.stdin.flush()
    until = time.monotonic() + 60
    while not os.listdir(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert [name.endswith(".part") for name in os.listdir(tmp_path)] == [True]
    time.sleep(0.2)  # it waits for more sound now
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert process.stderr.read().decode().splitlines() == [f"stopped by {signal.Signals(number).name}"]
    assert not os.listdir(tmp_path)
    process.stdin.close()
    process.stderr.close()


def test_a_signal_waits_for_a_call_of_c_code_to_return():
    seen = []

    def held():
        with stopping_on_signals(), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            seen.append("went on")

    with pytest.raises(Stopped) as caught:
        held()
    assert (seen, caught.value.exit_code) == (["went on"], 128 + signal.SIGTERM)


def test_a_read_that_may_wait_for_ever_can_be_stopped():
    def waits():
        with stopping_on_signals(), uninterrupted(), interruptible():
            signal.raise_signal(signal.SIGHUP)
            pytest.fail("the read went on")

    with pytest.raises(Stopped):
        waits()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_signal_that_arrives_in_code_that_c_calls_is_not_lost():
    def swallowed():
        compare = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
        compare()

    def stop(seconds):
        with stopping_on_signals():
            swallowed()
            time.sleep(seconds)

    for seconds in (0, 30):
        began = time.monotonic()
        with pytest.raises(Stopped) as caught:
            stop(seconds)
        assert (caught.value.exit_code, time.monotonic() - began < 10) == (128 + signal.SIGTERM, True)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_on_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_loopback_takes_and_makes_pipes(place, tmp_path):
    def loopback(source, target):
        return run("loopback", "--fast", "--input", source, "--output", target, *options(place))

    write_audio(tmp_path / "short.wav", np.zeros(4000, np.float32), 8000)
    os.mkfifo(tmp_path / "out.wav")
    taken = []
    thread = threading.Thread(target=lambda: taken.append((tmp_path / "out.wav").read_bytes()))
    thread.start()
    result, _ = piped(("IN", tmp_path / "out.wav"), (tmp_path / "short.wav").read_bytes(), run=loopback)
    thread.join()
    assert result.exit_code == 0, result.output
    assert len(samples(taken[0], tmp_path)) == 4000


def test_closed_standard_streams_change_no_result(place, tmp_path):
    words = " ".join(map(str, command("encode", *options(place), place / "in.wav")))
    for closed in (">&-", "<&- >&- 2>&-"):
        target = tmp_path / "out.scx"
        done = subprocess.run(f"{words} {target} {closed}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, (closed, done.stderr)
        assert "Traceback" not in done.stderr
        assert target.read_bytes() == (place / "in.scx").read_bytes()
        target.unlink()


@pytest.mark.parametrize(
    ("source", "target", "closed", "named"),
    [("-", "out.scx", "<&-", "/dev/stdin: is not open for reading"),
     ("in.wav", "-", ">&-", "/dev/stdout: is not open for writing")],
)  # fmt: skip
def test_a_closed_stream_that_is_asked_for_is_named(place, source, target, closed, named, tmp_path):
    words = map(str, command("encode", *options(place), source))
    output = "-" if target == "-" else tmp_path / target
    done = subprocess.run(f"{' '.join(words)} {output} {closed}", shell=True, capture_output=True, text=True, cwd=place)
    assert (done.returncode, done.stderr) == (1, f"OSError: {named}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_help_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("--help"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "OSError: standard output: No space left on device\n")
