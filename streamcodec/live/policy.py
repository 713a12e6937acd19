"""How much audio a receiver holds: the target it steers to, and the limits that it keeps by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamcodec.errors import ConfigError
from streamcodec.live.resampler import MAX_SPEED_CHANGE

_GAIN_PER_S = 0.2  # speed for each second of error: 10 ms off are 0.2 %
_INTEGRAL_PER_S2 = 0.004
_SMOOTHING_S = 1.0
_SPREAD_PACKETS = 512
_SPREAD_EVERY = 64
_LATE_QUANTILE = 0.98
_UNDERFLOW_STEP_MS = 4.0
_RELAX_MS_PER_S = 0.1
_MOVED_S, _MOVED_FOR_S = 0.25, 0.1


@dataclass(frozen=True)
class LatencyPolicy:
    """Limits on the audio held between a packet's arrival and the playback device.

    Parameters
    ----------
    target_ms : float
        What to steer to, on the average.
    cap_ms : float
        Never more than this: beyond it the oldest audio is dropped.
    reserve_ms : float
        Decoded audio that must always wait for the device; what falls short of it is concealed.
    ready_ms : float
        Packets are decoded as soon as less audio than this waits for the device; equal to the target, it moves
        with it.  The more of the target it is the better a stalled processor is bridged, the less of it the longer a
        late packet is still of use.
    adaptive : bool
        Let the target follow the spread of arrivals, from `reserve_ms` up to half of `cap_ms`, and raise the reserve
        when the device ran dry.
    """

    target_ms: float
    cap_ms: float
    reserve_ms: float
    ready_ms: float
    adaptive: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.reserve_ms <= self.ready_ms <= self.target_ms <= 0.8 * self.cap_ms <= 4000:
            raise ConfigError(
                f"latency: reserve {self.reserve_ms:g}, ready {self.ready_ms:g}, target {self.target_ms:g}, "
                f"cap {self.cap_ms:g} ms; they must rise in this order, the cap to 1.25 targets or more, at most 5000"
            )

    @classmethod
    def loopback(cls, target_ms: float, block_ms: float, adaptive: bool = False) -> LatencyPolicy:
        """For packets that come without delay: decode at once, hold the audio where the device finds it."""
        reserve = min(target_ms, block_ms + 4)
        return cls(target_ms, 2 * target_ms + 40, reserve, target_ms, adaptive)

    @classmethod
    def network(cls, block_ms: float, cap_ms: float = 400) -> LatencyPolicy:
        """For packets that come late, out of order or not at all: decode late, follow the spread of arrivals."""
        reserve = block_ms + 8
        return cls(reserve + 40, max(cap_ms, 2 * reserve + 80), reserve, reserve + 4, adaptive=True)


class HoldController:
    """Steers the held audio to its target by the speed of playback; all of it is arithmetic on what it is told.

    Parameters
    ----------
    policy : LatencyPolicy
        Limits.
    frame_s : float
        Seconds of audio in a packet.
    """

    def __init__(self, policy: LatencyPolicy, frame_s: float) -> None:
        self.policy, self.frame_s = policy, frame_s
        self.target_ms = policy.target_ms
        self.reserve_ms = policy.reserve_ms
        self.needed_frames = 0
        self._relax_ms_per_s = _RELAX_MS_PER_S
        self._offsets = np.zeros(_SPREAD_PACKETS)
        self._spread_ms = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin a stream from another clock."""
        self._integral = 0.0
        self.resume()

    def resume(self) -> None:
        """Begin a stretch of packets; the drift that was learned stays, and the spread until the next is known."""
        self.held_ms = math.nan
        self._set_speed(self._integral)
        self._last_s = math.nan
        self._first_sequence: int | None = None
        self._arrivals = 0
        self._first_s = 0.0
        self._usual_s = 0.0
        self._moved_since_s = math.nan

    @property
    def ready_ms(self) -> float:
        """Decode packets while less audio than this waits for the device."""
        if self.policy.ready_ms == self.policy.target_ms:
            return self.target_ms
        return max(self.policy.ready_ms, self.reserve_ms)

    def arrived(self, sequence: int, held_ms: float, now_s: float) -> None:
        """Take note of a packet that came in time, `held_ms` before its first sample is played."""
        if self._first_sequence is None:
            self._first_sequence, self._first_s, self._last_s = sequence, now_s, now_s
            self.held_ms = held_ms
        elapsed_s = now_s - self._last_s
        self._last_s = now_s
        self.held_ms += (held_ms - self.held_ms) * min(1.0, self.frame_s / _SMOOTHING_S)
        offset_s = now_s - self._first_s - (sequence - self._first_sequence) * self.frame_s
        if self._moved(offset_s, now_s):
            self._first_sequence, self._first_s, self._arrivals = sequence, now_s, 0
            offset_s = self._usual_s = 0.0
        self._offsets[self._arrivals % _SPREAD_PACKETS] = 1000 * offset_s
        self._arrivals += 1
        if self.policy.adaptive and self._arrivals % _SPREAD_EVERY == 0:
            known = self._offsets[: min(self._arrivals, _SPREAD_PACKETS)]
            self._spread_ms = float(np.quantile(known, _LATE_QUANTILE) - known.mean())
        self._retarget(elapsed_s)
        self._steer(elapsed_s)

    def _moved(self, offset_s: float, now_s: float) -> bool:
        """Whether packets come so much later for so long that the sender stood still; those of a network catch up."""
        if offset_s - self._usual_s < _MOVED_S:
            self._usual_s += (offset_s - self._usual_s) * self.frame_s / _SMOOTHING_S
            self._moved_since_s = math.nan
            return False
        if math.isnan(self._moved_since_s):
            self._moved_since_s = now_s
        if now_s - self._moved_since_s < _MOVED_FOR_S:
            return False
        self._moved_since_s = math.nan
        return True

    def underflowed(self) -> None:
        """The device ran dry: hold a larger reserve, and give it up more slowly each time."""
        if self.policy.adaptive:
            self._relax_ms_per_s /= 2
            self.reserve_ms = min(self.reserve_ms + _UNDERFLOW_STEP_MS, self.policy.cap_ms / 4)
            self._retarget(0.0)

    def _retarget(self, elapsed_s: float) -> None:
        if not self.policy.adaptive:
            return
        self.reserve_ms = max(self.policy.reserve_ms, self.reserve_ms - self._relax_ms_per_s * elapsed_s)
        frame_ms = 1000 * self.frame_s
        wanted = self.reserve_ms + self._spread_ms + (0.5 + self.needed_frames) * frame_ms
        self.target_ms = min(max(wanted, self.reserve_ms), self.policy.cap_ms / 2)

    def _steer(self, elapsed_s: float) -> None:
        error_s = (self.held_ms - self.target_ms) / 1000
        proportional = _GAIN_PER_S * error_s
        integral = self._integral + _INTEGRAL_PER_S2 * error_s * elapsed_s
        if abs(proportional + integral) <= MAX_SPEED_CHANGE or abs(integral) < abs(self._integral):
            self._integral = integral
        self._set_speed(proportional + self._integral)

    def _set_speed(self, change: float) -> None:
        self.speed = 1 + min(max(change, -MAX_SPEED_CHANGE), MAX_SPEED_CHANGE)

    def shifted(self, change_ms: float) -> None:
        """Audio was dropped: the average moves with it at once."""
        self.held_ms += change_ms
