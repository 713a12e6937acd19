"""From packets to the playback ring: jitter buffer, decoding, concealment, and a bound on what is held."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.codec import Codec
from streamcodec.engine import Float32
from streamcodec.live.jitter import Arrival, JitterBuffer, Waiting
from streamcodec.live.latency import LatencyHistogram
from streamcodec.live.policy import HoldController, LatencyPolicy
from streamcodec.live.resampler import ShortResampler
from streamcodec.live.tracking import FramesInRing

_IDLE_AFTER_S = 1.0
_STALE_CALLBACK_S = 0.1
_STOOD_STILL_S = 0.5
_CATCH_UP_S = 0.1


class Receiver:
    """Decodes packets into a playback ring so that it is never dry and the audio held never exceeds a cap.

    Parameters
    ----------
    codec : Codec
        Model.
    playback : Ring
        Emptied by the device; every channel gets the same.
    playback_hz : int
        Rate of the device.
    policy : LatencyPolicy
        How much to hold.
    timeline : Timeline, optional
        When played samples are in the air.

    Attributes
    ----------
    decoded_frames, concealed_frames, played_frames, coarse_frames : int
        Played from packets; made up; both; decoded from a coarse copy.  Every packet is counted once: received_frames +
        coarse_frames = decoded_frames + dropped_frames + jitter.waiting_frames + the late and duplicate `arrivals`.
    underflows : int
        How often the device found too little while packets came.
    arrivals : dict of Arrival to int
        What became of the packets.
    """

    def __init__(
        self,
        codec: Codec,
        playback: Ring,
        playback_hz: int,
        policy: LatencyPolicy,
        *,
        timeline: Timeline | None = None,
    ) -> None:
        self.codec, self.playback, self.playback_hz, self.policy = codec, playback, playback_hz, policy
        self.decoder = codec.decoder()
        self.timeline = timeline or Timeline(playback_hz)
        self.frame_s = codec.frame_samples / codec.sample_rate_hz
        self.controller = HoldController(policy, self.frame_s)
        self.jitter = JitterBuffer(math.ceil(policy.cap_ms / 1000 / self.frame_s) + 64)
        self.decoded_frames = self.concealed_frames = self.coarse_frames = self.played_frames = 0
        self.arrivals = dict.fromkeys(Arrival, 0)
        self.underflows = 0
        self.level = 0.0
        self.max_held_ms = 0.0
        self.last_mouth_to_ear_ms = math.nan
        self.compute = LatencyHistogram()
        self.waited = LatencyHistogram()
        self.ring_fill = LatencyHistogram()
        self.mouth_to_ear = LatencyHistogram()
        self._resampler = ShortResampler(codec.sample_rate_hz, playback_hz, codec.frame_samples)
        self._channels = np.zeros((self._resampler.max_out_samples, playback.channels), np.float32)
        fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(codec.frame_samples) + 0.5) / codec.frame_samples)
        self._fade_in: Float32 = fade.astype(np.float32)
        self._silence = np.zeros(codec.frame_samples, np.float32)
        self._running = False
        self._last_arrival_s = -math.inf
        self._pumped_s = math.inf
        self._level_s = math.inf  # when what is held is brought to the target, after this side stood still
        self._made_up = 0  # concealed frames that stand for none yet
        self._underflows = playback.underflows
        self._frames = FramesInRing()
        needed_ms = policy.cap_ms + 2000 * self.frame_s
        if playback.capacity_samples < needed_ms * playback_hz / 1000:
            raise ValueError(
                f"the playback ring holds {playback.capacity_samples} samples; the cap takes {needed_ms:g} ms"
            )

    def restart(self) -> None:
        """Forget the stream; the next packet begins another."""
        self._pause()
        self.controller.restart()
        self.decoder.reset()

    @staticmethod
    def ring_samples(policy: LatencyPolicy, playback_hz: int) -> int:
        """Samples of a playback ring that is large enough for a policy."""
        return math.ceil((policy.cap_ms + 200) * playback_hz / 1000)

    @property
    def dropped_frames(self) -> int:
        """Packets that came and were given up: over the cap, or because the stream went on elsewhere or ended."""
        return self.jitter.dropped_frames

    @property
    def received_frames(self) -> int:
        """Packets that came, coarse copies apart."""
        return sum(self.arrivals.values())

    @property
    def delay_ms(self) -> float:
        """Delay of the filter that sets the speed."""
        return self._resampler.delay_ms

    @property
    def ring_ms(self) -> float:
        """Decoded audio that waits for the device."""
        return 1000 * self.playback.readable_samples / self.playback_hz

    @property
    def held_ms(self) -> float:
        """All audio that waits here, packets included."""
        return self.ring_ms + 1000 * self.frame_s * max(0, self.jitter.span_frames - self._made_up)

    def push(
        self, sequence: int, packet: bytes, now_s: float, *, captured_s: float = math.nan, coarse: bool = False
    ) -> Arrival:
        """Take a packet; `coarse` marks a copy at a lower bitrate, of use only where the packet itself is lost."""
        self._notice_stop(now_s)
        if not self._running:
            if coarse:
                return Arrival.LATE
            self._start(sequence, now_s)
        waiting = Waiting(packet, coarse, now_s, captured_s)
        arrival = self.jitter.put(sequence, waiting)
        if coarse:
            return arrival
        self.arrivals[arrival] += 1
        if arrival is Arrival.JUMP:
            self._begin(sequence, now_s)
        if arrival in (Arrival.STORED, Arrival.IMPROVED, Arrival.JUMP):
            self._last_arrival_s = now_s
            if now_s >= self._level_s:
                self._level(sequence, now_s)
            if self._level_s == math.inf:
                self.controller.arrived(sequence, self._slack_ms(sequence, now_s), now_s)
        return arrival

    def pump(self, now_s: float) -> int:
        """Decode what is due at `now_s`; how many frames went to the playback ring."""
        self._notice_stop(now_s)
        self._pumped_s = now_s
        self._notice_underflow()
        for delay_ms in self._frames.heard_ms(self.playback.read_samples, self.timeline):
            self.last_mouth_to_ear_ms = delay_ms
            self.mouth_to_ear.record(delay_ms)
        if not self._running:
            self._keep_reserve(lambda: self._write(self._silence))
            return 0
        if now_s - self._last_arrival_s > _IDLE_AFTER_S:
            self._pause()
            return 0
        frames = 0
        if self.held_ms > self.policy.cap_ms:
            frames += self._drop(now_s)
        while self.ring_ms < self.controller.ready_ms and self.jitter.has_next:
            self._play(now_s)
            frames += 1
        frames += self._keep_reserve(lambda: self._play(now_s))
        self.max_held_ms = max(self.max_held_ms, self.held_ms)
        return frames

    def _keep_reserve(self, play: Callable[[], None]) -> int:
        """Play until the reserve is there, but not for ever: a device may take frames faster than they are made."""
        frames, most = 0, 1 + math.ceil(self.controller.reserve_ms / 1000 / self.frame_s)
        while frames < most and self.ring_ms < self.controller.reserve_ms:
            play()
            frames += 1
        return frames

    def _start(self, sequence: int, now_s: float) -> None:
        """Begin with silence up to the target, so that the first packet is as early as the others will be."""
        self._running = True
        self.jitter.restart(sequence)
        self._begin(sequence, now_s)

    def _begin(self, sequence: int, now_s: float) -> None:
        self._made_up = 0
        self.controller.resume()
        self._fill(self.controller.target_ms - self._slack_ms(sequence, now_s))

    def _fill(self, missing_ms: float) -> None:
        """Hold more by so much silence."""
        for _ in range(max(0, round(missing_ms / 1000 / self.frame_s * 8))):
            self._write(self._silence[: len(self._silence) // 8])

    def _pause(self) -> None:
        """Wait for the next stretch; what came of this one and was not played is given up."""
        self._running = False
        self.jitter.restart(self.jitter.end_sequence)

    def _notice_stop(self, now_s: float) -> None:
        """See that this side itself stood still: what piled up or ran dry meanwhile tells nothing of network or device.

        Nothing is learned from arrivals and underflows until that has passed, 0.1 s later.
        """
        if now_s - self._pumped_s > _STOOD_STILL_S:
            self._level_s = now_s + _CATCH_UP_S
            self._pumped_s = now_s

    def _level(self, sequence: int, now_s: float) -> None:
        """Hold the target again at the first packet in time: drop what piled up, or fill up with silence."""
        self._level_s = math.inf
        self._drop(now_s)
        self.controller.resume()
        self._fill(self.controller.target_ms - self._slack_ms(sequence, now_s))

    def _slack_ms(self, sequence: int, now_s: float) -> float:
        """How long until the device needs the first sample of a frame."""
        waiting_s = (
            self.playback.readable_samples / self.playback_hz
            + self._resampler.delay_samples / self.codec.sample_rate_hz
        )
        since_s = now_s - self.timeline.last_called_s
        since_s = since_s if 0 <= since_s < _STALE_CALLBACK_S else 0.0
        frames_before = max(0, sequence - self.jitter.next_sequence - self._made_up)
        return 1000 * (waiting_s - since_s + frames_before * self.frame_s)

    def _play(self, now_s: float) -> None:
        """Bring one more frame to the ring: the next packet, or what can be made up for it."""
        jitter = self.jitter
        if not jitter.has_next and not jitter.span_frames:
            self._made_up += 1
            self._hand_over(self._decode(None), None, now_s)
            return
        self._settle()
        waiting = jitter.take()
        self._hand_over(self._decode(waiting), waiting, now_s)

    def _settle(self) -> None:
        """Go past missing frames that were made up before anyone knew which they were."""
        while self._made_up and not self.jitter.has_next and self.jitter.span_frames:
            self._made_up -= 1
            self.jitter.give_up()

    def _drop(self, now_s: float) -> int:
        """Take out the oldest packets down to the target: the one due fades into the one that is played instead."""
        self._settle()
        excess = math.floor((self.held_ms - self.controller.target_ms) / 1000 / self.frame_s)
        excess = min(excess, self.jitter.span_frames - 1)
        if excess < 1:
            return 0
        oldest = self._decode(self.jitter.give_up())
        for _ in range(excess - 1):
            self.jitter.give_up()
        waiting = self.jitter.take()
        newest = self._decode(waiting)
        self._hand_over(oldest + self._fade_in * (newest - oldest), waiting, now_s)
        self._made_up = 0
        self.controller.shifted(-1000 * self.frame_s * excess)
        return 1

    def _decode(self, waiting: Waiting | None) -> Float32:
        begun = time.perf_counter()
        frame = self.decoder.decode(None if waiting is None else waiting.packet)
        self.compute.record(1000 * (time.perf_counter() - begun), 1000 * self.frame_s)
        return frame

    def _hand_over(self, frame: Float32, waiting: Waiting | None, now_s: float) -> None:
        """Play a frame, decoded from a packet or made up for None, and count it."""
        if waiting is None:
            self.concealed_frames += 1
        else:
            self._made_up = 0
            self.decoded_frames += 1
            self.coarse_frames += waiting.coarse
            self.waited.record(1000 * (now_s - waiting.arrived_s))
            self._frames.add(self.playback.written_samples + self._resampler.pending_outputs, waiting.captured_s)
        self.played_frames += 1
        self._write(frame)

    def _write(self, frame: Float32) -> None:
        if self._running:
            self.ring_fill.record(self.ring_ms)
        self._resampler.speed = self.controller.speed
        samples = self._resampler.process(np.ascontiguousarray(frame, np.float32))
        block = self._channels[: len(samples)]
        block[:] = samples[:, None]
        self.playback.write(block)
        self.level = float(np.abs(frame).max())

    def _notice_underflow(self) -> None:
        underflows = self.playback.underflows
        if underflows != self._underflows and self._running:
            self.underflows += underflows - self._underflows
            if self._level_s == math.inf:
                self.controller.underflowed()
        self._underflows = underflows
