"""Every demo runs, is short, and uses nothing private."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamcodec.checkpoint import load_checkpoint
from streamcodec.cli.loopback import sample_path
from streamcodec.errors import CheckpointError

DEMOS = sorted((Path(__file__).parents[1] / "demos").glob("*.py"))
PUBLIC = {"streamcodec", "streamcodec.live"}


def run(name, *arguments):
    try:
        load_checkpoint(None)
    except CheckpointError as error:
        pytest.skip(f"no weights to run: {error}")
    path = next(demo for demo in DEMOS if demo.name == name)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", path, *map(str, arguments)],
        capture_output=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def correlation_of_loudness(said, heard, longest_delay_s):
    """Best correlation of the two envelopes over delays, in steps of 10 ms."""
    levels = []
    for path in (said, heard):
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        step = rate_hz // 100
        rows = sound[: len(sound) // step * step, 0].reshape(-1, step)
        levels.append(np.log(np.sqrt((rows**2).mean(axis=1)) + 1e-3))
    a, b = (level + 1e-6 * np.arange(len(level)) for level in levels)  # silence has no correlation
    return max(
        np.corrcoef(a[50 : min(len(a), len(b) - delay)], b[50 + delay : len(a) + delay])[0, 1]
        for delay in range(round(100 * longest_delay_s))
    )


@pytest.fixture
def speech(tmp_path):
    sound, rate_hz = soundfile.read(sample_path(), dtype="float32")
    soundfile.write(tmp_path / "said.wav", sound[: 3 * rate_hz], rate_hz)
    return tmp_path / "said.wav"


def test_many_streams():
    pytest.importorskip("torch", reason="a batch needs torch")
    printed = run("many_streams.py", "--streams", 3, "--seconds", 0.5, "--device", "cpu")
    callers, frames = (int(printed.split(what)[0].split()[-1]) for what in (" callers", " frames"))
    assert callers >= 3
    assert 38 < frames <= 3 * 38
    assert "in 38 steps of" in printed


def test_file_stream(speech, tmp_path):
    printed = run("file_stream.py", speech, tmp_path / "heard.wav", "--loss", "0.1")
    assert "225 packets, 6000 bps" in printed
    assert correlation_of_loudness(speech, tmp_path / "heard.wav", 0.05) > 0.7


def test_mic_loopback_with_files(speech, tmp_path):
    printed = run("mic_loopback.py", "--input", speech, "--output", tmp_path / "heard.wav", "--seconds", "8")
    assert "at 6.00 kbps" in printed
    assert "mouth to ear: p50" in printed
    assert correlation_of_loudness(speech, tmp_path / "heard.wav", 0.3) > 0.7


def test_udp_call(speech, tmp_path):
    pytest.importorskip("cryptography", reason="cryptography is not installed (pip install 'streamcodec[call]')")
    printed = run("udp_call.py", speech, tmp_path / "heard.wav", "--seconds", "3.5")
    assert "encrypted: True" in printed
    assert "'forged': 0" in printed
    assert correlation_of_loudness(speech, tmp_path / "heard.wav", 0.5) > 0.6


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_a_listening_call_stops_cleanly_at_ctrl_c(speech, tmp_path):
    heard = tmp_path / "heard.wav"
    program = "from streamcodec.cli import main; main()"
    listener = subprocess.Popen(
        [sys.executable, "-c", program, "call", "--listen", "0", "--host", "127.0.0.1", "--output", heard],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits that it is ignored
    )  # fmt: skip
    while b"not encrypted" not in (line := listener.stderr.readline()) and line:
        pass
    time.sleep(1.5)
    listener.send_signal(signal.SIGINT)
    out, error = listener.communicate(timeout=60)
    assert listener.returncode == 0, error.decode()
    assert b"nobody answered" in out
    assert soundfile.info(heard).duration > 0.2


def test_embed_asyncio():
    assert "150 frames played" in run("embed_asyncio.py", "--seconds", "2", "--speed", "4")


@pytest.mark.parametrize("path", DEMOS, ids=lambda path: path.name)
def test_a_demo_is_short_and_public(path):
    text = path.read_text()
    assert len(text.splitlines()) < 100
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "streamcodec":
            assert node.module in PUBLIC
            assert not any(alias.name.startswith("_") for alias in node.names)
