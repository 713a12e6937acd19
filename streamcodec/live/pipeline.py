"""Capture ring to playback ring through encoder, packets and decoder: one deterministic step, no thread of its own."""

from __future__ import annotations

from typing import Any, Protocol

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.codec import Codec
from streamcodec.live.latency import LatencyHistogram
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.sender import Sender


class Link(Protocol):
    """Carries packets; it may lose, delay or repeat them."""

    def send(self, now_s: float, sequence: int, packet: bytes, captured_s: float) -> None:
        """Take a packet."""
        ...

    def due(self, now_s: float) -> list[tuple[int, bytes, float]]:
        """Return what has arrived: sequence, packet, captured_s."""
        ...


class DirectLink:
    """Hands every packet over at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, bytes, float]] = []

    def send(self, now_s: float, sequence: int, packet: bytes, captured_s: float) -> None:
        """Take a packet."""
        self._waiting.append((sequence, packet, captured_s))

    def due(self, now_s: float) -> list[tuple[int, bytes, float]]:
        """Return the packets since the last call."""
        arrived, self._waiting = self._waiting, []
        return arrived


class Pipeline:
    """Encodes, carries and decodes what is there, when `pump` is called; the time is told, never looked up.

    Parameters
    ----------
    codec : Codec
        Model.
    capture, playback : Ring
        Filled and emptied by the devices; the playback ring has `Receiver.ring_samples` or more.
    capture_hz, playback_hz : int
        Rates of the devices.
    bitrate_bps : float
        Bitrate.
    policy : LatencyPolicy
        How much audio to hold.
    capture_times, playback_times : Timeline, optional
        Marked by the devices' callbacks.
    link : Link, optional
        Between encoder and decoder; direct when None.

    Examples
    --------
    >>> import numpy as np
    >>> codec, policy = Codec.load(), LatencyPolicy.loopback(target_ms=40, block_ms=10)
    >>> capture, playback = Ring(4800, 1), Ring(Receiver.ring_samples(policy, 24_000), 1)
    >>> pipeline = Pipeline(codec, capture, playback, 24_000, 24_000, 6000, policy)
    >>> _ = capture.write(np.zeros((640, 1), np.float32))
    >>> pipeline.pump(now_s=0.0), playback.readable_samples > 640
    (2, True)
    """

    def __init__(
        self,
        codec: Codec,
        capture: Ring,
        playback: Ring,
        capture_hz: int,
        playback_hz: int,
        bitrate_bps: float,
        policy: LatencyPolicy,
        *,
        capture_times: Timeline | None = None,
        playback_times: Timeline | None = None,
        link: Link | None = None,
    ) -> None:
        self.link = link or DirectLink()
        self.sender = Sender(codec, capture, capture_hz, bitrate_bps, self._send, timeline=capture_times)
        self.receiver = Receiver(codec, playback, playback_hz, policy, timeline=playback_times)
        self.capture_device = DeviceDelay(self.sender.timeline)
        self.playback_device = DeviceDelay(self.receiver.timeline)
        self._now_s = 0.0

    def pump(self, now_s: float) -> int:
        """Do all that can be done at `now_s`; how many frames were encoded or decoded."""
        self._now_s = now_s
        encoded = self.sender.pump(now_s)
        for sequence, packet, captured_s in self.link.due(now_s):
            self.receiver.push(sequence, packet, now_s, captured_s=captured_s)
        decoded = self.receiver.pump(now_s)
        if self.sender.sequence:
            self.capture_device.look()
            self.playback_device.look()
        return max(encoded, decoded)

    def _send(self, sequence: int, packet: bytes, captured_s: float) -> None:
        self.link.send(self._now_s, sequence, packet, captured_s)

    def report(self) -> dict[str, Any]:
        """All counters and latencies as plain data: see `side_report`; and the delay from mouth to ear."""
        receiver = self.receiver
        algorithmic_ms = self.sender.delay_ms + receiver.delay_ms
        return {
            "algorithmic_ms": algorithmic_ms,
            "mouth_to_ear": receiver.mouth_to_ear.summary(),
            "deadline_misses": receiver.concealed_frames + receiver.underflows,
            **side_report(self.sender, receiver, self.capture_device, self.playback_device),
        }

    def histograms(self) -> dict[str, LatencyHistogram]:
        """Every part of the latency by name, for a plot."""
        return {
            "capture device": self.capture_device.delay,
            "capture ring": self.sender.ring_fill,
            "encode": self.sender.compute,
            "jitter buffer": self.receiver.waited,
            "decode": self.receiver.compute,
            "playback ring": self.receiver.ring_fill,
            "playback device": self.playback_device.delay,
            "mouth to ear": self.receiver.mouth_to_ear,
        }


class DeviceDelay:
    """Distribution of the time between a device's callback and the air."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.delay = LatencyHistogram()
        self._seen = 0

    def look(self) -> None:
        """Record the newest callback, if there was one since the last look."""
        if self.timeline.marks != self._seen:
            self._seen = self.timeline.marks
            self.delay.record(1000 * self.timeline.device_delay_s())


def side_report(sender: Sender, receiver: Receiver, capture: DeviceDelay, playback: DeviceDelay) -> dict[str, Any]:
    """Counters and latencies of one side's sender and receiver."""
    frame_s = receiver.frame_s
    seconds = sender.sequence * frame_s
    return {
        "frames_sent": sender.sequence,
        "bitrate_bps": 8 * sender.packet_bytes / seconds if seconds else 0.0,
        "frames_received": receiver.received_frames,
        "frames_waiting": receiver.jitter.waiting_frames,
        "frames_played": receiver.played_frames,
        "frames_decoded": receiver.decoded_frames,
        "frames_concealed": receiver.concealed_frames,
        "frames_from_coarse_copies": receiver.coarse_frames,
        "frames_dropped_over_cap": receiver.dropped_frames,
        "arrivals": {arrival.name.lower(): count for arrival, count in receiver.arrivals.items()},
        "capture_overflows": sender.capture.overflows,
        "capture_overflow_samples": sender.capture.overflow_samples,
        "capture_dropped_samples": sender.dropped_samples,
        "capture_repaired_samples": sender.repaired_samples,
        "playback_underflows": receiver.underflows,
        "playback_overflows": receiver.playback.overflows,
        "target_ms": receiver.controller.target_ms,
        "cap_ms": receiver.policy.cap_ms,
        "held_max_ms": receiver.max_held_ms,
        "speed": receiver.controller.speed,
        "capture_device": capture.delay.summary(),
        "capture_ring": sender.ring_fill.summary(),
        "captured_to_encoded": sender.waited.summary(),
        "encode": sender.compute.summary(),
        "jitter_buffer": receiver.waited.summary(),
        "decode": receiver.compute.summary(),
        "playback_ring": receiver.ring_fill.summary(),
        "playback_device": playback.delay.summary(),
    }
