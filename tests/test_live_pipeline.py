"""The live pipeline keeps its delay and its bounds whatever clocks, processor and network do, on a simulated clock."""

import time
import tracemalloc

import numpy as np
import pytest
from live_world import World, delay_samples, transparent_codec

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.errors import ConfigError
from streamcodec.live.jitter import Arrival, JitterBuffer, Waiting
from streamcodec.live.pipeline import DirectLink
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.sender import Sender
from streamcodec.live.simulated import ImpairedNetwork, SimulatedCapture, SimulatedPlayback


class ImpairedLink(DirectLink):
    def __init__(self, **kind):
        self.network = ImpairedNetwork(**kind)

    def send(self, now_s, sequence, packet, captured_s):
        self.network.send(now_s, (sequence, packet, captured_s))

    def due(self, now_s):
        return self.network.due(now_s)


def sine(first, count):
    return (0.5 * np.sin(2 * np.pi * 200 / 24_000 * np.arange(first, first + count))).astype(np.float32)[:, None]


def test_every_frame_is_heard_once_at_the_delay_that_is_reported():
    world = World().run(8)
    report = world.pipeline.report()
    assert report["frames_concealed"] == report["playback_underflows"] == report["frames_dropped_over_cap"] == 0
    assert report["frames_sent"] == pytest.approx(8 * 75, abs=2)
    assert report["bitrate_bps"] == 9000
    delay, match = delay_samples(world.output, 6 * 24_000)
    # the first heard sample is in the air one block after the clock starts
    assert match > 0.9
    assert report["mouth_to_ear"]["p50_ms"] == pytest.approx(1000 * (delay + 240) / 24_000, abs=4)
    assert report["mouth_to_ear"]["max_ms"] < world.policy.cap_ms + report["algorithmic_ms"] + 20


@pytest.mark.parametrize("drift_ppm", [300, -300, 3000, -3000])
def test_clocks_that_drift_apart_neither_starve_nor_fill_the_ring(drift_ppm):
    held = []
    world = World(playback=SimulatedPlayback(48_000, 480, drift_ppm))
    world.run(30, 0.005, each=lambda world: held.append(world.pipeline.receiver.held_ms))
    report = world.pipeline.report()
    assert report["frames_concealed"] == report["playback_underflows"] == report["frames_dropped_over_cap"] == 0
    assert report["speed"] == pytest.approx(1 / (1 + drift_ppm * 1e-6), abs=8e-4)
    assert abs(world.pipeline.receiver.controller.held_ms - 40) < 14
    assert max(held) < world.policy.cap_ms


@pytest.mark.parametrize("drift_ppm", [5000, -5000, 12_000, -12_000])
def test_half_a_percent_of_drift_is_followed_and_more_is_dropped_or_concealed_but_never_delay(drift_ppm):
    held = []
    world = World(playback=SimulatedPlayback(48_000, 480, drift_ppm))
    world.run(40, 0.005, each=lambda world: held.append(world.pipeline.receiver.held_ms))
    report = world.pipeline.report()
    assert abs(report["speed"] - 1 / (1 + drift_ppm * 1e-6)) < 2e-4 or abs(report["speed"] - 1) == pytest.approx(0.005)
    assert max(held) <= world.policy.cap_ms
    assert (report["frames_dropped_over_cap"] > 0) == (drift_ppm == -12_000)
    assert (report["frames_concealed"] > 0) == (drift_ppm == 12_000)


