"""After the program stood still, live sound goes on as before, and every frame is counted once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_world import World, transparent_codec
from test_live_call import Call

from streamcodec.audio.files import write_audio
from streamcodec.audio.ring import Ring
from streamcodec.cli._live import run_until_stopped
from streamcodec.live.adaptation import LossMeter
from streamcodec.live.jitter import Arrival, JitterBuffer, Waiting
from streamcodec.live.latency import LatencyHistogram
from streamcodec.live.policy import HoldController, LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.simulated import SimulatedPlayback

SOCKET_HOLDS = 277
FRAME_S = 320 / 24_000


def stand_still(world, seconds, backlog):
    """No callback and no pump for so long; a driver with a backlog then calls back for all of it at once."""
    world.now_s += seconds
    if not backlog:
        for device in (world.capture_device, world.playback_device):
            device.calls = int(world.now_s / device.interval_s)


@pytest.mark.parametrize("seconds", [0.6, 3.0, 10.0, 600.0])
@pytest.mark.parametrize("backlog", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_a_loopback_is_as_before_a_second_after_a_stop(seconds, backlog, adaptive):
    if backlog and seconds > 100:
        pytest.skip("no driver keeps a backlog of minutes")
    world = World(policy=LatencyPolicy.loopback(40, 10, adaptive), playback=SimulatedPlayback(48_000, 480, 200))
    world.run(6)
    receiver = world.pipeline.receiver
    before = receiver.controller.target_ms, receiver.controller.reserve_ms
    delay_ms = receiver.mouth_to_ear.percentile(50)
    stand_still(world, seconds, backlog)
    world.run(1)
    assert receiver.held_ms <= world.policy.cap_ms
    underflows, concealed = receiver.underflows, receiver.concealed_frames
    receiver.mouth_to_ear = LatencyHistogram()
    world.run(2)
    assert (receiver.controller.target_ms, receiver.controller.reserve_ms) == pytest.approx(before, abs=1.5)
    assert abs(receiver.controller.speed - 1) < 0.004
    assert (receiver.underflows, receiver.concealed_frames) == (underflows, concealed)
    assert receiver.controller.held_ms == pytest.approx(before[0], abs=12)
    assert receiver.mouth_to_ear.count > 140
    assert receiver.mouth_to_ear.max_ms < delay_ms + 25
    assert_counted_once(world.pipeline.report())


def assert_counted_once(report):
    """What came was played, given up, too late, doubled or waits; what was played came or was made up."""
    arrivals = report["arrivals"]
    assert report["frames_received"] == sum(arrivals.values())
    assert report["frames_received"] + report["frames_from_coarse_copies"] == (
        report["frames_decoded"] + report["frames_dropped_over_cap"] + report["frames_waiting"]
        + arrivals["late"] + arrivals["duplicate"]
    )  # fmt: skip
    assert report["frames_played"] == report["frames_decoded"] + report["frames_concealed"]


def stop(call, stopped, seconds):
    """One side of a call stands still; its socket keeps what comes first, its devices catch up when it wakes."""
    running = call.caller if stopped is call.listener else call.listener
    kept = []
    for _ in range(round(seconds / 0.01)):
        call.now_s += 0.01
        running.step(call.now_s)
        kept += [data for data, _ in running.outbox]
        running.outbox.clear()
    for data in kept[:SOCKET_HOLDS]:
        stopped.peer.receive(data, running.address, call.now_s)


@pytest.mark.parametrize("who", ["caller", "listener"])
@pytest.mark.parametrize("seconds", [0.7, 1.3, 3.0, 4.5])
def test_a_call_is_as_before_two_seconds_after_one_side_stood_still(who, seconds):
    call = Call({"delay_ms": 20, "jitter_ms": 3}).run(6, 0.01)
    stopped = getattr(call, who)
    target_ms = stopped.peer.receiver.controller.target_ms
    stop(call, stopped, seconds)
    call.run(2, 0.01)
    sides = call.caller, call.listener
    assert all(side.peer.connected and side.peer.calls == 1 for side in sides)
    before = [(side.peer.receiver.underflows, side.peer.receiver.concealed_frames) for side in sides]
    call.run(3, 0.01)
    for side, (underflows, concealed) in zip(sides, before, strict=True):
        receiver, report = side.peer.receiver, side.peer.report()
        assert receiver.underflows == underflows
        assert receiver.concealed_frames <= concealed + 2
        assert receiver.controller.held_ms == pytest.approx(receiver.controller.target_ms, abs=12)
        assert (side.peer.rate.n_codebooks, side.peer.rate.n_copies) == (8, 0)
        assert report["frames_received"] == report["datagrams"]["media"]
        assert_counted_once(report)
    assert stopped.peer.receiver.controller.target_ms < target_ms + 15
    assert max(side.peer.receiver.max_held_ms for side in sides) <= call.caller.peer.receiver.policy.cap_ms + 1


@pytest.mark.parametrize("seconds", [3.0, 10.0, 3600.0])
def test_two_sides_that_slept_listen_before_they_hang_up(seconds):
    call = Call({"delay_ms": 20}).run(2, 0.01)
    call.now_s += seconds
    for side in (call.caller, call.listener):
        for device in side.devices:
            device.calls = int(call.now_s / device.interval_s)
    call.run(2, 0.01)
    for side in (call.caller, call.listener):
        assert side.peer.connected
        assert side.peer.calls == 1
        assert_counted_once(side.peer.report())
    assert call.listener.peer.receiver.decoded_frames > 75 * 3.3
    call.caller.peer.pump = lambda now_s: 0  # a side that is gone is still found out, as fast as ever
    call.run(4.8, 0.01)
    assert call.listener.peer.connected
    call.run(0.4, 0.01)
    assert not call.listener.peer.connected


def test_after_a_longer_stop_than_the_other_waits_for_every_datagram_is_accounted_for():
    call = Call({"delay_ms": 10}).run(2, 0.01)
    stop(call, call.listener, 9.0)
    call.run(1, 0.01)
    assert call.caller.peer.ended
    report = call.listener.peer.report()
    assert report["datagrams"]["media"] == report["frames_received"] > SOCKET_HOLDS
    assert_counted_once(report)
    assert report["held_max_ms"] <= report["cap_ms"] + 1


def test_loss_of_a_second_in_which_nobody_listened_is_not_the_networks():
    meter = LossMeter()
    numbers = iter(range(10_000))

    def second(now_s, lost=0.0):
        for number in (next(numbers) for _ in range(75)):
            if number % 100 >= 100 * lost:
                meter.received(number)
        meter.look(now_s)
        return meter.loss

    meter.look(0.0)
    assert [second(1.0), second(2.0)] == [0, 0]
    for _ in range(400):  # 5.3 s that found no room
        next(numbers)
    assert [second(7.4), second(8.4, lost=0.5), second(9.4)] == [0, 0, 0]
    assert second(10.4, lost=0.3) > 0.2


def test_seconds_to_run_are_seconds_in_which_the_program_ran(monkeypatch):
    times = iter([0.0, 0.2, 3600.2, 3600.4, 3600.6, 3600.8])
    monkeypatch.setattr("streamcodec.cli._live.time", SimpleNamespace(monotonic=lambda: next(times)))
    waits = []
    run_until_stopped(SimpleNamespace(wait=lambda seconds: waits.append(seconds) or True), 1.7, lambda: "")
    assert waits == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.1])


@pytest.mark.parametrize("catches_up", [True, False])
def test_a_sender_that_stood_still_is_told_from_a_network_that_did(catches_up):
    controller = HoldController(LatencyPolicy.network(10), FRAME_S)
    for number in range(600):
        controller.arrived(number, 40.0, number * FRAME_S)
    calm_ms, most_ms = controller.target_ms, 0.0
    for number in range(600, 1400):
        sent_s = number * FRAME_S + (0.0 if catches_up else 0.8)
        controller.arrived(number, 40.0, max(sent_s, 600 * FRAME_S + 0.8))
        most_ms = max(most_ms, controller.target_ms)
    assert (most_ms > calm_ms + 100) == catches_up
    assert controller.target_ms == pytest.approx(calm_ms, abs=2)


def test_devices_that_are_faster_than_the_program_do_not_keep_it_from_stopping():
    world = World(policy=LatencyPolicy.network(10)).run(2)
    taken, given = world.capture.commit_read, world.playback.write

    def refill(count):
        taken(count)
        world.capture.write(np.zeros((count, 1), np.float32))

    def empty(block):
        given(block)
        world.playback.commit_read(world.playback.readable_samples)

    world.capture.commit_read, world.playback.write = refill, empty
    for call in range(100):
        assert world.pipeline.pump(world.now_s + 0.01 * call) < 20
    world.pipeline.receiver.restart()
    assert world.pipeline.receiver.pump(world.now_s + 1) == 0


PACKETS, CODEC = [], transparent_codec()


def packets():
    if not PACKETS:
        encoder = CODEC.encoder(6000)
        PACKETS.extend(encoder.encode(np.full(320, 0.01 * (number % 50), np.float32)) for number in range(200))
    return PACKETS


class Line:
    """A receiver on a clock, and packets for it, one a frame."""

    def __init__(self, policy, seed):
        self.random = np.random.default_rng(seed)
        self.ring = Ring(Receiver.ring_samples(policy, 24_000), 1)
        self.receiver = Receiver(CODEC, self.ring, 24_000, policy)
        self.now_s, self.sent, self.leap, self.pushed = 0.0, 0, 0, 0
        self.under_way, self.block, self.handed_over = [], np.zeros((240, 1), np.float32), 0
        write = self.receiver._write

        def count(frame):
            self.handed_over += not np.shares_memory(frame, self.receiver._silence)
            write(frame)

        self.receiver._write = count

    def run(self, seconds, loss=0.0, jitter_s=0.0, twice=0.0, copies=0, talking=True, listening=True, playing=True):
        for _ in range(round(seconds / 0.01)):
            self.now_s += 0.01
            while self.sent * FRAME_S < self.now_s:
                if talking and self.random.random() >= loss:
                    due_s = self.now_s + self.random.exponential() * jitter_s
                    for _ in range(1 + (self.random.random() < twice)):
                        self.under_way.append((due_s + 0.03 * self.random.random(), self.sent + self.leap, copies))
                self.sent += 1
            if listening:
                self.listen()
            if playing:
                self.ring.read_into(self.block)

    def listen(self):
        for arrived in sorted(item for item in self.under_way if item[0] <= self.now_s)[:SOCKET_HOLDS]:
            _, number, copies = arrived
            for back in range(copies + 1):
                packet = packets()[(number - back) % len(packets())]
                self.receiver.push(number - back, packet, self.now_s, coarse=back > 0)
            self.pushed += 1
        self.under_way = [item for item in self.under_way if item[0] > self.now_s]
        self.receiver.pump(self.now_s)

    def check(self):
        receiver = self.receiver
        arrivals = receiver.arrivals
        assert receiver.received_frames == self.pushed
        assert receiver.received_frames + receiver.coarse_frames == (
            receiver.decoded_frames + receiver.dropped_frames + receiver.jitter.waiting_frames
            + arrivals[Arrival.LATE] + arrivals[Arrival.DUPLICATE]
        )  # fmt: skip
        assert receiver.played_frames == receiver.decoded_frames + receiver.concealed_frames == self.handed_over
        assert 0 <= receiver.jitter.waiting_frames <= receiver.jitter.span_frames


SCHEDULES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"seconds": st.floats(0.05, 0.8)},
            optional={
                "loss": st.floats(0, 0.9),
                "jitter_s": st.floats(0, 0.3),
                "twice": st.floats(0, 1),
                "copies": st.integers(0, 4),
            },
        ),
        st.fixed_dictionaries({"seconds": st.floats(0.1, 12.0)}, optional={"playing": st.booleans()}).map(
            lambda kind: {**kind, "listening": False}
        ),
        st.fixed_dictionaries({"seconds": st.floats(0.1, 2.5), "talking": st.just(False)}),
        st.fixed_dictionaries({"seconds": st.floats(0.1, 0.5), "playing": st.just(False)}),
        st.sampled_from(["restart", "leap on", "leap back"]),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(schedule=SCHEDULES, seed=st.integers(0, 99), network=st.booleans())
def test_every_frame_is_counted_once_whatever_stops_is_lost_reordered_or_doubled(schedule, seed, network):
    policy = LatencyPolicy.network(10) if network else LatencyPolicy.loopback(60, 10, adaptive=True)
    line = Line(policy, seed)
    line.run(0.3)
    for kind in schedule:
        if kind == "restart":
            line.receiver.restart()
        elif isinstance(kind, str):
            line.leap += 5000 if kind == "leap on" else -50
        else:
            line.run(**kind)
        line.check()
    line.run(1.5)
    line.check()
    assert line.receiver.held_ms <= policy.cap_ms
    assert line.receiver.jitter.span_frames < 40


def test_a_jitter_buffer_counts_what_waits_and_what_it_gives_up():
    buffer = JitterBuffer(8)
    for sequence, coarse in ((0, False), (1, True), (1, False), (2, True), (4, False), (4, False), (5, True)):
        buffer.put(sequence, Waiting(b"x", coarse, 0.0))
    assert buffer.waiting_frames == 3  # 0, 1 and 4
    assert (buffer.take().coarse, buffer.give_up().coarse, buffer.give_up().coarse) == (False, False, True)
    assert (buffer.waiting_frames, buffer.dropped_frames) == (1, 1)
    assert buffer.put(500, Waiting(b"x", False, 0.0)) is Arrival.JUMP
    assert (buffer.waiting_frames, buffer.dropped_frames) == (1, 2)
    buffer.restart(0)
    assert (buffer.waiting_frames, buffer.dropped_frames) == (0, 3)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no SIGSTOP")
def test_a_process_that_was_stopped_goes_on_with_its_devices_and_files(tmp_path):
    write_audio(tmp_path / "said.wav", np.full(24_000 * 30, 0.25, np.float32), 24_000)
    script = Path(__file__).with_name("stopped_process.py")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", script, tmp_path / "said.wav", tmp_path / "heard.wav"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == b"running\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    reports = json.loads(out)
    assert reports["alive"]
    for name in ("files", "devices"):
        report = reports[name]
        assert_counted_once(report)
        assert report["frames_sent"] > 75
        assert report["mouth_to_ear"]["p50_ms"] < report["bound_ms"]
    assert reports["files"]["capture_overflows"] == 0  # what the file says is not lost in a stop
    assert reports["devices"]["devices"]["output"]["pauses"] >= 1
