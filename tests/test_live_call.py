"""A call survives a bad network and trusts no datagram; both sides live on a simulated clock, some on real sockets."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from live_world import delay_samples, speech_like, transparent_codec

from streamcodec.audio.files import write_audio
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.config import PRESETS
from streamcodec.errors import BitstreamError, ConfigError, DeviceError, MissingExtraError, WrongModel
from streamcodec.live.adaptation import LossMeter, RateControl
from streamcodec.live.file_devices import FileDevices
from streamcodec.live.payload import Media
from streamcodec.live.peer import CallPeer
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.rtp import ReplayWindow, RtpHeader, unwrapped
from streamcodec.live.security import load_key
from streamcodec.live.simulated import ImpairedNetwork, SimulatedCapture, SimulatedPlayback
from streamcodec.live.udp import UdpCall, parse_address

TINY = PRESETS["tiny-24k"]
SECRET = bytes(range(32))


class Side:
    def __init__(self, codec, address, to=None, **options):
        self.address, self.outbox = address, []
        policy = LatencyPolicy.network(10)
        self.capture, self.playback = Ring(12_000, 1), Ring(Receiver.ring_samples(policy, 24_000), 1)
        self.capture_times, self.playback_times = Timeline(24_000), Timeline(24_000)
        self.devices = SimulatedCapture(24_000, 240), SimulatedPlayback(24_000, 240)
        self.peer = CallPeer(
            codec, self.capture, self.playback, 24_000, 24_000, lambda data, to: self.outbox.append((data, to)),
            address=to, policy=policy, capture_times=self.capture_times, playback_times=self.playback_times,
            **{"bitrate_bps": 6000, **options},
        )  # fmt: skip
        self.heard = []

    def step(self, now_s):
        self.devices[0].run(now_s, self.capture, self.capture_times, speech_like)
        self.peer.pump(now_s)
        self.devices[1].run(now_s, self.playback, self.playback_times, lambda block: self.heard.append(block.copy()))

    @property
    def output(self):
        return np.concatenate(self.heard)[:, 0]


class Call:
    """A caller and a listener, and a network each way."""

    def __init__(self, kind=None, caller=None, listener=None, codec=None):
        codec = codec or transparent_codec()
        self.caller = Side(codec, "caller", "listener", **(caller or {}))
        self.listener = Side(codec, "listener", **(listener or {}))
        self.networks = [ImpairedNetwork(seed, **(kind or {})) for seed in (1, 2)]
        self.tapped = []
        self.now_s = 0.0

    def run(self, seconds, step_s=0.004):
        sides = self.caller, self.listener
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            for side in sides:
                side.step(self.now_s)
            for side, other, network in zip(sides, reversed(sides), self.networks, strict=True):
                for data, to in side.outbox:
                    assert to == other.address
                    self.tapped.append((side.address, data))
                    network.send(self.now_s, data)
                side.outbox.clear()
                for data in network.due(self.now_s):
                    other.peer.receive(data, side.address, self.now_s)
        return self


@pytest.fixture
def encrypted():
    pytest.importorskip("cryptography", reason="cryptography is not installed (pip install 'streamcodec[call]')")
    return {"secret": SECRET}


def test_a_call_connects_and_is_heard_both_ways():
    call = Call({"delay_ms": 30}).run(6)
    for side in (call.caller, call.listener):
        report = side.peer.report()
        assert report["connected"]
        assert report["frames_concealed"] <= 2
        assert report["playback_underflows"] == 0
        assert delay_samples(side.output, 4 * 24_000, window=480, reach=6000)[1] > 0.8
        assert {
            name: report["datagrams"][name] for name in ("malformed", "forged", "foreign", "refused")
        } == dict.fromkeys(("malformed", "forged", "foreign", "refused"), 0)


@pytest.mark.parametrize("copies", [0, 3])
def test_copies_fill_most_of_the_gaps_that_bursts_leave(copies):
    call = Call(
        {"delay_ms": 20, "jitter_ms": 5, "loss": 0.1, "burst_packets": 2}, {"copies": copies}, {"copies": copies}
    )
    call.run(16)
    report = call.listener.peer.report()
    lost = call.networks[0].lost
    if copies:
        assert report["frames_from_coarse_copies"] > 0.6 * lost
        assert report["frames_concealed"] < 0.5 * lost
    else:
        assert report["frames_from_coarse_copies"] == 0
        assert report["frames_concealed"] > 0.7 * lost


def test_jitter_reordering_and_duplicates_do_not_break_a_call(encrypted):
    call = Call({"delay_ms": 40, "jitter_ms": 15, "reorder": 0.05, "duplicate": 0.1}, encrypted, encrypted).run(12)
    report = call.listener.peer.report()
    assert report["datagrams"]["repeated"] > 30
    assert report["datagrams"]["forged"] == report["datagrams"]["malformed"] == 0
    assert report["frames_decoded"] > 0.93 * report["frames_sent"] - 75
    assert report["held_max_ms"] <= report["cap_ms"] + 1


def test_loss_lowers_the_bitrate_and_adds_copies_and_calm_undoes_both():
    call = Call({"delay_ms": 10}).run(3)
    peer = call.caller.peer
    assert (peer.rate.n_codebooks, peer.rate.n_copies) == (8, 0)
    network = call.networks[0]
    network._enter_loss, network._leave_loss = 0.1, 0.5
    call.run(8)
    assert peer.rate.n_codebooks <= 5
    assert peer.rate.n_copies >= 2
    network._enter_loss, network._leave_loss = 0.0, 1.0
    call.run(30, 0.01)
    assert (peer.rate.n_codebooks, peer.rate.n_copies) == (8, 0)


def test_an_eavesdropper_learns_no_packet_and_a_forger_changes_nothing(encrypted, monkeypatch):
    payloads = []
    pack = Media.pack
    monkeypatch.setattr(Media, "pack", lambda media: payloads.append(pack(media)) or payloads[-1])
    call = Call({"delay_ms": 10}, encrypted, encrypted).run(3)
    on_the_wire = [data[12:] for _, data in call.tapped if data[1] & 0x7F == 96]
    assert len(payloads) == len(on_the_wire) > 400
    pairs = [
        pair
        for payload, data in zip(payloads, on_the_wire, strict=True)
        for pair in zip(payload, data[:13], strict=True)
    ]
    assert sum(said == seen for said, seen in pairs) < 0.01 * len(pairs)
    assert len({data[:3] for data in on_the_wire}) > 0.9 * len(on_the_wire)  # the same three bytes in every payload
    plain = Call({"delay_ms": 10}).run(1)
    assert all(len(data) == 12 + 3 + 10 for _, data in plain.tapped if data[1] & 0x7F == 96)
    media = [data for who, data in call.tapped if who == "caller" and data[1] & 0x7F == 96][:-5]
    assert all(len(data) == 12 + 3 + 10 + 16 for data in media)
    peer = call.listener.peer
    before = peer.report()["datagrams"], peer.receiver.decoded_frames
    for data in media[-20:]:
        flipped = bytearray(data)
        flipped[2:4] = (int.from_bytes(data[2:4], "big") + 300 & 0xFFFF).to_bytes(2, "big")  # one still to come
        peer.receive(bytes(flipped), "caller", call.now_s)
        flipped = bytearray(data)
        flipped[-1] ^= 1
        peer.receive(bytes(flipped), "caller", call.now_s)
        peer.receive(data, "caller", call.now_s)
        peer.receive(data, "elsewhere", call.now_s)
    after = peer.report()["datagrams"]
    assert after["media"] == before[0]["media"]
    assert after["forged"] + after["repeated"] - before[0]["forged"] - before[0]["repeated"] == 60
    assert after["forged"] > before[0]["forged"]
    assert after["foreign"] - before[0]["foreign"] == 20
    call.run(2)
    assert call.listener.peer.receiver.concealed_frames <= 3


def test_a_recorded_call_cannot_be_played_to_the_listener_again(encrypted):
    call = Call({"delay_ms": 10}, encrypted, encrypted).run(2)
    recording = [data for who, data in call.tapped if who == "caller"][:-5]
    fresh = Call({}, encrypted, encrypted)
    for target in (fresh.listener.peer, call.listener.peer):
        media = target.counters["media"]
        for data in recording:
            target.receive(data, "caller", call.now_s)
        assert target.counters["media"] == media
    assert not fresh.listener.peer.connected


def test_keys_that_differ_or_are_missing_on_one_side_do_not_connect(encrypted):
    for listener in ({"secret": bytes(32)}, {}):
        call = Call({}, encrypted, listener).run(1)
        assert not call.caller.peer.connected
        assert not call.listener.peer.connected
        counters = call.listener.peer.counters
        assert counters["forged"] + counters["refused"] > 0
    assert "start both with the same --key" in call.listener.peer.refusal


def test_another_model_is_refused_by_name():
    call = Call()
    call.listener.peer.codec.model_id = call.caller.peer.codec.model_id
    other = transparent_codec()
    other.model_id = b"another!"
    call.listener = Side(other, "listener")
    with pytest.raises(WrongModel, match="same weights"):
        call.run(1)


def test_after_a_call_the_listener_takes_another_with_new_keys(encrypted):
    call = Call({"delay_ms": 10}, encrypted, encrypted).run(2)
    first = call.listener.peer._salt
    call.caller.peer.pump = lambda now_s: 0  # gone without a word
    call.run(6)
    assert not call.listener.peer.connected
    call.caller = Side(call.listener.peer.codec, "caller", "listener", **encrypted)
    call.caller.devices[0].calls = call.caller.devices[1].calls = round(call.now_s / 0.01)
    call.run(2)
    assert call.listener.peer.connected
    assert call.listener.peer.calls == 2
    assert call.listener.peer._salt != first


@pytest.mark.parametrize(("frames_on", "clock_on"), [(0, 1), (1, 0), (1, 320 * 2), (3001, 320 * 3001), (20_000, 0)])
def test_a_leap_and_a_timestamp_that_does_not_fit_are_malformed(frames_on, clock_on):
    call = Call({"delay_ms": 10}).run(1)
    peer = call.listener.peer
    header, datagram = next(
        (RtpHeader.parse(data), data) for who, data in reversed(call.tapped) if who == "caller" and data[1] & 0x7F == 96
    )
    before = dict(peer.counters)
    number = peer._window.highest + 2 + frames_on
    here = header.timestamp + 320 * (peer._window.highest + 2 - unwrapped(header.sequence, peer._window.highest))
    peer.receive(RtpHeader(96, number, here + clock_on, header.ssrc).pack() + datagram[12:], "caller", call.now_s)
    assert peer.counters == {**before, "malformed": before["malformed"] + 1}
    peer.receive(
        RtpHeader(96, number, here + 320 * frames_on, header.ssrc).pack() + datagram[12:], "caller", call.now_s
    )
    assert (peer.counters["media"] == before["media"] + 1) == (frames_on < 3000)


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.1, 0.2])
def test_any_bursty_loss_is_concealed_and_costs_no_delay(loss):
    kind = {"delay_ms": 20, "jitter_ms": 5, "loss": loss, "burst_packets": 2, "reorder": 0.01, "duplicate": 0.01}
    call = Call(kind, {"copies": 0}, {"copies": 0}).run(10)
    report = call.listener.peer.report()
    assert report["frames_concealed"] == pytest.approx(call.networks[0].lost, abs=0.02 * report["frames_sent"] + 8)
    assert report["held_max_ms"] <= report["cap_ms"]
    assert report["playback_underflows"] == 0
    assert report["loss_received"] == pytest.approx(loss, abs=0.25)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_datagram_is_counted_and_leaves_the_call_alone(data):
    call = _connected()
    peer = call.listener.peer
    genuine = [datagram for who, datagram in call.tapped if who == "caller"]
    datagram = bytearray(data.draw(st.sampled_from(genuine)))
    for _ in range(data.draw(st.integers(0, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    datagram = bytes(datagram)[: data.draw(st.integers(0, len(datagram)))] + data.draw(st.binary(max_size=3))
    total = sum(peer.counters.values())
    peer.receive(datagram, data.draw(st.sampled_from(["caller", "elsewhere"])), call.now_s)
    assert sum(peer.counters.values()) == total + 1
    assert peer.connected
    assert peer.receiver.held_ms < 2 * peer.receiver.policy.cap_ms


_calls = []


def _connected():
    if not _calls:
        _calls.append(Call({"delay_ms": 10}).run(1))
    return _calls[0]


@given(
    codes=st.integers(1, 12).flatmap(lambda count: st.binary(min_size=count, max_size=count)),
    n_copies=st.integers(0, 4),
    copy_codebooks=st.integers(1, 12),
    loss=st.floats(0, 1),
)
def test_a_payload_is_read_as_it_was_written(codes, n_copies, copy_codebooks, loss):
    from streamcodec.bitstream import pack_codes

    packet = pack_codes(np.frombuffer(codes, np.uint8).astype(np.int16), 10)
    copies = tuple(pack_codes(np.arange(copy_codebooks) + i, 10) for i in range(n_copies))
    media = Media(packet, len(codes), copies, copy_codebooks if copies else 0, loss)
    read = Media.parse(media.pack(), TINY)
    assert (read.packet, read.n_codebooks, read.copies) == (packet, len(codes), copies)
    assert abs(read.seen_loss - loss) < 1 / 255


@given(st.binary(max_size=60))
def test_random_payloads_are_refused_or_read_exactly(payload):
    try:
        media = Media.parse(payload, TINY)
    except BitstreamError:
        return
    assert media.pack() == payload


def test_headers_numbers_and_windows():
    header = RtpHeader(96, 70_000, 2**32 + 5, 7, marker=True)
    assert RtpHeader.parse(header.pack()) == RtpHeader(96, 70_000 - 65_536, 5, 7, marker=True)
    for wrong in (b"", b"\x80" * 11, b"\x90" + bytes(11), b"\x80\x00" + bytes(10)):
        with pytest.raises(BitstreamError):
            RtpHeader.parse(wrong)
    number = None
    for expected in range(65_000, 200_000, 777):
        number = unwrapped(expected & 0xFFFF, number) if number is not None else expected
        assert number == expected
    window = ReplayWindow(64)
    assert [window.is_new(n) or window.take(n) for n in (5,)] == [True]
    for n in (5, 7, 6, 100):
        assert window.is_new(n)
        window.take(n)
        assert not window.is_new(n)
    assert not window.is_new(30)
    assert window.is_new(40)


def test_loss_is_measured_by_number():
    meter = LossMeter()
    meter.look(0.0)
    for number in range(100):
        if number % 10:
            meter.received(number)
    meter.look(1.0)
    assert meter.loss == pytest.approx(0.09, abs=0.02)


def test_rate_control_stays_within_its_ceiling():
    rate = RateControl(TINY, 6000)
    for second in range(60):
        rate.report(0.5, float(second))
        assert 4 <= rate.n_codebooks <= 8
    assert rate.n_copies == 3
    assert RateControl(TINY, 750).copy_codebooks == 1


def test_a_key_file_must_hold_a_secret(tmp_path, monkeypatch):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="32 to 4096 random bytes"):
        load_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(bytes(40))
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtraError, match=r"streamcodec\[call\]"):
        load_key(tmp_path / "key")


@pytest.mark.parametrize("text", ["example.org", "example.org:", ":5004", "host:0", "host:70000", "host:http"])
def test_addresses_without_a_port_are_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(text)


def test_a_call_over_real_sockets_is_heard(tmp_path, encrypted):
    sound = 0.5 * np.sin(2 * np.pi * 500 / 24_000 * np.arange(24_000 * 4))
    write_audio(tmp_path / "said.wav", sound.astype(np.float32), 24_000)
    codec = transparent_codec()
    listener = UdpCall(
        codec, FileDevices(codec, None, tmp_path / "heard.wav"), listen_port=0, listen_host="127.0.0.1", **encrypted
    )
    caller = UdpCall(
        codec, FileDevices(codec, tmp_path / "said.wav", None), to=("127.0.0.1", listener.port), copies=2, **encrypted
    )
    with pytest.raises(DeviceError, match="choose another port"):
        UdpCall(codec, FileDevices(codec, None, None), listen_port=listener.port, listen_host="127.0.0.1")
    with listener.running() as hearing, caller.running() as speaking:
        assert hearing.wait(3)
        assert speaking.wait(0.01)
    caller.close()
    listener.close()
    assert listener.report()["datagrams"]["media"] > 120
    heard, _ = soundfile.read(tmp_path / "heard.wav", always_2d=True)
    spectrum = np.abs(np.fft.rfft(heard[24_000 : 24_000 * 2, 0]))
    assert spectrum.argmax() == pytest.approx(500, abs=2)
    assert threading.active_count() < 20


class Relay(threading.Thread):
    """A bad network between two real sockets: what comes from the listener goes to the caller, and the other way."""

    def __init__(self, listener_port, **kind):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.002)
        self.listener, self.caller, self.from_caller = ("127.0.0.1", listener_port), None, 0
        self.network, self.done = ImpairedNetwork(3, **kind), threading.Event()

    def run(self):
        while not self.done.is_set():
            with contextlib.suppress(OSError):
                data, source = self.socket.recvfrom(2048)
                self.caller = self.caller if source == self.listener else source
                self.network.send(time.monotonic(), (data, self.caller if source == self.listener else self.listener))
                self.from_caller += source != self.listener
                if source != self.listener and self.from_caller % 10 == 0:
                    self.socket.sendto(data[:9], self.listener)
                    self.socket.sendto(data[:-1] + bytes([data[-1] ^ 1]), self.listener)
            for data, target in self.network.due(time.monotonic()):
                self.socket.sendto(data, target)
        self.socket.close()


def test_a_call_over_real_sockets_survives_a_bad_network_and_a_forger(tmp_path, encrypted):
    sound = 0.5 * np.sin(2 * np.pi * 500 / 24_000 * np.arange(24_000 * 6))
    write_audio(tmp_path / "said.wav", sound.astype(np.float32), 24_000)
    codec = transparent_codec()
    listener = UdpCall(codec, FileDevices(codec, None, None), listen_port=0, listen_host="127.0.0.1", **encrypted)
    relay = Relay(listener.port, delay_ms=30, jitter_ms=10, loss=0.05, burst_packets=2, reorder=0.05, duplicate=0.1)
    caller = UdpCall(
        codec, FileDevices(codec, tmp_path / "said.wav", None), to=relay.socket.getsockname(), copies=2, **encrypted
    )
    relay.start()
    with listener.running() as hearing, caller.running() as speaking:
        assert hearing.wait(4.5)
        assert speaking.wait(0.01)
        report = listener.report()
    relay.done.set()
    relay.join()
    caller.close()
    listener.close()
    assert report["datagrams"]["media"] > 150
    assert min(report["datagrams"][name] for name in ("repeated", "malformed", "forged")) > 5
    assert report["datagrams"]["refused"] == 0
    assert report["frames_from_coarse_copies"] > 0
    assert report["frames_concealed"] < 0.3 * report["frames_decoded"]
    assert report["held_max_ms"] <= report["cap_ms"] + 1
