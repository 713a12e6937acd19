"""What can be wrong with sound devices is said in one clear line; a fake PortAudio has all the faults."""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from live_world import transparent_codec

from streamcodec.audio.devices import CaptureStream, PlaybackStream, find_device, list_devices
from streamcodec.audio.ring import Ring
from streamcodec.cli import main
from streamcodec.cli.loopback import _line
from streamcodec.errors import DeviceError
from streamcodec.live import LiveLoopback


class FakeStream:
    """Calls back from `tick`, as a device's thread would."""

    def __init__(self, fake, kind, **options):
        if options["device"] in fake.busy:
            raise fake.PortAudioError("Device unavailable")
        self.fake, self.kind, self.options = fake, kind, options
        self.latency, self.active = 0.02, True
        fake.streams.append(self)

    @property
    def time(self):
        return self.fake.now_s()

    def start(self):
        pass

    def abort(self):
        if self.fake.unplugged:
            raise self.fake.PortAudioError("Internal PortAudio error")
        self.active = False

    close = abort

    def tick(self, adc=0.005, status=None):
        block = np.full((self.options["blocksize"], self.options["channels"]), 0.25, np.float32)
        now_s = self.time
        times = SimpleNamespace(currentTime=now_s, inputBufferAdcTime=now_s - adc, outputBufferDacTime=now_s + adc)
        self.options["callback"](block, len(block), times, status)
        return block


class FakePortAudio:
    class PortAudioError(Exception):
        pass

    def __init__(self):
        self.streams, self.busy, self.unplugged = [], set(), False
        self.rates = {0: {24_000, 48_000}, 1: {48_000}, 2: set()}
        self.clock_s = None
        self.entries = [
            self.entry("Mic Array", 2, 0, 48_000),
            self.entry("Speakers", 0, 2, 48_000),
            self.entry("Odd box", 1, 1, 96_000),
        ]

    @staticmethod
    def entry(name, n_in, n_out, rate_hz):
        return {"name": name, "hostapi": 0, "max_input_channels": n_in, "max_output_channels": n_out,
                "default_samplerate": float(rate_hz)}  # fmt: skip

    def now_s(self):
        return time.monotonic() if self.clock_s is None else self.clock_s

    def query_hostapis(self):
        return [{"name": "ALSA"}]

    def query_devices(self, kind=None):
        if kind is None:
            return self.entries
        column = f"max_{kind}_channels"
        for index, entry in enumerate(self.entries):
            if entry[column]:
                return {**entry, "index": index}
        raise self.PortAudioError("no default")

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate not in self.rates[device]:
            raise self.PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def InputStream(self, **options):
        return FakeStream(self, "input", **options)

    def OutputStream(self, **options):
        return FakeStream(self, "output", **options)


@pytest.fixture
def audio(monkeypatch):
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
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
    with pytest.raises(DeviceError, match="loopback --output FILE"):
        find_device(None, "input")
    listed = CliRunner().invoke(main, ["devices"])
    assert "No sound devices here" in listed.output

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
    audio.streams[0].tick(adc=-77.0)  # a driver that does not know: its buffer is taken for the delay
    assert capture.timeline.time_of(240) == pytest.approx(100.01 - 0.02)


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
    assert ring.readable_samples == 0


def test_an_unplugged_device_ends_the_run_with_its_name(audio, monkeypatch):
    monkeypatch.setattr("streamcodec.live.session._PATIENCE_S", 0.3)
    monkeypatch.setattr("streamcodec.live.session._LONGEST_SETTLING_S", 0.1)
    loopback = LiveLoopback(transparent_codec(), latency_ms=150)
    with loopback.running() as running:
        for _ in range(20):
            for stream in audio.streams:
                stream.tick()
            running.wait(0.01)
        audio.unplugged = True
        with pytest.raises(DeviceError, match=r"\((Mic Array|Speakers)\) stopped: no sound for"):
            running.wait(5)


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
            while stream.active and not audio.unplugged:
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
    result = CliRunner().invoke(main, ["loopback", "--json"])
    assert result.exit_code == 0, result.output
    assert '"mouth_to_ear"' in result.output
    assert not [stream for stream in running_audio.streams if stream.active]


def test_the_live_line_shows_what_matters(running_audio):
    loopback = LiveLoopback(transparent_codec())
    with loopback.running() as running:
        running.wait(1.5)
        line = _line(loopback)
    for word in ("mouth to ear", "p99", "rings", "xruns", "6.00 kbps", "in ", "out "):
        assert word in line


def test_a_call_that_nobody_answers_says_so(running_audio):
    result = CliRunner().invoke(main, ["call", "--to", "127.0.0.1:9", "--seconds", "0.4"])
    assert result.exit_code == 0, result.output
    assert "not encrypted" in result.output
    assert "nobody answered" in result.output
