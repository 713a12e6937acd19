"""What can be wrong with sound devices is said in one clear line; a fake PortAudio has all the faults."""

import itertools
import json
import re
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from fake_portaudio import FakePortAudio, FakeStream
from live_world import transparent_codec

from streamcodec.audio.devices import CaptureStream, PlaybackStream, find_device, list_devices
from streamcodec.audio.ring import Ring
from streamcodec.cli import main
from streamcodec.cli._live import meter, run_until_stopped
from streamcodec.cli.loopback import _line
from streamcodec.errors import DeviceError
from streamcodec.live import LatencyHistogram, LiveLoopback


@pytest.fixture
def audio(monkeypatch):
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("streamcodec.audio.devices.perf_counter", fake.now_s)  # the program's clock turns with it
    return fake


def test_devices_are_found_by_number_name_and_default(audio):
    assert find_device(None, "input").name == "Mic Array"
    assert find_device(None, "output").name == "Speakers"
    assert find_device("2", "output").name == "Odd box"
    assert find_device("speak", "output").number == 1
    assert [device.default_input for device in list_devices()] == [True, False, False]


@pytest.mark.parametrize(
    ("wanted", "says"), [("mic", "is no output device"), ("9", "is no output device"), ("speak", "several")]
)
def test_a_device_that_is_not_there_or_not_clear_lists_those_that_are(audio, wanted, says):
    audio.entries[2]["name"] = "Odd speaker box"
    with pytest.raises(DeviceError, match=says) as caught:
        find_device(wanted, "output")
    assert "1 Speakers" in str(caught.value)


def test_no_device_and_no_portaudio_point_to_files(audio, monkeypatch):
    audio.entries = []
    with pytest.raises(DeviceError, match="call take --input FILE and --output FILE"):
        find_device(None, "input")
    listed = CliRunner().invoke(main, ["devices"])
    assert "No sound devices here" in listed.output
    for words in (["loopback"], ["call", "--to", "127.0.0.1:9"], ["call", "--listen", "0"]):
        tried = CliRunner().invoke(main, words)
        assert tried.exit_code == 1
        assert tried.stderr.splitlines() == [tried.stderr.strip()]
        assert "there is no sound input device here; connect one, or work with files" in tried.stderr
        options = CliRunner().invoke(main, [words[0], "--help"]).output
        assert all(option in options for option in re.findall(r"--\w+", tried.stderr))

    class Missing:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        list_devices()


def test_devices_command_prints_what_selects_them(audio):
    listed = CliRunner().invoke(main, ["devices"])
    assert listed.exit_code == 0
    assert "0  Mic Array (ALSA)  in 2, out 0, 48000 Hz  [default input]" in listed.output
    assert '"name": "Speakers"' in CliRunner().invoke(main, ["devices", "--json"]).output


def test_a_device_that_refuses_the_codecs_rate_is_used_at_its_own(audio):
    assert CaptureStream(find_device("0", "input"), 24_000, 10, 40).rate_hz == 24_000
    assert PlaybackStream(find_device("1", "output"), 24_000, 10, 40).rate_hz == 48_000
    with pytest.raises(DeviceError, match=r"at any usual rate: Invalid sample rate; see `streamcodec devices`"):
        CaptureStream(find_device("2", "input"), 24_000, 10, 40)


def test_a_busy_device_is_named(audio):
    audio.busy = {1}
    stream = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)
    with pytest.raises(DeviceError, match=r"output device 1 \(Speakers\) cannot be opened: Device unavailable"):
        stream.start(Ring(4800, 1))


def test_callbacks_mark_when_samples_were_in_the_air(audio):
    audio.clock_s = 100.0
    capture = CaptureStream(find_device(None, "input"), 24_000, 10, 40)
    playback = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)
    rings = Ring(4800, 1), Ring(9600, 1)
    capture.start(rings[0])
    playback.start(rings[1])
    rings[1].write(np.ones((4000, 1), np.float32))
    audio.streams[0].tick(adc=0.005)
    assert rings[0].readable_samples == 240
    assert capture.timeline.time_of(0) == pytest.approx(99.995)
    assert (audio.streams[1].tick(adc=0.01, status="output underflow") == 1).all()
    assert playback.xruns == 1
    assert playback.timeline.time_of(0) == pytest.approx(100.01)
    audio.clock_s = 100.01
    audio.streams[0].tick(adc=0.005, status="input overflow")
    assert capture.xruns == 1
    rings[0].commit_read(240)
    audio.clock_s = 100.02
    audio.streams[0].tick(adc=-77.0)  # a driver that does not know: its buffer is taken for the delay
    assert capture.timeline.time_of(480) == pytest.approx(100.02 - 0.02)


