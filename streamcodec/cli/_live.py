"""What the live verbs share: a line in the terminal that keeps up, and a way to stop."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streamcodec.live import Devices, FileDevices, PumpThread

_REFRESH_S = 0.2
_LONGEST_TURN_S = 1.0
_BARS = " ▁▂▃▄▅▆▇█"
_FLOOR_DB = -60.0

buffer_option = click.option(
    "--buffer-ms", type=click.FloatRange(2, 500), default=40.0, show_default=True, help="Buffer to ask of each device."
)
input_device_option = click.option("--input-device", metavar="DEVICE", help="Number or part of a name.")
output_device_option = click.option("--output-device", metavar="DEVICE", help="Number or part of a name.")
seconds_option = click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after so long.")


def meter(peak: float) -> str:
    """A level as a bar of one character, 60 dB high."""
    level_db = 20 * math.log10(peak) if peak > 0 else _FLOOR_DB
    return _BARS[round(min(max(1 - level_db / _FLOOR_DB, 0.0), 1.0) * (len(_BARS) - 1))]


def device_line(devices: Devices | FileDevices) -> str:
    """Say what runs, once."""
    capture, playback = devices.capture, devices.playback
    return f"{capture.name} ({capture.rate_hz} Hz) -> {playback.name} ({playback.rate_hz} Hz); Ctrl-C stops"


def run_until_stopped(
    running: PumpThread, seconds: float | None, line: Callable[[], str], notice: Callable[[], str] = str
) -> None:
    """Show `line()` five times a second on stderr, where that is a terminal, until time is up, Ctrl-C or SIGTERM.

    Time in which the program itself was stopped does not count.  What `notice()` says is written there once, terminal
    or not, and again when it changes.
    """
    live = sys.stderr.isatty()
    clear = "\r\033[K" if live else ""
    said = ""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    left_s, looked_s = seconds or math.inf, time.monotonic()
    try:
        while left_s > 0 and running.wait(min(_REFRESH_S, left_s)):
            before_s, looked_s = looked_s, time.monotonic()
            left_s -= min(looked_s - before_s, _LONGEST_TURN_S)
            if (news := notice()) != said:
                said = news
                click.echo(clear + news, err=True, nl=bool(news))
            if live:
                click.echo(clear + line(), nl=False, err=True)
    except KeyboardInterrupt:
        pass
    finally:
        if live:
            click.echo(err=True)
