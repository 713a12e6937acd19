"""Files in place of a microphone: a call ends with their sound, whatever their headers promise."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from small_models import small_checkpoint
from sound_files import RATE_HZ, made, tone

from streamcodec.cli import main
from streamcodec.codec import Codec
from streamcodec.errors import AudioError
from streamcodec.live.file_devices import _as_it_comes
from streamcodec.live.file_loopback import run_file_loopback


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    small_checkpoint(path)
    return path


def flac(seconds: float, promised_s: float) -> bytes:
    """A FLAC file whose header tells of another length than it has; 0 is none."""
    data = made(tone(seconds), "FLAC")
    return data[:21] + bytes([data[21] & 0xF0]) + round(promised_s * RATE_HZ).to_bytes(4, "big") + data[26:]


@pytest.mark.parametrize(("promised_s", "told"), [(300, True), (0, False)])
def test_a_call_ends_with_the_sound_of_its_file(tmp_path, model, promised_s, told):
    source, heard = tmp_path / "said.flac", tmp_path / "heard.wav"
    source.write_bytes(flac(0.6, promised_s))
    began_s = time.monotonic()
    result = CliRunner().invoke(
        main, ["call", "--listen", "0", "--host", "127.0.0.1", "--input", str(source), "--output", str(heard),
               "--model", str(model), "--bitrate", "2.4"],
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "nobody answered" in result.stderr
    assert time.monotonic() - began_s < 60
    assert 0.6 < soundfile.info(heard).duration < 10
    assert (f"{source}: 0.60 s of 300.00 s could be read" in result.stderr) == told


def test_loopback_between_files_says_what_was_not_read_exits_with_3_and_keeps_all_that_was(tmp_path, model):
    for promised_s, told in ((30, True), (0, False)):
        (tmp_path / "a.flac").write_bytes(flac(0.5, promised_s))
        result = CliRunner().invoke(
            main, ["loopback", "--input", str(tmp_path / "a.flac"), "--output", str(tmp_path / "b.wav"), "--fast",
                   "--model", str(model), "--bitrate", "2.4"],
        )  # fmt: skip
        assert result.exit_code == (3 if told else 0), result.output
        assert ("a.flac: 0.50 s of 30.00 s could be read" in result.stderr) == told
        assert soundfile.info(tmp_path / "b.wav").frames == round(0.5 * RATE_HZ)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_call_whose_sound_goes_to_standard_output_reports_on_stderr(tmp_path, model, as_json):
    (tmp_path / "said.flac").write_bytes(flac(0.4, 0.4))
    result = subprocess.run(
        [sys.executable, "-m", "streamcodec", "call", "--listen", "0", "--host", "127.0.0.1", "--input",
         str(tmp_path / "said.flac"), "--output", "-", "--model", str(model), "--bitrate", "2.4",
         *(["--json"] if as_json else [])],
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith(b"RIFF")
    for word in (b"datagrams", b"malformed"):
        assert word in result.stderr
        assert word not in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="named pipes are those of POSIX")
@pytest.mark.parametrize("closes", [False, True])
def test_a_call_goes_on_and_ends_where_its_pipe_delivers_nothing(tmp_path, model, closes):
    """What came through the pipe is heard, and a pipe that stays open holds up neither recording nor end."""
    pipe, heard = tmp_path / "pipe", tmp_path / "heard.wav"
    os.mkfifo(pipe)
    said = made(tone(0.6), "WAV")
    at = said.index(b"data") + 4
    said = said[:at] + b"\xff" * 4 + said[at + 4 :]
    call = subprocess.Popen(
        [sys.executable, "-m", "streamcodec", "call", "--listen", "0", "--host", "127.0.0.1", "--input", str(pipe),
         "--output", str(heard), "--model", str(model), "--bitrate", "2.4", *([] if closes else ["--seconds", "2"])],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    writer = pipe.open("wb")
    try:
        writer.write(said)
        writer.flush()
        if closes:
            writer.close()
        _, err = call.communicate(timeout=90)
    finally:
        call.kill()
        writer.close()
    assert call.returncode == 1
    assert b"nobody answered" in err
    assert soundfile.info(heard).duration > (0.6 if closes else 1.5)


def test_frames_of_a_pipe_come_in_order_with_silence_where_they_are_late():
    frames = [np.full((1, 4), number, np.float32) for number in range(1, 41)]
    late = threading.Event()

    def delivered():
        yield from frames[:20]
        late.wait()
        yield from frames[20:]

    silence = np.zeros((1, 4), np.float32)
    came, silent = [], 0
    for frame in _as_it_comes(delivered(), silence):
        if frame is silence:
            silent += 1
            if len(came) == 20:
                late.set()
            time.sleep(0.001)
        else:
            came.append(frame)
    assert silent > 0
    assert late.is_set()
    assert [frame[0, 0] for frame in came] == list(range(1, 41))


def test_an_error_in_a_pipe_is_told():
    def broken():
        yield np.zeros((1, 4), np.float32)
        raise AudioError("sample 7 is nan")

    with pytest.raises(AudioError, match="sample 7 is nan"):
        list(itertools.islice(_as_it_comes(broken(), np.zeros((1, 4), np.float32)), 10**7))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of a file")
def test_a_loopback_that_fails_midway_prints_one_line_and_leaves_no_object_frozen(tmp_path, model):
    source, target = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(source, tone(2.0), RATE_HZ)
    words = ["loopback", "--input", source, "--output", target, "--fast", "--model", model, "--bitrate", "2.4"]
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
    program = limited + "from streamcodec.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"OSError: {target}: File too large\n")

    def fail(_: int) -> None:
        raise RuntimeError("no more")

    before = gc.get_freeze_count()
    with pytest.raises(RuntimeError, match="no more"):
        run_file_loopback(Codec.load(model), source, target, 2400, paced=False, progress=fail)
    assert gc.get_freeze_count() <= before
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_call_that_nobody_answers_leaves_an_older_recording_as_it_was(tmp_path, model):
    said, heard = tmp_path / "said.wav", tmp_path / "heard.wav"
    said.write_bytes(made(tone(0.3), "WAV"))
    words = ["call", "--listen", "0", "--host", "127.0.0.1", "--input", str(said), "--output", str(heard)]
    words += ["--model", str(model), "--bitrate", "2.4"]
    assert CliRunner().invoke(main, words).exit_code == 1
    recorded = heard.read_bytes()
    assert soundfile.info(heard).duration > 0.2
    said.write_bytes(made(tone(0.6), "WAV"))
    assert CliRunner().invoke(main, words).exit_code == 1
    assert heard.read_bytes() == recorded
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heard.wav", "said.wav"]