def test_what_waited_through_a_pause_of_the_speaker_is_too_old_to_be_heard(audio):
    audio.clock_s = 5.0
    playback = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)
    ring = Ring(9600, 1)
    playback.start(ring)
    ring.write(np.ones((4800, 1), np.float32))
    audio.streams[0].tick()
    audio.clock_s = 6.0
    assert (audio.streams[0].tick() == 0).all()
    assert playback.pauses == 1
    assert playback.skipped_samples == 4800 - 480
    assert ring.readable_samples == 0


@pytest.mark.parametrize("unplugged", [0, 1])
def test_an_unplugged_device_ends_the_run_with_its_name(audio, monkeypatch, unplugged):
    monkeypatch.setattr("streamcodec.live.session._PATIENCE_S", 0.3)
    monkeypatch.setattr("streamcodec.live.session._LONGEST_SETTLING_S", 0.1)
    loopback = LiveLoopback(transparent_codec(), latency_ms=150)
    with loopback.running() as running:
        for _ in range(20):
            for stream in audio.streams:
                stream.tick()
            running.wait(0.01)
        audio.unplugged = True
        stays = [stream for stream in audio.streams if stream.options["device"] != unplugged]
        with pytest.raises(DeviceError, match=rf"\({audio.entries[unplugged]['name']}\) stopped: no sound for"):
            keep_ticking(running, stays)


def keep_ticking(running, streams):
    for _ in range(200):
        for stream in streams:
            stream.tick()
        running.wait(0.01)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_device_whose_driver_gives_errors_ends_the_run_too(audio, monkeypatch, at_once):
    def inactive(stream):
        raise audio.PortAudioError("Invalid stream pointer")

    monkeypatch.setattr("streamcodec.live.session._PATIENCE_S", 0.2)
    monkeypatch.setattr("streamcodec.live.session._LONGEST_SETTLING_S", 0.1)
    monkeypatch.setattr(FakeStream, "active", property(inactive, lambda stream, value: None), raising=False)
    audio.gone = at_once
    says = "Error getting stream time" if at_once else "Invalid stream pointer"
    with (
        LiveLoopback(transparent_codec()).running() as running,
        pytest.raises(DeviceError, match=rf"stopped: {says}; see `streamcodec devices`"),
    ):
        keep_ticking(running, [] if at_once else audio.streams)


