"""From the capture ring to packets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.codec import Codec
from streamcodec.engine import Float32
from streamcodec.live.latency import LatencyHistogram
from streamcodec.live.resampler import ShortResampler

SendPacket = Callable[[int, bytes, float], None]
"""Takes sequence number, packet, and when its first sample was in the air (NaN if unknown)."""

_BLOCK_SAMPLES = 512
_FADE_MS = 5.0
_KEEP_MS = 20.0


class Sender:
    """Encodes what a capture ring brings.  Nothing in it grows: what is over the cap in the ring is skipped.

    Parameters
    ----------
    codec : Codec
        Model.
    capture : Ring
        Filled by the device, any number of channels; they are averaged.
    capture_hz : int
        Rate of the device; resampled where it is not the codec's.
    bitrate_bps : float
        At first; `encoder.bitrate_bps` may be set at any time.
    send : callable
        Gets every packet.
    timeline : Timeline, optional
        When captured samples were in the air.
    cap_ms : float
        Most audio to leave waiting in the ring; beyond it all but 20 ms are skipped, with a cross-fade.

    Attributes
    ----------
    sequence, packet_bytes : int
        Packets sent and their bytes.
    dropped_samples, repaired_samples : int
        Skipped to stay under the cap; not finite, and so set to zero.
    level : float
        Peak of the last frame.
    ring_fill, waited, compute : LatencyHistogram
        Audio found in the ring; from the air to the encoder; encoding.
    """

    def __init__(
        self,
        codec: Codec,
        capture: Ring,
        capture_hz: int,
        bitrate_bps: float,
        send: SendPacket,
        *,
        timeline: Timeline | None = None,
        cap_ms: float = 60,
    ) -> None:
        self.codec, self.capture, self.capture_hz = codec, capture, capture_hz
        self.encoder = codec.encoder(bitrate_bps)
        self.timeline = timeline or Timeline(capture_hz)
        self.send = send
        self.sequence = 0
        self.packet_bytes = 0
        self.dropped_samples = 0
        self.repaired_samples = 0
        self.level = 0.0
        self.compute = LatencyHistogram()
        self.waited = LatencyHistogram()
        self.ring_fill = LatencyHistogram()
        self._frame_ms = 1000 * codec.frame_samples / codec.sample_rate_hz
        self.cap_ms = cap_ms
        self._cap_samples = round(cap_ms * capture_hz / 1000)
        self._keep_samples = round(_KEEP_MS * capture_hz / 1000)
        self._fade_samples = round(_FADE_MS * capture_hz / 1000)
        self._resampler = (
            None
            if capture_hz == codec.sample_rate_hz
            else ShortResampler(capture_hz, codec.sample_rate_hz, _BLOCK_SAMPLES)
        )
        self._block = np.zeros(_BLOCK_SAMPLES, np.float32)
        self._tail = np.zeros(self._fade_samples, np.float32)
        self._fading = 0
        self._frame = np.zeros(codec.frame_samples, np.float32)
        self._filled = 0
        self._frame_position = 0.0

    @property
    def delay_ms(self) -> float:
        """Delay that the sender adds by design: one frame and, where it resamples, the filter."""
        return self._frame_ms + (self._resampler.delay_ms if self._resampler else 0.0)

    def pump(self, now_s: float) -> int:
        """Encode all whole frames that are there; how many.

        Of what comes meanwhile at most `cap_ms`: a device that is faster than the encoder must not hold it for ever.
        """
        if self.capture.readable_samples > self._cap_samples:
            self._drop(self.capture.readable_samples - self._keep_samples)
        before = self.sequence
        there = self.capture.readable_samples
        if there:
            self.ring_fill.record(1000 * there / self.capture_hz)
        left = there + self._cap_samples
        while left > 0 and (taken := self._take(self._block[:left])):
            left -= taken
            self._advance(self._block[:taken], now_s)
        return self.sequence - before

    def _take(self, out: Float32) -> int:
        """Move the oldest samples, averaged over channels, into `out`; how many."""
        first, _ = self.capture.acquire_read(len(out))
        taken = len(first)
        if taken:
            part = out[:taken]
            np.mean(first, axis=1, out=part)
            self.capture.commit_read(taken)
            if not np.isfinite(part).all():
                self.repaired_samples += int(np.count_nonzero(~np.isfinite(part)))
                np.nan_to_num(part, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            self._fade_in(part)
        return taken

    def _drop(self, samples: int) -> None:
        """Skip the oldest samples; what they began with is faded out under what comes after them."""
        fade = 0
        while fade < self._fade_samples and (taken := self._take(self._tail[fade:])):
            fade += taken
        self._fading = fade
        skipped = min(samples, self.capture.readable_samples)
        self.capture.commit_read(skipped)
        self.dropped_samples += skipped

    def _fade_in(self, part: Float32) -> None:
        if not self._fading:
            return
        n = min(self._fading, len(part))
        start = self._fade_samples - self._fading
        weight = (np.arange(start, start + n, dtype=np.float32) + 0.5) / self._fade_samples
        part[:n] = weight * part[:n] + (1 - weight) * self._tail[start : start + n]
        self._fading -= n

    def _advance(self, samples: Float32, now_s: float) -> None:
        """Encode every frame that the samples complete."""
        resampler = self._resampler
        position, step = float(self.capture.read_samples - len(samples)), 1.0
        if resampler is not None:
            position -= resampler.pending_samples
            step = resampler.step
            samples = resampler.process(samples)
        done = 0
        while done < len(samples):
            if not self._filled:
                self._frame_position = position + done * step
            n = min(len(samples) - done, len(self._frame) - self._filled)
            self._frame[self._filled : self._filled + n] = samples[done : done + n]
            self._filled += n
            done += n
            if self._filled == len(self._frame):
                self._filled = 0
                self._encode(now_s)

    def _encode(self, now_s: float) -> None:
        captured_s = self.timeline.time_of(self._frame_position)
        begun = time.perf_counter()
        packet = self.encoder.encode(self._frame)
        self.compute.record(1000 * (time.perf_counter() - begun), self._frame_ms)
        if not math.isnan(captured_s):
            self.waited.record(1000 * (now_s - captured_s))
        self.level = float(np.abs(self._frame).max())
        self.packet_bytes += len(packet)
        self.send(self.sequence, packet, captured_s)
        self.sequence += 1
