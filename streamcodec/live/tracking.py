"""When the frames of a playback ring are heard, to measure the delay from mouth to ear."""

from __future__ import annotations

import math
from collections.abc import Iterator

from streamcodec.audio.timeline import Timeline

_MOST_FRAMES = 256


class FramesInRing:
    """Where frames begin in a playback ring and when they were captured, until the device has taken them."""

    def __init__(self) -> None:
        self._sample = [0.0] * _MOST_FRAMES
        self._captured_s = [0.0] * _MOST_FRAMES
        self._added = self._heard = 0

    def add(self, sample: float, captured_s: float) -> None:
        """Take note of a frame that begins at `sample`; not of one whose `captured_s` is NaN, or the 257th."""
        if math.isnan(captured_s) or self._added - self._heard >= _MOST_FRAMES:
            return
        slot = self._added % _MOST_FRAMES
        self._sample[slot], self._captured_s[slot] = sample, captured_s
        self._added += 1

    def heard_ms(self, played_samples: int, times: Timeline) -> Iterator[float]:
        """Delay from air to air, in ms, of each frame that the device has taken since the last call."""
        while self._heard < self._added:
            slot = self._heard % _MOST_FRAMES
            if self._sample[slot] >= played_samples:
                return
            self._heard += 1
            heard_s = times.time_of(self._sample[slot])
            if not math.isnan(heard_s):
                yield 1000 * (heard_s - self._captured_s[slot])
