"""Which microphones and speakers there are, and which one a number or a part of a name means."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from streamcodec.errors import DeviceError

Kind = Literal["input", "output"]

WITHOUT_DEVICES = "work with files: loopback and call take --input FILE and --output FILE"
"""What one can do where there is no sound device."""

_MOST = 1024
_NO_MORE_AFTER = 16  # numbers in a row that PortAudio does not know


@dataclass(frozen=True)
class Device:
    """One device as PortAudio tells it; `number` is what selects it, `problem` why it cannot be used ("" if it can)."""

    number: int
    name: str
    host_api: str
    input_channels: int
    output_channels: int
    default_rate_hz: int
    default_input: bool
    default_output: bool
    problem: str = ""

    def channels(self, kind: Kind) -> int:
        """Channels that way."""
        return self.input_channels if kind == "input" else self.output_channels


def portaudio() -> Any:
    """The binding to PortAudio.

    Raises
    ------
    DeviceError
        PortAudio is not there or does not start.
    """
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
    """All devices; one that PortAudio or its binding cannot describe has a `problem` and no channels.

    Raises
    ------
    DeviceError
        PortAudio is not there, does not start or cannot tell of a single device.
    """
    sd = portaudio()
    try:
        entries = _all(sd.query_devices)
    except Exception as error:  # the binding passes on whatever a driver causes
        raise DeviceError(f"PortAudio cannot list the devices: {error}; {WITHOUT_DEVICES}") from None
    apis = _api_names(sd)
    default_input, default_output = (_default(sd, kind) for kind in ("input", "output"))
    return [_device(number, entry, apis, default_input, default_output) for number, entry in enumerate(entries)]


def _all(ask: Callable[..., Any]) -> list[Any]:
    """What `ask()` lists.  Where that fails, what `ask(number)` tells, and the exception for what it cannot tell."""
    try:
        return list(ask())
    except Exception as error:
        reason = error
    found: list[Any] = []
    for number in range(_MOST):
        try:
            found.append(ask(number))
        except Exception as error:
            found.append(error)
        if len(found) >= _NO_MORE_AFTER and all(map(_is_missing, found[-_NO_MORE_AFTER:])):
            break
    while found and _is_missing(found[-1]):
        found.pop()
    if not found:
        raise reason
    return found


def _is_missing(entry: Any) -> bool:
    """Whether there may be nothing under this number: a name that cannot be read belongs to something."""
    return isinstance(entry, Exception) and not isinstance(entry, UnicodeError)


def _api_names(sd: Any) -> list[str]:
    try:
        return [_name(api) for api in _all(sd.query_hostapis)]
    except Exception:
        return []


def _default(sd: Any, kind: Kind) -> int:
    try:
        return int(sd.query_devices(kind=kind)["index"])
    except Exception:  # there is none, or it is the one that cannot be described
        return -1


def _device(number: int, entry: Any, apis: list[str], default_input: int, default_output: int) -> Device:
    if isinstance(entry, UnicodeError):
        return _unusable(number, entry, "its name is not UTF-8; give it another name")
    if isinstance(entry, Exception):
        return _unusable(number, entry, f"PortAudio says: {_printable(str(entry))}")
    try:
        api, rate_hz = entry["hostapi"], float(entry["default_samplerate"])
        return Device(
            number, _name(entry), apis[api] if 0 <= api < len(apis) else "unknown",
            max(0, int(entry["max_input_channels"])), max(0, int(entry["max_output_channels"])),
            round(rate_hz) if math.isfinite(rate_hz) and rate_hz > 0 else 0,
            number == default_input, number == default_output,
        )  # fmt: skip
    except Exception:
        return _unusable(number, entry, "PortAudio describes it incompletely")


def _unusable(number: int, entry: Any, problem: str) -> Device:
    return Device(number, _name(entry), "unknown", 0, 0, 0, False, False, problem)


def _name(entry: Any) -> str:
    """Printable name of a device or host API, whatever bytes and control codes it has."""
    try:
        name = getattr(entry, "object", "") if isinstance(entry, Exception) else entry["name"]
    except Exception:
        name = ""
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return _printable(str(name or "")) or "unnamed"


def _printable(text: str) -> str:
    """In one line, without control codes."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def find_device(wanted: str | None, kind: Kind) -> Device:
    """Device by number, by name or a part of it, or the default one for None.

    Raises
    ------
    DeviceError
        There is none, it cannot be used, or the name fits several.
    """
    listed = list_devices()
    usable = [device for device in listed if device.channels(kind)]
    unusable = [device for device in listed if device.problem]
    if not usable:
        broken = "".join(f" ({device.number} {device.name} cannot be used: {device.problem})" for device in unusable)
        raise DeviceError(f"there is no sound {kind} device here{broken}; connect one, or {WITHOUT_DEVICES}")
    if wanted is None:
        defaults = [device for device in usable if (device.default_input if kind == "input" else device.default_output)]
        return (defaults or usable)[0]
    fitting = _fitting(wanted, usable)
    if len(fitting) == 1:
        return fitting[0]
    broken_ones = [] if fitting else _fitting(wanted, unusable)
    if broken_ones:
        what = f"cannot be used: {broken_ones[0].problem}"
    else:
        what = "fits several" if fitting else f"is no {kind} device"
    names = ", ".join(f"{device.number} {device.name} ({device.host_api})" for device in fitting or usable)
    raise DeviceError(f"{wanted!r} {what}; choose by number: {names}")


def _fitting(wanted: str, devices: list[Device]) -> list[Device]:
    """Those of that number; or else of that name; or else with that in their names."""
    text = _comparable(wanted)
    names = {device.number: _comparable(device.name) for device in devices}
    return (
        [device for device in devices if text.isdecimal() and device.number == int(text)]
        or [device for device in devices if names[device.number] == text]
        or [device for device in devices if text in names[device.number]]
    )


def _comparable(name: str) -> str:
    """A name as it is compared: without case, and with letters and their accents composed one way."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