@pytest.mark.parametrize(("capture_hz", "playback_hz"), [(48_000, 44_100), (16_000, 48_000)])
def test_devices_of_other_rates_are_resampled(capture_hz, playback_hz):
    def tone(first, count):
        t = np.arange(first, first + count) / capture_hz
        return np.repeat(0.5 * np.sin(2 * np.pi * 440 * t).astype(np.float32)[:, None], 2, axis=1)

    world = World(
        capture=SimulatedCapture(capture_hz, capture_hz // 100),
        playback=SimulatedPlayback(playback_hz, playback_hz // 100),
        sound=tone,
        capture_channels=2,
    )
    world.capture.write(tone(0, 100))  # what was thrown away before does not count as delay
    world.capture.commit_read(100)
    world.run(3)
    delay = world.pipeline.receiver.mouth_to_ear
    assert delay.percentile(1) > 45
    assert delay.max_ms < 95
    heard = world.output[playback_hz : 2 * playback_hz]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() == pytest.approx(440, abs=2)
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    assert spectrum[600:].max() < 2e-3 * spectrum.max()


def test_a_stalled_processor_costs_audio_but_never_delay():
    world = World(sound=sine)
    world.run(3)
    world.pumping = lambda now_s: False
    world.run(0.7)
    assert world.capture.overflows > 0
    world.pumping = lambda now_s: True
    world.run(0.1)
    receiver, sender = world.pipeline.receiver, world.pipeline.sender
    assert sender.dropped_samples > 0
    assert receiver.held_ms <= world.policy.cap_ms
    assert receiver.max_held_ms <= world.policy.cap_ms + 1
    report = world.pipeline.report()
    assert report["playback_underflows"] > 50  # 10 ms each, less what the ring held
    assert report["capture_overflows"] == world.capture.overflows
    assert report["deadline_misses"] == report["playback_underflows"] + report["frames_concealed"]
    world.run(5)
    assert receiver.controller.held_ms == pytest.approx(40, abs=12)


def test_a_call_that_computes_too_long_counts_for_the_frames_that_it_holds_up():
    world = World().run(1)
    engine = world.pipeline.sender.codec.engine
    counts = [world.pipeline.sender.compute.count, world.pipeline.receiver.compute.count]
    for name in ("encode_step", "decode_step"):
        quick = getattr(engine, name)

        def slow(*arguments, name=name, quick=quick):
            time.sleep(0.1)
            setattr(engine, name, quick)
            quick(*arguments)

        setattr(engine, name, slow)
    world.run(0.2)
    for part, before in zip((world.pipeline.sender, world.pipeline.receiver), counts, strict=True):
        assert part.compute.max_ms >= 100
        assert part.compute.count - before >= 15 + 5  # those of 0.2 s, and those that were held up


@pytest.mark.parametrize("extra", [2000, 2031, 2060])
def test_captured_audio_that_is_skipped_leaves_no_click(extra):
    codec = transparent_codec()
    ring = Ring(12_000, 1)
    sender = Sender(codec, ring, 24_000, 9000, lambda *packet: None)
    ring.write(sine(0, 1000))
    sender.pump(0.0)
    ring.write(sine(1000, extra))
    sender.pump(0.1)
    assert sender.dropped_samples == extra - 480
    encoded = np.concatenate([codec.engine.frames[number] for number in range(sender.sequence)])
    steepest = 0.5 * 2 * np.pi * 200 / 24_000
    assert np.abs(np.diff(encoded)).max() < steepest + 1 / 120  # a step of 1 at most, over a fade of 120 samples


@pytest.mark.parametrize("n_frames", [38, 39, 40])
def test_over_the_cap_the_oldest_fades_into_what_is_played_instead(n_frames):
    codec = transparent_codec()
    policy = LatencyPolicy.loopback(40, 10)
    ring = Ring(Receiver.ring_samples(policy, 24_000), 1)
    receiver, encoder = Receiver(codec, ring, 24_000, policy), codec.encoder(9000)
    wave = 0.5 * np.sin(2 * np.pi * 211 / 24_000 * np.arange(320 * n_frames)).astype(np.float32)
    for number in range(n_frames):
        receiver.push(number, encoder.encode(wave[number * 320 : number * 320 + 320]), 0.0)
        if number == 1:
            receiver.pump(0.0)  # the sound has begun when the drop comes
    receiver.pump(0.0)
    assert receiver.held_ms <= policy.cap_ms
    assert receiver.dropped_frames > 20
    out = np.zeros((ring.readable_samples, 1), np.float32)
    ring.read_into(out)
    steepest = 0.5 * 2 * np.pi * 211 / 24_000
    assert np.abs(np.diff(out[:, 0])).max() < 1.1 * (steepest + np.pi / 2 / 320)  # a fade of 320 samples


def test_lost_packets_are_concealed_and_the_delay_does_not_move():
    world = World(link=ImpairedLink(seed=1, loss=0.1, burst_packets=2)).run(20, 0.004)
    report = world.pipeline.report()
    lost = world.pipeline.link.network.lost
    assert report["frames_concealed"] == pytest.approx(lost, abs=8)
    assert report["frames_decoded"] + lost == pytest.approx(report["frames_sent"], abs=6)
    assert world.pipeline.receiver.controller.held_ms == pytest.approx(40, abs=8)
    assert report["playback_underflows"] == 0


def test_late_reordered_and_repeated_packets_are_put_right():
    kind = {"delay_ms": 40, "jitter_ms": 10, "reorder": 0.05, "duplicate": 0.05}
    world = World(policy=LatencyPolicy.network(10), link=ImpairedLink(seed=2, **kind)).run(10)
    receiver = world.pipeline.receiver
    learned = receiver.concealed_frames, receiver.controller.target_ms
    world.run(15)
    assert receiver.arrivals[Arrival.DUPLICATE] + receiver.arrivals[Arrival.LATE] > 50
    assert learned[1] > receiver.policy.target_ms - 20
    assert receiver.concealed_frames - learned[0] < 0.03 * 15 * 75
    assert world.playback.underflows == 0
    assert receiver.max_held_ms <= receiver.policy.cap_ms + 1


def test_the_delay_shrinks_again_when_the_network_calms_down():
    world = World(policy=LatencyPolicy.network(10), link=ImpairedLink(seed=3, jitter_ms=40)).run(10, 0.005)
    receiver = world.pipeline.receiver
    rough = receiver.controller.held_ms
    world.pipeline.link.network.jitter_ms = 0.0
    world.run(25, 0.005)
    assert receiver.controller.held_ms < rough - 30
    assert receiver.controller.held_ms == pytest.approx(receiver.controller.target_ms, abs=8)


def test_devices_that_come_in_bursts_are_given_a_larger_reserve():
    policy = LatencyPolicy.loopback(40, 10, adaptive=True)
    playback = SimulatedPlayback(24_000, 240, late_s=lambda call: 0.03 if call % 50 < 3 else 0.0)
    world = World(policy=policy, playback=playback).run(20)
    early = world.playback.underflows
    world.run(20)
    assert world.playback.underflows - early <= 2


def test_a_stream_that_pauses_begins_again_at_its_target():
    world = World(link=ImpairedLink(seed=4)).run(3)
    world.pipeline.link.network.loss = 0.9
    world.pipeline.link.network._enter_loss, world.pipeline.link.network._leave_loss = 1.0, 0.0
    world.run(4)
    concealed = world.pipeline.receiver.concealed_frames
    assert 60 < concealed < 110  # one second is bridged, then it waits
    world.pipeline.link.network._enter_loss, world.pipeline.link.network._leave_loss = 0.0, 1.0
    world.run(4)
    assert world.pipeline.receiver.controller.held_ms == pytest.approx(40, abs=8)
    assert world.playback.underflows == 0


def test_a_stream_that_leaps_goes_on_from_there_at_its_target():
    codec = transparent_codec()
    policy = LatencyPolicy.loopback(40, 10)
    ring = Ring(Receiver.ring_samples(policy, 24_000), 1)
    receiver, packet = Receiver(codec, ring, 24_000, policy), codec.encoder(9000).encode(np.zeros(320, np.float32))
    receiver.push(0, packet, 0.0)
    receiver.pump(0.0)
    ring.commit_read(ring.readable_samples - 400)
    assert receiver.push(5000, packet, 0.01) is Arrival.JUMP
    assert receiver.held_ms == pytest.approx(40 + 1000 / 75, abs=3)
    receiver.pump(0.01)
    assert receiver.decoded_frames == 2 - receiver.jitter.span_frames


def test_a_device_that_gives_nonsense_is_repaired_and_counted():
    def broken(first, count):
        block = sine(first, count)
        block[3] = np.nan
        block[4] = np.inf
        return block

    world = World(sound=broken).run(1)
    assert world.pipeline.sender.repaired_samples > 100
    assert np.isfinite(world.output).all()


def test_the_same_world_twice_sounds_the_same():
    runs = [World(link=ImpairedLink(seed=7, loss=0.1, jitter_ms=20)).run(3).output for _ in range(2)]
    assert np.array_equal(*runs)


def test_nothing_grows():
    world = World(policy=LatencyPolicy.network(10), link=ImpairedLink(seed=5, loss=0.05, jitter_ms=15))
    world.pipeline.sender.codec.engine.frames.update(dict.fromkeys(range(4096), np.zeros(320, np.float32)))
    world.run(4)
    world.heard.clear()
    tracemalloc.start()
    try:
        world.run(1)
        world.heard.clear()
        before = tracemalloc.get_traced_memory()[0]
        world.run(4)
        world.heard.clear()
        assert tracemalloc.get_traced_memory()[0] - before < 1_200_000  # 300 new frames of the fake codec at most
    finally:
        tracemalloc.stop()


def test_jitter_buffer_says_what_became_of_a_packet():
    def packet(coarse=False):
        return Waiting(b"x", coarse, 0.0)

    buffer = JitterBuffer(8)
    buffer.restart(100)
    assert buffer.put(101, packet()) is Arrival.STORED
    assert buffer.put(101, packet()) is Arrival.DUPLICATE
    assert buffer.put(100, packet(coarse=True)) is Arrival.STORED
    assert buffer.put(100, packet()) is Arrival.IMPROVED
    assert buffer.put(100, packet(coarse=True)) is Arrival.DUPLICATE
    assert buffer.put(99, packet()) is Arrival.LATE
    assert buffer.put(120, packet(coarse=True)) is Arrival.LATE
    assert [buffer.take() is None for _ in range(3)] == [False, False, True]
    assert buffer.put(5000, packet()) is Arrival.JUMP
    assert buffer.next_sequence == 5000
    assert buffer.span_frames == 1


def test_timeline_reckons_from_the_marks_around_a_sample():
    times = Timeline(1000)
    assert np.isnan(times.time_of(0))
    for call in range(200):
        times.mark(10 * call, 5.0 + 0.0101 * call, 5.0 + 0.0101 * call + 0.02)
    assert times.time_of(1905) == pytest.approx(5.0 + 0.0101 * 190 + 0.005)
    assert times.time_of(2100) == pytest.approx(5.0 + 0.0101 * 199 + 0.110)
    assert times.device_delay_s() == pytest.approx(0.02)


@pytest.mark.parametrize(
    "values", [(50, 60, 10, 10), (40, 100, 50, 30), (40, 9000, 10, 10), (40, float("nan"), 10, 10)]
)
def test_a_policy_that_contradicts_itself_is_refused(values):
    with pytest.raises(ConfigError, match="rise in this order"):
        LatencyPolicy(*values)
