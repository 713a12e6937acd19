"""Whatever drivers say of their devices, the others are listed, and what can be opened is opened."""

import itertools
import json
import math
import sys
import unicodedata

import numpy as np
import pytest
from click.testing import CliRunner
from fake_portaudio import FakePortAudio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_world import transparent_codec

from streamcodec.audio.devices import CaptureStream, PlaybackStream, find_device, list_devices
from streamcodec.audio.ring import Ring
from streamcodec.cli import main
from streamcodec.errors import DeviceError
from streamcodec.live import LiveLoopback


@pytest.fixture
def audio(monkeypatch):
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("streamcodec.audio.devices.perf_counter", fake.now_s)
    return fake


def unreadable(name):
    """What the binding raises for a name that is not UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError("that is UTF-8")


@pytest.mark.parametrize(
    ("entry", "shown", "problem"),
    [
        (unreadable("Gerät".encode("latin-1")), "Ger\ufffdt", "its name is not UTF-8"),
        (unreadable("マイク".encode("shift-jis")), "\ufffd}\ufffdC\ufffdN", "its name is not UTF-8"),
        (FakePortAudio.PortAudioError("Error querying\n1"), "unnamed", "PortAudio says: Error querying 1"),
        ({"name": "half told"}, "half told", "describes it incompletely"),
        (FakePortAudio.entry("box", None, 2, 48_000), "box", "describes it incompletely"),
        (None, "unnamed", "describes it incompletely"),
    ],
)
def test_a_device_that_cannot_be_described_hides_no_other(audio, entry, shown, problem):
    audio.entries[1] = entry
    listed = CliRunner().invoke(main, ["devices"])
    assert listed.exit_code == 0, listed.output
    lines = listed.output.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert lines[1].startswith(f"  1  {shown}  cannot be used: ")
    assert problem in lines[1]
    told = json.loads(CliRunner().invoke(main, ["devices", "--json"]).stdout)["devices"]
    assert [(device["name"], bool(device["problem"])) for device in told] == [
        ("Mic Array", False), (shown, True), ("Odd box", False),
    ]  # fmt: skip
    assert find_device(None, "output").number == 2
    with pytest.raises(DeviceError, match=rf"'1' cannot be used: .*{problem}.*; choose by number: 2 Odd box \(ALSA\)"):
        find_device("1", "output")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "unnamed"),
        (None, "unnamed"),
        (" \r\n", "unnamed"),
        ("Line\r\nIn", "Line In"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("half a pair \ud83c", "half a pair \ufffd"),
        (b"bytes \xff", "bytes \ufffd"),
        ("マイク　１", "マイク １"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso-8859-1"])
def test_any_name_is_shown_in_any_terminal(audio, name, shown, encoding):
    audio.entries[0]["name"] = name
    audio.apis[0]["name"] = name
    listed = CliRunner(charset=encoding).invoke(main, ["devices"])
    assert listed.exit_code == 0, listed.exception
    expected = shown.encode(encoding, "replace").decode(encoding)
    assert listed.output.splitlines()[0].startswith(f"  0  {expected} ({expected})  in 2, out 0")
    assert find_device("0", "input").name == shown


def test_the_last_devices_may_vanish_while_they_are_listed(audio):
    told = audio.query_devices

    def query_devices(device=None, kind=None):
        if kind is None and device in (None, 2):
            raise audio.PortAudioError("Error querying device 2")
        return told(device, kind)

    audio.query_devices = query_devices
    assert [device.name for device in list_devices()] == ["Mic Array", "Speakers"]


@pytest.mark.parametrize("apis", [[unreadable(b"\xe9")], [RuntimeError("no host")], [], [{}], [{"name": None}]])
def test_host_apis_that_fail_cost_their_names_only(audio, apis):
    audio.apis = apis
    assert [device.name for device in list_devices()] == ["Mic Array", "Speakers", "Odd box"]
    assert CliRunner().invoke(main, ["devices"]).exit_code == 0


@pytest.mark.parametrize("fault", [ValueError("Not an input device"), unreadable(b"\xe9"), KeyError("index"), None])
def test_without_a_default_device_the_first_is_taken(audio, fault):
    told = audio.query_devices

    def query_devices(device=None, kind=None):
        if kind is None:
            return told(device)
        if fault is None:
            return {"index": -1}
        raise fault

    audio.query_devices = query_devices
    assert not any(device.default_input or device.default_output for device in list_devices())
    assert (find_device(None, "input").number, find_device(None, "output").number) == (0, 1)


def test_where_only_devices_are_that_cannot_be_described_one_line_says_which(audio):
    audio.entries = [unreadable(b"m\xfcller")]
    tried = CliRunner().invoke(main, ["loopback"])
    assert tried.exit_code == 1
    assert "no sound input device here (0 m\ufffdller cannot be used: its name is not UTF-8" in tried.stderr
    assert tried.stderr.count("\n") == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_devices_never_ends_in_a_traceback(audio, data):
    odd = st.none() | st.integers(-3, 200) | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
    faults = st.sampled_from([audio.PortAudioError("gone"), unreadable(b"\xff"), OSError("host"), ValueError("odd")])
    keys = ["name", "hostapi", "max_input_channels", "max_output_channels", "default_samplerate"]
    devices = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, odd))
    audio.entries = data.draw(st.lists(faults | devices | odd, max_size=4))
    audio.apis = data.draw(st.lists(faults | st.fixed_dictionaries({}, optional={"name": odd}), max_size=2))
    for words in (["devices"], ["devices", "--json"]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code in (0, 1)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 0 or result.stderr.startswith("DeviceError: PortAudio cannot list the devices: ")


def test_a_part_of_a_name_that_fits_several_tells_them_apart(audio):
    audio.apis = [{"name": "MME"}, {"name": "WASAPI"}]
    audio.entries = [audio.entry(name, 0, 2, 48_000) for name in ("Desk", "Desk", "Desk lamp", "808", "Mu\u0308ller")]
    audio.entries[1]["hostapi"] = 1
    with pytest.raises(DeviceError, match=r"'desk' fits several; choose by number: 0 Desk \(MME\), 1 Desk \(WASAPI\)$"):
        find_device("desk", "output")
    with pytest.raises(DeviceError, match=r"'DES' fits several.*2 Desk lamp \(MME\)"):
        find_device("DES", "output")
    assert find_device("desk  LAMP", "output").number == 2
    assert find_device("808", "output").number == 3
    assert find_device(unicodedata.normalize("NFC", "mü"), "output").number == 4


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 8, 16, 32, 128])
def test_a_device_that_opens_with_all_its_channels_only_is_opened(audio, channels):
    audio.entries[:2] = audio.entry("Array", channels, 0, 48_000), audio.entry("Surround", 0, channels, 48_000)
    audio.channels = {0: {channels}, 1: {channels}}
    capture = CaptureStream(find_device(None, "input"), 24_000, 10, 40)
    playback = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)
    assert (capture.channels, capture.ring_channels) == (channels, 1)
    assert (playback.channels, playback.ring_channels) == (channels, 2)
    rings = Ring(4800, 1), Ring(9600, 2)
    capture.start(rings[0])
    playback.start(rings[1])
    audio.streams[0].tick()
    heard = np.zeros((240, 1), np.float32)
    assert rings[0].read_into(heard) == 240
    assert (heard == 0.25).all()  # of the others the microphone gives 9
    rings[1].write(np.full((480, 2), 0.5, np.float32))
    block = audio.streams[1].tick()
    assert (block[:, :2] == 0.5).all()
    assert block.shape == (480, channels)
    assert not block[:, 2:].any()


def test_a_loopback_runs_from_six_channels_to_eight(audio):
    audio.entries[:2] = audio.entry("Array", 6, 0, 48_000), audio.entry("Surround", 0, 8, 48_000)
    audio.channels = {0: {6}, 1: {8}}
    loopback = LiveLoopback(transparent_codec())
    with loopback.running() as running:
        for _ in range(150):
            for stream in audio.streams:
                block = stream.tick()
                if stream.kind == "output":
                    played = block
            running.wait(0.01)
    assert loopback.report()["frames_decoded"] > 15
    assert np.allclose(played[:, :2], 0.25, atol=0.02)
    assert not played[:, 2:].any()


@pytest.mark.parametrize(
    ("rate_hz", "default_hz"), [(96_000, 48_000), (11_025, 11_025), (8_000, 0), (88_200, math.nan)]
)
def test_a_device_that_takes_one_odd_rate_only_is_opened_at_it(audio, rate_hz, default_hz):
    audio.entries[0] = audio.entry("Line", 6, 0, default_hz)
    audio.rates[0], audio.channels[0] = {rate_hz}, {4}
    stream = CaptureStream(find_device("line", "input"), 24_000, 10, 40)
    assert (stream.rate_hz, stream.channels, stream.ring_channels) == (rate_hz, 4, 1)


def test_mono_and_stereo_are_preferred(audio):
    audio.entries[0] = audio.entry("Array", 8, 0, 48_000)
    audio.channels[0] = {2, 8}
    stream = CaptureStream(find_device("0", "input"), 24_000, 10, 40)
    assert (stream.rate_hz, stream.channels, stream.ring_channels) == (24_000, 2, 2)


@pytest.mark.parametrize("fault", [ValueError("no such format"), unreadable(b"\xe9"), RuntimeError("driver")])
def test_whatever_a_driver_raises_when_it_is_opened_is_one_line(audio, fault):
    stream = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)

    def fail(**options):
        raise fault

    audio.OutputStream = fail
    with pytest.raises(DeviceError, match=r"output device 1 \(Speakers\) cannot be opened: "):
        stream.start(Ring(4800, 1))
    audio.check_output_settings = fail
    with pytest.raises(DeviceError, match=r"\(Speakers\) accepts no usual number of channels at any usual rate: "):
        PlaybackStream(find_device(None, "output"), 24_000, 10, 40)


def raising(fake):
    def driver_s():
        raise fake.PortAudioError("Error getting stream time")

    return driver_s


CLOCKS = {
    "zero": lambda fake: lambda: 0.0,
    "constant": lambda fake: lambda: 7.5,
    "not a number": lambda fake: lambda: math.nan,
    "backward": lambda fake: itertools.count(1e6, -0.01).__next__,
    "leaping": lambda fake: itertools.cycle([5.0, 3605.0, 2.0, 1e9]).__next__,
    "missing": raising,
    "zero at first": lambda fake: itertools.chain([0.0] * 20, itertools.count(50.0, 0.01)).__next__,
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_driver_without_a_sound_clock_is_timed_by_the_programs_own(audio, clock):
    audio.driver_s = CLOCKS[clock](audio)
    audio.clock_s = 100.0
    capture = CaptureStream(find_device(None, "input"), 24_000, 10, 40)
    playback = PlaybackStream(find_device(None, "output"), 24_000, 10, 40)
    capture.start(Ring(24_000, 1))
    playback.start(Ring(24_000, 1))
    for tick in range(60):
        audio.clock_s = 100.0 + 0.01 * tick
        for stream in audio.streams:
            stream.tick()
            assert 0.004 < capture.timeline.device_delay_s() <= 0.0201  # the driver's 5 ms, or its buffer of 20 ms
        capture.check(0.3)
        playback.check(0.3)
        assert capture.timeline.last_called_s == playback.timeline.last_called_s == pytest.approx(audio.clock_s)
    if clock not in ("leaping", "zero at first"):
        assert capture.timeline.time_of(240 * 59) == pytest.approx(100.59 - 0.02)


@pytest.mark.parametrize("clock", ["zero", "missing", "backward"])
def test_a_loopback_runs_on_drivers_without_clocks(audio, monkeypatch, clock):
    monkeypatch.setattr("streamcodec.live.session._PATIENCE_S", 0.5)
    audio.driver_s = CLOCKS[clock](audio)
    loopback = LiveLoopback(transparent_codec())
    with loopback.running() as running:
        for _ in range(160):
            for stream in audio.streams:
                stream.tick()
            assert running.wait(0.01)
    report = loopback.report()
    assert report["frames_decoded"] > 30
    assert 20 < report["mouth_to_ear"]["p50_ms"] < report["bound_ms"]


def test_patience_is_time_in_which_the_program_ran(audio):
    audio.clock_s = 10.0
    stream = CaptureStream(find_device(None, "input"), 24_000, 10, 40)
    stream.start(Ring(24_000, 1))
    audio.streams[0].tick()
    stream.check(3.0)
    audio.clock_s += 3600  # a lid was closed
    stream.check(3.0)
    for _ in range(28):
        audio.clock_s += 0.1
        stream.check(3.0)
    audio.clock_s += 60  # and again
    stream.check(3.0)
    audio.clock_s += 0.1
    with pytest.raises(DeviceError, match=r"\(Mic Array\) stopped: no sound for 3\.[01] s \(unplugged"):
        stream.check(3.0)
    audio.streams[0].tick()
    stream.check(3.0)
