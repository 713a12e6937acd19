"""When each sample was in the air: marks that an audio callback leaves and another thread reads, without a lock."""

from __future__ import annotations

import math

_SLOTS = 64
_SAFE_SLOTS = _SLOTS - 8  # the writer is at work near the oldest


class Timeline:
    """Air times of a device's samples, from marks left once a callback.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the device, to reckon between marks.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._samples = [0] * _SLOTS
        self._air_s = [0.0] * _SLOTS
        self._called_s = [0.0] * _SLOTS
        self.marks = 0

    def mark(self, first_sample: int, air_s: float, called_s: float) -> None:
        """Tell that `first_sample`, counted from the start of the stream, is in the air at `air_s`.

        `called_s` is when the callback ran.  For the callback's thread alone.
        """
        slot = self.marks % _SLOTS
        self._samples[slot] = first_sample
        self._air_s[slot] = air_s
        self._called_s[slot] = called_s
        self.marks += 1

    @property
    def last_called_s(self) -> float:
        """When the callback last ran; NaN before the first."""
        return self._called_s[(self.marks - 1) % _SLOTS] if self.marks else math.nan

    def device_delay_s(self) -> float:
        """Seconds between the air and the last callback, either way; NaN before the first."""
        slot = (self.marks - 1) % _SLOTS
        return abs(self._air_s[slot] - self._called_s[slot]) if self.marks else math.nan

    def time_of(self, sample: float) -> float:
        """Air time of a sample, reckoned from the last mark at or before it, else from the oldest; NaN without one."""
        newest = self.marks - 1
        if newest < 0:
            return math.nan
        oldest = max(0, newest - _SAFE_SLOTS + 1)
        at = newest
        while at > oldest and self._samples[at % _SLOTS] > sample:
            at -= 1
        slot = at % _SLOTS
        return self._air_s[slot] + (sample - self._samples[slot]) / self.sample_rate_hz
