"""Sound files in place of microphone and speaker, at the pace of the clock: calls and demos without devices."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.audio.files import AudioWriter, is_own_sound
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.codec import Codec
from streamcodec.engine import Float32
from streamcodec.errors import StreamcodecError
from streamcodec.files import check_replaceable, is_stream
from streamcodec.frames import FrameReader
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver

_CAPTURE_RING_S = 0.5
_STOOD_STILL_S = 0.3
_AHEAD_FRAMES, _RESERVE_FRAMES = 32, 4


class _FileSide:
    """What the pump asks of a device."""

    def __init__(self, name: str, rate_hz: int) -> None:
        self.name, self.rate_hz, self.channels = name, rate_hz, 1
        self.timeline = Timeline(rate_hz)
        self.xruns = 0
        self.error: StreamcodecError | OSError | None = None

    @property
    def now_s(self) -> float:
        """The clock of the timeline."""
        return time.monotonic()

    def check(self, patience_s: float) -> None:
        """Raise what ended it."""
        if self.error is not None:
            raise self.error


class FileDevices:
    """Plays a file into the capture ring and records the playback ring to a file, a frame at a time.

    Parameters
    ----------
    codec : Codec
        Rate and frame.
    source : path, optional
        Its first channel is heard; silence when None, after its end, and while a pipe delivers nothing.
    target : path, optional
        Mono recording at the codec's rate; thrown away when None.
    force : bool
        Replace a target that was not made by streamcodec.

    Raises
    ------
    FileExistsError
        The target is the source or, without `force`, somebody's recording.

    Attributes
    ----------
    problem : str or None
        What of the source could not be read, or is not as its header says; whole when it has ended.
    replaces : callable
        Asked at the end whether the recording replaces an older file of its name; that one stays otherwise.
    """

    def __init__(self, codec: Codec, source: Path | None, target: Path | None, *, force: bool = False) -> None:
        if target is not None:
            check_replaceable(target, source, is_own_sound, "was not made by streamcodec", force=force)
        rate_hz = codec.sample_rate_hz
        self.capture = _FileSide(str(source or "silence"), rate_hz)
        self.playback = _FileSide(str(target or "nowhere"), rate_hz)
        self.capture_ring = Ring(round(_CAPTURE_RING_S * rate_hz), 1)
        self.playback_ring: Ring
        self._frame_samples = codec.frame_samples
        self._reader = FrameReader(source, codec) if source else None
        self._frames: Iterator[Float32] = iter(self._reader or ())
        if source and is_stream(source):
            self._frames = _as_it_comes(self._frames, np.zeros((1, codec.frame_samples), np.float32))
        self._ended_s: float | None = None
        self.replaces: Callable[[], bool] = lambda: True
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamcodec files", daemon=True)

    @property
    def problem(self) -> str | None:
        """See the class."""
        return self._reader.problem if self._reader else None

    def has_ended(self, for_s: float) -> bool:
        """Whether the sound of the source has been over for so long."""
        return self._ended_s is not None and time.monotonic() - self._ended_s >= for_s

    def make_playback_ring(self, policy: LatencyPolicy) -> Ring:
        """Ring with room for what the policy may hold."""
        self.playback_ring = Ring(Receiver.ring_samples(policy, self.playback.rate_hz), 1)
        return self.playback_ring

    def start(self) -> None:
        """Begin to play and record."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; the recording is complete then.

        Raises
        ------
        StreamcodecError, OSError
            What ended it, as when there was no room for the recording.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.capture.check(0)

    def report(self) -> dict[str, Any]:
        """Names and rates."""
        return {
            name: {"device": side.name, "rate_hz": side.rate_hz, "xruns": side.xruns}
            for name, side in (("input", self.capture), ("output", self.playback))
        }

    def _run(self) -> None:
        try:
            with suppress(_OldOneStays), ExitStack() as stack:
                writer = None
                if self._target is not None:
                    writer = stack.enter_context(AudioWriter(self._target, self.playback.rate_hz, 1))
                self._play(writer)
                if self._target is not None and os.path.isfile(self._target) and not self.replaces():
                    raise _OldOneStays
        except (StreamcodecError, OSError) as error:
            self.capture.error = error

    def _play(self, writer: AudioWriter | None) -> None:
        interval_s = self._frame_samples / self.capture.rate_hz
        silence = np.zeros((self._frame_samples, 1), np.float32)
        heard = silence.copy()
        due_s = time.monotonic() + interval_s
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            now_s = time.monotonic()
            if now_s - due_s > _STOOD_STILL_S:  # the file goes on where the program stood still
                due_s = now_s
            frame = next(self._frames, None)
            if frame is None and self._ended_s is None and self._reader is not None:
                self._ended_s = now_s
            self.capture.timeline.mark(self.capture_ring.written_samples, due_s - interval_s, now_s)
            self.capture_ring.write(silence if frame is None else frame[:1].T)
            self.playback.timeline.mark(self.playback_ring.read_samples, due_s, now_s)
            self.playback_ring.read_into(heard)
            if writer is not None:
                writer.write(heard)
            due_s += interval_s


class _OldOneStays(Exception):
    """The recording is thrown away."""


def _as_it_comes(frames: Iterator[Float32], silence: Float32) -> Iterator[Float32]:
    """Frames of a pipe, and silence instead of waiting for it; after a pause it goes on when some are there."""
    come: queue.Queue[Float32 | Exception | None] = queue.Queue(_AHEAD_FRAMES)

    def read() -> None:
        try:
            for frame in frames:
                come.put(frame)
            come.put(None)
        except Exception as error:  # raised again where the frames are taken
            come.put(error)

    # a daemon, for it may wait in the pipe for ever
    reader = threading.Thread(target=read, name="streamcodec pipe", daemon=True)
    reader.start()
    dry = True
    while True:
        dry = dry and reader.is_alive() and come.qsize() < _RESERVE_FRAMES
        try:
            item = silence if dry else come.get_nowait()
        except queue.Empty:
            dry, item = True, silence
        if item is None:
            return
        if isinstance(item, Exception):
            raise item
        yield item
