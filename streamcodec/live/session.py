"""Devices around a pipeline: the only threads are the devices' own and one that pumps."""

from __future__ import annotations

import gc
import sys
import threading
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from streamcodec.audio.devices import CaptureStream, PlaybackStream, find_device
from streamcodec.audio.ring import Ring
from streamcodec.codec import Codec
from streamcodec.live.file_devices import FileDevices
from streamcodec.live.pipeline import Pipeline
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.resampler import ShortResampler

BLOCK_MS = 10.0
CAPTURE_RING_S = 0.5
_LEAST_HOLD_MS = BLOCK_MS + 10
_POLL_S = 0.002
_PATIENCE_S = 3.0
_SWITCH_INTERVAL_S = 0.0005
_WARM_UP_FRAMES = 20
_SETTLED_S = 0.5
_LATE_S = 0.1
_LONGEST_SETTLING_S = 4.0


class Pump(Protocol):
    """What the thread drives."""

    def pump(self, now_s: float) -> int:
        """Do what is due; how much was done."""
        ...


class Devices:
    """A microphone and a speaker with their rings.

    Parameters
    ----------
    codec : Codec
        Its rate is asked of the devices.
    input_device, output_device : str, optional
        Number or part of a name; the default device when None.
    buffer_ms : float
        Buffer to ask of each device.
    """

    def __init__(self, codec: Codec, input_device: str | None, output_device: str | None, buffer_ms: float) -> None:
        wanted_hz = codec.sample_rate_hz
        self.capture = CaptureStream(find_device(input_device, "input"), wanted_hz, BLOCK_MS, buffer_ms)
        self.playback = PlaybackStream(find_device(output_device, "output"), wanted_hz, BLOCK_MS, buffer_ms)
        self.capture_ring = Ring(round(CAPTURE_RING_S * self.capture.rate_hz), self.capture.ring_channels)
        self.playback_ring: Ring

    def make_playback_ring(self, policy: LatencyPolicy) -> Ring:
        """Ring with room for what the policy may hold."""
        self.playback_ring = Ring(Receiver.ring_samples(policy, self.playback.rate_hz), self.playback.ring_channels)
        return self.playback_ring

    def start(self) -> None:
        """Let both run."""
        self.playback.start(self.playback_ring)
        self.capture.start(self.capture_ring)

    def stop(self) -> None:
        """Close both."""
        self.capture.stop()
        self.playback.stop()

    def report(self) -> dict[str, Any]:
        """Names, rates, buffers and xruns."""
        return {
            name: {
                "device": stream.device.name,
                "number": stream.device.number,
                "rate_hz": stream.rate_hz,
                "channels": stream.channels,
                "buffer_ms": stream.latency_ms,
                "xruns": stream.xruns,
                "pauses": stream.pauses,
                "skipped_samples": stream.skipped_samples,
            }
            for name, stream in (("input", self.capture), ("output", self.playback))
        }


