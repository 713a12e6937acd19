"""Signals that end a run: what is half written is removed, and the exit code is 128 + the signal's number."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from streamcodec.files import remove_partial_files

END_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end, on this system."""

_AGAIN_S = 0.02


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """Of the main thread, in which Python runs handlers."""

    received: int | None = None
    waiting = False
    held = 0
    lost = 0
    again: threading.Timer | None = None


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread at SIGINT, SIGTERM and SIGHUP; a second signal ends the process at once.

    A signal that is ignored, as SIGHUP is under nohup, or that already has a handler, is left alone.  Where `Stopped`
    happens to be raised in code that C calls, which loses it, it is raised again soon after.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {}
    for number in END_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            former[number] = signal.signal(number, _on_signal)
    _State.received, _State.waiting = None, False
    hook = sys.unraisablehook

    def on_unraisable(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Stopped):
            _raise_again(lost.exc_value)
        else:
            hook(lost)

    sys.unraisablehook = on_unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        again, _State.again = _State.again, None
        if again is not None and again.is_alive():
            again.cancel()
        else:
            again = None
        for number, handler in former.items():
            signal.signal(number, handler)
        if again is not None:
            raise Stopped(_State.lost)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off `Stopped` until the block ends: for calls of C code that calls back, where an exception would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        if not _State.held:
            _stop_now()


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside `uninterrupted`, let `Stopped` be raised at once: for a read, called from C code, that may wait for ever.

    The exception must be kept there, and raised when the C code is through.
    """
    if threading.current_thread() is not threading.main_thread() or not _State.held:
        yield
        return
    held, _State.held = _State.held, 0
    try:
        _stop_now()
        yield
    finally:
        _State.held = held


def _stop_now() -> None:
    if _State.waiting:
        _State.waiting = False
        assert _State.received is not None
        raise Stopped(_State.received)


def _raise_again(lost: Stopped) -> None:
    _State.lost, _State.received = lost.exit_code - 128, None
    _State.again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), _State.lost))
    _State.again.daemon = True
    _State.again.start()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.received is not None:
        remove_partial_files()
        os._exit(128 + number)
    _State.received = number
    if _State.held:
        _State.waiting = True
    else:
        raise Stopped(number)
