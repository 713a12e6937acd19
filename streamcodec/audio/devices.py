"""Microphones and speakers, by PortAudio: which there are, and streams between them and rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.errors import DeviceError

Kind = Literal["input", "output"]

WITHOUT_DEVICES = "work with files: loopback and call take --input FILE and --output FILE"
"""What one can do where there is no sound device."""

_SANE_DELAY_S = 10.0
_STALE_S = 0.3


@dataclass(frozen=True)
class Device:
    """One device as PortAudio tells it; `number` is what selects it."""

    number: int
    name: str
    host_api: str
    input_channels: int
    output_channels: int
    default_rate_hz: int
    default_input: bool
    default_output: bool

    def channels(self, kind: Kind) -> int:
        """Channels that way."""
        return self.input_channels if kind == "input" else self.output_channels


def _portaudio() -> Any:
    try:
        import sounddevice
    except OSError:
        raise DeviceError(
            "PortAudio is not installed, so no sound device can be used; install it (Debian: apt install "
            f"libportaudio2, macOS: brew install portaudio), or {WITHOUT_DEVICES}"
        ) from None
    except Exception as error:  # its own PortAudioError, which cannot be imported then
        raise DeviceError(f"PortAudio does not start: {error}; {WITHOUT_DEVICES}") from None
    return sounddevice


def list_devices() -> list[Device]:
    """All devices.

    Raises
    ------
    DeviceError
        PortAudio is not there or does not start.
    """
    sd = _portaudio()
    try:
        apis = [api["name"] for api in sd.query_hostapis()]
        found = sd.query_devices()
        default_input, default_output = (_default(sd, kind) for kind in ("input", "output"))
    except sd.PortAudioError as error:
        raise DeviceError(f"PortAudio cannot list the devices: {error}") from None
    return [
        Device(
            number, str(entry["name"]), apis[entry["hostapi"]], int(entry["max_input_channels"]),
            int(entry["max_output_channels"]), round(entry["default_samplerate"]),
            number == default_input, number == default_output,
        )
        for number, entry in enumerate(found)
    ]  # fmt: skip


def _default(sd: Any, kind: str) -> int:
    try:
        return int(sd.query_devices(kind=kind)["index"])
    except sd.PortAudioError:
        return -1


def find_device(wanted: str | None, kind: Kind) -> Device:
    """Device by number, by name or a part of it, or the default one for None.

    Raises
    ------
    DeviceError
        There is none, or the name fits several.
    """
    usable = [device for device in list_devices() if device.channels(kind)]
    if not usable:
        raise DeviceError(f"there is no sound {kind} device here; connect one, or {WITHOUT_DEVICES}")
    if wanted is None:
        defaults = [device for device in usable if (device.default_input if kind == "input" else device.default_output)]
        return (defaults or usable)[0]
    if wanted.isdecimal():
        fitting = [device for device in usable if device.number == int(wanted)]
    else:
        fitting = [device for device in usable if device.name.lower() == wanted.lower()]
        fitting = fitting or [device for device in usable if wanted.lower() in device.name.lower()]
    if len(fitting) != 1:
        names = ", ".join(f"{device.number} {device.name}" for device in (fitting or usable))
        what = "fits several" if fitting else f"is no {kind} device"
        raise DeviceError(f"{wanted!r} {what}; choose by number: {names}")
    return fitting[0]


class _DeviceStream:
    """A stream between a device and a ring: its callback touches the ring, the timeline and a counter, nothing else."""

    kind: Kind

    def __init__(self, device: Device, wanted_hz: int, block_ms: float, buffer_ms: float) -> None:
        self.device, self.name = device, device.name
        self._sd = _portaudio()
        self.rate_hz, self.channels = self._format(wanted_hz)
        self.timeline = Timeline(self.rate_hz)
        self.ring: Ring
        self.xruns = 0
        self.pauses = 0
        self._fallback_delay_s = 0.0
        self._block_samples = round(block_ms * self.rate_hz / 1000)
        self._buffer_s = buffer_ms / 1000
        self._stream: Any = None

    def _format(self, wanted_hz: int) -> tuple[int, int]:
        """Rate and channels that the device takes, those of the codec if it can."""
        sd = self._sd
        check = sd.check_input_settings if self.kind == "input" else sd.check_output_settings
        most = self.device.channels(self.kind)
        reason: Exception | None = None
        for rate_hz in dict.fromkeys((wanted_hz, self.device.default_rate_hz, 48_000, 44_100, 16_000)):
            for channels in (1, 2):
                if channels <= most:
                    try:
                        check(device=self.device.number, channels=channels, dtype="float32", samplerate=rate_hz)
                    except (sd.PortAudioError, ValueError) as error:
                        reason = error
                    else:
                        return rate_hz, channels
        raise self._error("accepts neither mono nor stereo at any usual rate", reason)

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
            self._fallback_delay_s = float(self._stream.latency)
            self._stream.start()
        except self._sd.PortAudioError as error:
            self.stop()
            raise self._error("cannot be opened", error) from None

    def stop(self) -> None:
        """Stop and close; harmless when it is not running or was unplugged."""
        stream, self._stream = self._stream, None
        if stream is not None:
            for step in (stream.abort, stream.close):
                try:
                    step()
                except self._sd.PortAudioError:
                    continue

    @property
    def now_s(self) -> float:
        """The clock of the timeline."""
        try:
            return float(self._stream.time)
        except self._sd.PortAudioError as error:
            raise self._error("stopped", error) from None

    @property
    def latency_ms(self) -> float:
        """Buffer that the device was given, as PortAudio tells it."""
        return 1000 * self._fallback_delay_s

    def check(self, patience_s: float) -> None:
        """Refuse to go on with a device that has not called back for so long.

        Raises
        ------
        DeviceError
            It stopped.
        """
        since_s = self.now_s - self.timeline.last_called_s
        try:
            active = bool(self._stream.active)
        except self._sd.PortAudioError as error:
            raise self._error("stopped", error) from None
        if since_s > patience_s or not active:
            raise self._error("stopped", f"no sound for {since_s:.1f} s (unplugged, or too small a buffer)")

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

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        called_s, air_s = time.currentTime, time.inputBufferAdcTime
        if not 0 <= called_s - air_s < _SANE_DELAY_S:
            air_s = called_s - self._fallback_delay_s
        self.timeline.mark(self.ring.written_samples, air_s, called_s)
        self.ring.write(data)
        if status:
            self.xruns += 1


class PlaybackStream(_DeviceStream):
    """From a ring into a speaker; parameters as `CaptureStream`'s."""

    kind = "output"

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        called_s, air_s = time.currentTime, time.outputBufferDacTime
        if not 0 <= air_s - called_s < _SANE_DELAY_S:
            air_s = called_s + self._fallback_delay_s
        if called_s - self.timeline.last_called_s > _STALE_S:  # what waited through a pause is too old to be heard
            self.ring.commit_read(self.ring.readable_samples)
            self.pauses += 1
        self.timeline.mark(self.ring.read_samples, air_s, called_s)
        self.ring.read_into(data)
        if status:
            self.xruns += 1
