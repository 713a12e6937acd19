"""Streams between microphones or speakers and rings, by PortAudio."""

from __future__ import annotations

import math
from contextlib import suppress
from time import perf_counter
from typing import Any, Literal

from streamcodec.audio.device_list import WITHOUT_DEVICES, Device, Kind, find_device, list_devices, portaudio
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.errors import DeviceError

__all__ = ["WITHOUT_DEVICES", "CaptureStream", "Device", "Kind", "PlaybackStream", "find_device", "list_devices"]

_USUAL_RATES_HZ = (48_000, 44_100, 16_000, 96_000, 32_000, 88_200, 192_000, 8_000)
_USUAL_CHANNELS = (3, 4, 5, 6, 7, 8, 10, 12, 16, 18, 20, 24, 32, 64)
_SANE_DELAY_S = 10.0
_STALE_S = 0.3
_LONGEST_TURN_S = 0.1


class _DeviceStream:
    """A stream between a device and a ring: its callback touches the ring, the timeline and a counter, nothing else."""

    kind: Kind

    def __init__(self, device: Device, wanted_hz: int, block_ms: float, buffer_ms: float) -> None:
        self.device, self.name = device, device.name
        self._sd = portaudio()
        self.rate_hz, self.channels = self._format(wanted_hz)
        self.timeline = Timeline(self.rate_hz)
        self.ring: Ring
        self.xruns = 0
        self.pauses = self.skipped_samples = 0
        self._block_samples = round(block_ms * self.rate_hz / 1000)
        self._buffer_s = self._fallback_delay_s = buffer_ms / 1000
        self._stream: Any = None
        self._driver_s = 0.0
        self._marks_seen = 0
        self._checked_s = math.inf
        self._silent_s = 0.0

    def _format(self, wanted_hz: int) -> tuple[int, int]:
        """Rate and channels that the device takes, those of the codec if it can, all of its own if it must."""
        check = self._sd.check_input_settings if self.kind == "input" else self._sd.check_output_settings
        most = self.device.channels(self.kind)
        few = [channels for channels in (1, 2) if channels <= most]
        many = [channels for channels in dict.fromkeys((most, *_USUAL_CHANNELS)) if 2 < channels <= most]
        rates = [hz for hz in dict.fromkeys((wanted_hz, self.device.default_rate_hz, *_USUAL_RATES_HZ)) if hz > 0]
        reason: Exception | None = None
        for counts in (few, many):
            for rate_hz in rates:
                for channels in counts:
                    try:
                        check(device=self.device.number, channels=channels, dtype="float32", samplerate=rate_hz)
                    except Exception as error:  # PortAudio's, or what its binding makes of a driver's answer
                        reason = error
                    else:
                        return rate_hz, channels
        raise self._error("accepts no usual number of channels at any usual rate", reason)

    @property
    def ring_channels(self) -> int:
        """Channels that its ring needs: mono or stereo, whatever else the device has."""
        raise NotImplementedError

    def _error(self, what: str, reason: object) -> DeviceError:
        return DeviceError(
            f"{self.kind} device {self.device.number} ({self.device.name}) {what}: {reason}; "
            "see `streamcodec devices` and choose another"
        )

    def start(self, ring: Ring) -> None:
        """Open the device and let it run; it fills or empties `ring` from now on."""
        self.ring = ring
        stream_type = self._sd.InputStream if self.kind == "input" else self._sd.OutputStream
        try:
            self._stream = stream_type(
                samplerate=self.rate_hz,
                blocksize=self._block_samples,
                device=self.device.number,
                channels=self.channels,
                dtype="float32",
                latency=self._buffer_s,
                callback=self._callback,
            )
            latency_s = float(self._stream.latency)
            if 0 < latency_s < _SANE_DELAY_S:
                self._fallback_delay_s = latency_s
            self._stream.start()
        except Exception as error:
            self.stop()
            raise self._error("cannot be opened", error) from None

    def stop(self) -> None:
        """Stop and close; harmless when it is not running or was unplugged."""
        stream, self._stream = self._stream, None
        if stream is not None:
            for step in (stream.abort, stream.close):
                with suppress(Exception):
                    step()

    @property
    def now_s(self) -> float:
        """The clock of the timeline: the program's own, since a driver's may stand still, jump or be missing."""
        return perf_counter()

    @property
    def latency_ms(self) -> float:
        """Buffer that the device was given, as PortAudio tells it."""
        return 1000 * self._fallback_delay_s

    def check(self, patience_s: float) -> None:
        """Refuse to go on with a device that has not called back for so long.

        Only time in which the program itself ran counts, 0.1 s a call of this at most: a program that was stopped
        could not be called back.

        Raises
        ------
        DeviceError
            It stopped.
        """
        now_s, marks = self.now_s, self.timeline.marks
        ran_s = min(max(now_s - self._checked_s, 0.0), _LONGEST_TURN_S)
        self._silent_s = self._silent_s + ran_s if marks == self._marks_seen else 0.0
        self._checked_s, self._marks_seen = now_s, marks
        silent = self._silent_s > patience_s
        try:
            if silent:
                float(self._stream.time)  # a driver that is gone says why
            active = not marks or bool(self._stream.active)
        except Exception as error:
            raise self._error("stopped", error) from None
        if silent or not active:
            raise self._error("stopped", f"no sound for {self._silent_s:.1f} s (unplugged, or too small a buffer)")

    def _delay_s(self, time: Any, way: Literal[-1, 1]) -> float:
        """Seconds between a callback and the air: by the driver's clock where that runs, else by its buffer."""
        try:
            current_s = time.currentTime
            delay_s = way * ((time.outputBufferDacTime if way > 0 else time.inputBufferAdcTime) - current_s)
        except Exception:
            return self._fallback_delay_s
        runs = current_s > self._driver_s
        self._driver_s = current_s if math.isfinite(current_s) else 0.0
        return delay_s if runs and 0 < delay_s < _SANE_DELAY_S else self._fallback_delay_s

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        raise NotImplementedError


class CaptureStream(_DeviceStream):
    """From a microphone into a ring.

    Parameters
    ----------
    device : Device
        See `find_device`.
    wanted_hz : int
        Rate to ask for; `rate_hz` tells what the device takes.
    block_ms, buffer_ms : float
        Length of a callback's block, and of the device's buffer.
    """

    kind = "input"

    @property
    def ring_channels(self) -> int:
        """Both of a stereo device, which are averaged; of more only the first: the others may be unconnected."""
        return self.channels if self.channels <= 2 else 1

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        called_s = perf_counter()
        self.timeline.mark(self.ring.written_samples, called_s - self._delay_s(time, -1), called_s)
        self.ring.write(data[:, : self.ring.channels])
        if status:
            self.xruns += 1


class PlaybackStream(_DeviceStream):
    """From a ring into a speaker; parameters as `CaptureStream`'s."""

    kind = "output"

    @property
    def ring_channels(self) -> int:
        """The first two; the others of a device that must be opened with more stay silent."""
        return min(self.channels, 2)

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        called_s = perf_counter()
        if called_s - self.timeline.last_called_s > _STALE_S:  # what waited through a pause is too old to be heard
            stale = self.ring.readable_samples
            self.ring.commit_read(stale)
            self.skipped_samples += stale
            self.pauses += 1
        self.timeline.mark(self.ring.read_samples, called_s + self._delay_s(time, 1), called_s)
        channels = self.ring.channels
        self.ring.read_into(data[:, :channels])
        data[:, channels:] = 0
        if status:
            self.xruns += 1