class PumpThread:
    """Runs devices and calls a pump until it is stopped or a device fails; use it in a `with` block.

    Inside the block, garbage collection leaves out what was there before, and threads of the interpreter take
    turns more often, so that a callback need not wait.
    """

    def __init__(self, devices: Devices | FileDevices, pump: Pump) -> None:
        self.devices, self._pump = devices, pump
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamcodec pump", daemon=True)
        self._switch_interval_s = sys.getswitchinterval()

    def __enter__(self) -> PumpThread:
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            self.devices.start()
        except BaseException:
            self._restore()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._restore()

    def _restore(self) -> None:
        self.devices.stop()
        sys.setswitchinterval(self._switch_interval_s)
        gc.unfreeze()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it still runs.

        Raises
        ------
        Exception
            What ended it: a DeviceError, as a rule.
        """
        self._stop.wait(seconds)
        if self.error is not None:
            raise self.error
        return not self._stop.is_set()

    def stop(self) -> None:
        """Let the thread end; who waits is told."""
        self._stop.set()

    def _settle(self, started_s: float) -> None:
        """Throw away what is captured until both devices call back evenly: many start with a pause or a backlog."""
        clock, capture = self.devices.playback, self.devices.capture_ring
        even_since_s, backlog_s = started_s, 0.0
        while not self._stop.is_set() and (now_s := clock.now_s) - started_s < _LONGEST_SETTLING_S:
            capture.commit_read(capture.readable_samples)
            self._pump.pump(now_s)
            self._check()
            late_s = now_s - min(self.devices.capture.timeline.last_called_s, clock.timeline.last_called_s)
            delay_s = self.devices.capture.timeline.device_delay_s()
            if not late_s < _LATE_S or delay_s < backlog_s - _LATE_S / 2:
                even_since_s, backlog_s = now_s, delay_s
            backlog_s = max(backlog_s, delay_s)
            if now_s - even_since_s > _SETTLED_S:
                return
            self._stop.wait(_POLL_S)

    def _check(self) -> None:
        self.devices.capture.check(_PATIENCE_S)
        self.devices.playback.check(_PATIENCE_S)

    def _run(self) -> None:
        clock = self.devices.playback
        try:
            if isinstance(self.devices, Devices):
                self._settle(clock.now_s)
            while not self._stop.is_set():
                if not self._pump.pump(clock.now_s):
                    self._stop.wait(_POLL_S)
                self._check()
        except Exception as error:  # raised again where someone waits
            self.error = error
        finally:
            self._stop.set()


class LiveLoopback:
    """Microphone to speaker through the codec.

    Parameters
    ----------
    codec : Codec
        Model.
    bitrate_bps : float
        Bitrate.
    input_device, output_device : str, optional
        Number or part of a name; the default device when None.
    latency_ms : float, optional
        Delay from mouth to ear to aim for; what the devices' buffers leave of it is held.  None holds as little as
        keeps the speaker fed, which is found out while it runs.
    buffer_ms : float
        Buffer to ask of each device.
    devices : Devices or FileDevices, optional
        In place of those that the options before would open.

    Examples
    --------
    ::

        with LiveLoopback(Codec.load(), 6000).running() as running:
            running.wait(10)
    """

    def __init__(
        self,
        codec: Codec,
        bitrate_bps: float = 6000,
        *,
        input_device: str | None = None,
        output_device: str | None = None,
        latency_ms: float | None = None,
        buffer_ms: float = 40.0,
        devices: Devices | FileDevices | None = None,
    ) -> None:
        self.codec = codec
        self.devices = devices = devices or Devices(codec, input_device, output_device, buffer_ms)
        buffers_ms = 0.0 if isinstance(devices, FileDevices) else 2 * buffer_ms
        fixed_ms = buffers_ms + 1000 * codec.frame_samples / codec.sample_rate_hz + 2
        self.aim_ms = None if latency_ms is None else max(latency_ms, fixed_ms + _LEAST_HOLD_MS)
        hold_ms = 2 * _LEAST_HOLD_MS if self.aim_ms is None else self.aim_ms - fixed_ms
        self.policy = LatencyPolicy.loopback(hold_ms, BLOCK_MS, adaptive=latency_ms is None)
        self.pipeline = Pipeline(
            codec,
            devices.capture_ring,
            devices.make_playback_ring(self.policy),
            devices.capture.rate_hz,
            devices.playback.rate_hz,
            bitrate_bps,
            self.policy,
            capture_times=devices.capture.timeline,
            playback_times=devices.playback.timeline,
        )

    def running(self) -> PumpThread:
        """Everything in motion, for a `with` block."""
        warm_up(self.codec)
        return PumpThread(self.devices, self.pipeline)

    def report(self) -> dict[str, Any]:
        """What `Pipeline.report` says, and the devices."""
        report = self.pipeline.report()
        parts = (report["capture_device"], report["playback_device"])
        device_ms = sum(part["max_ms"] for part in parts if part["count"])
        bound_ms = report["algorithmic_ms"] + self.pipeline.sender.cap_ms + self.policy.cap_ms + device_ms
        return {"aim_ms": self.aim_ms, "bound_ms": bound_ms, "devices": self.devices.report(), **report}


def warm_up(codec: Codec) -> None:
    """Run a few frames, so that the first real one meets compiled code and warm caches."""
    encoder, decoder = codec.encoder(codec.config.max_bitrate_bps), codec.decoder()
    frame = np.zeros(codec.frame_samples, np.float32)
    resampler = ShortResampler(codec.sample_rate_hz, codec.sample_rate_hz, len(frame))
    for _ in range(_WARM_UP_FRAMES):
        resampler.process(decoder.decode(encoder.encode(frame)))
    decoder.decode(None)