def test_loopback_reports_and_names_the_device_that_was_unplugged(running_audio, monkeypatch):
    monkeypatch.setattr("streamcodec.live.session._PATIENCE_S", 0.3)
    running_audio.ticks_to_unplug = 150
    result = CliRunner().invoke(main, ["loopback", "--seconds", "60", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["frames_sent"] > 10
    assert "stopped: no sound for" in result.stderr
    assert "see `streamcodec devices` and choose another" in result.stderr


def test_loopback_runs_on_two_devices_of_different_rates(audio):
    loopback = LiveLoopback(transparent_codec())
    assert (loopback.devices.capture.rate_hz, loopback.devices.playback.rate_hz) == (24_000, 48_000)
    with loopback.running() as running:
        for _ in range(150):
            for stream in audio.streams:
                block = stream.tick()
            running.wait(0.01)
    report = loopback.report()
    assert report["frames_decoded"] > 30
    assert report["mouth_to_ear"]["count"] > 20
    assert block[0, 0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["loopback", "--fast"], "go with --output FILE"),
        (["loopback", "--output", "x.wav", "--input-device", "1"], "runs without devices"),
        (["call"], "either --listen PORT or --to HOST:PORT"),
        (["call", "--listen", "5004", "--to", "host:5004"], "either --listen PORT or --to HOST:PORT"),
        (["call", "--listen", "5004", "--output", "x.wav", "--input-device", "1"], "leave out the options of devices"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(arguments, says):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.output


@pytest.fixture
def running_audio(audio, monkeypatch):
    """Devices whose threads call back every 10 ms, and a codec that costs nothing."""

    def start(stream):
        def call_back():
            for ticks in itertools.count():
                if not stream.active or audio.unplugged:
                    return
                if ticks == audio.ticks_to_unplug:
                    audio.unplugged = True
                stream.tick()
                time.sleep(0.01)

        threading.Thread(target=call_back, daemon=True).start()

    monkeypatch.setattr(FakeStream, "start", start)
    monkeypatch.setattr("streamcodec.codec.Codec.load", lambda *_, **__: transparent_codec())
    return audio


def test_loopback_prints_every_part_of_the_latency_and_draws_it(running_audio, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'streamcodec[eval]')")
    plot = tmp_path / "latency.png"
    result = CliRunner().invoke(main, ["loopback", "--seconds", "1.5", "--latency-ms", "20", "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert "aiming for" in result.output
    for part in ("capture device", "capture ring", "encode", "jitter buffer", "decode", "playback ring",
                 "playback device", "mouth to ear", "algorithmic 14.0 ms"):  # fmt: skip
        assert part in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_stops_cleanly_and_still_reports(running_audio, monkeypatch):
    waits = []

    def wait(self, seconds):
        waits.append(seconds)
        if len(waits) > 3:
            raise KeyboardInterrupt
        time.sleep(0.3)
        return True

    monkeypatch.setattr("streamcodec.live.session.PumpThread.wait", wait)
    running_audio.rates[2] = {24_000}
    result = CliRunner().invoke(main, ["loopback", "--json", "--input-device", "2", "--output-device", "odd"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["mouth_to_ear"]["p50_ms"] > 0
    assert [side["number"] for side in report["devices"].values()] == [2, 2]
    assert not [stream for stream in running_audio.streams if stream.active]


def test_the_live_line_shows_what_matters(running_audio):
    loopback = LiveLoopback(transparent_codec())
    with loopback.running() as running:
        running.wait(1.5)
    pipeline = loopback.pipeline
    assert _line(loopback).endswith(f"6.00 kbps  in {meter(0.25)} out {meter(0.25)}")
    xruns = int(_line(loopback).split("xruns ")[1].split()[0])
    loopback.devices.capture.xruns += 40
    loopback.devices.playback.xruns += 30
    pipeline.receiver.last_mouth_to_ear_ms, pipeline.receiver.mouth_to_ear = 123.4, LatencyHistogram()
    for delay_ms in [50.0] * 98 + [500.0] * 2:
        pipeline.receiver.mouth_to_ear.record(delay_ms)
    pipeline.sender.level, pipeline.receiver.level = 1.0, 0.0
    line = _line(loopback)
    assert line.startswith("mouth to ear 123.4 ms (p99 500.0)  rings ")
    assert f"| {pipeline.receiver.ring_ms:3.0f} ms  xruns {xruns + 70}  " in line
    assert line.endswith(f"in {meter(1.0)} out {meter(0.0)}")
    assert (meter(1.0), meter(0.0)) == ("█", " ")


def test_the_live_line_is_redrawn_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    answers, shown = iter([True, True, False]), iter("ab")
    run_until_stopped(SimpleNamespace(wait=lambda seconds: next(answers)), None, lambda: f"line {next(shown)}")
    assert capsys.readouterr().err == "\r\x1b[Kline a\r\x1b[Kline b\n"


def test_a_call_that_nobody_answers_says_so(running_audio):
    result = CliRunner().invoke(main, ["call", "--to", "127.0.0.1:9", "--seconds", "0.4"])
    assert result.exit_code == 1, result.output
    assert "not encrypted" in result.output
    assert "0 heard" in result.stdout
    assert "CallError: nobody answered" in result.stderr.splitlines()[-1]
    asked = CliRunner().invoke(main, ["call", "--to", "127.0.0.1:9", "--seconds", "0.2", "--json"])
    assert asked.exit_code == 1
    assert json.loads(asked.stdout, parse_constant=pytest.fail)["jitter_buffer"]["p99_ms"] is None
