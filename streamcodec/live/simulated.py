"""Sound devices and a network made of arithmetic, on a clock that a test turns: for tests, benchmarks and soaks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.engine import Float32

Item = TypeVar("Item")


class SimulatedDevice:
    """Calls back at even intervals of its own clock, which may run fast or slow.

    Parameters
    ----------
    sample_rate_hz : int
        Nominal rate.
    block_samples : int
        Samples a callback.
    drift_ppm : float
        How much faster its clock runs than the test's.
    late_s : callable, optional
        Extra delay of callback n, in seconds.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        block_samples: int,
        drift_ppm: float = 0.0,
        late_s: Callable[[int], float] | None = None,
    ) -> None:
        self.block_samples = block_samples
        self.nominal_s = block_samples / sample_rate_hz
        self.interval_s = self.nominal_s / (1 + drift_ppm * 1e-6)
        self.late_s = late_s
        self.calls = 0

    def due(self, now_s: float) -> list[float]:
        """Ideal times of the callbacks up to now."""
        times = []
        while (self.calls + 1) * self.interval_s + (self.late_s(self.calls) if self.late_s else 0.0) <= now_s:
            self.calls += 1
            times.append(self.calls * self.interval_s)
        return times


class SimulatedCapture(SimulatedDevice):
    """A microphone that hears `sound(first_sample, n)`, without delay of its own."""

    def run(self, now_s: float, ring: Ring, times: Timeline, sound: Callable[[int, int], Float32]) -> None:
        """Call back as often as is due."""
        for ideal_s in self.due(now_s):
            first = (round(ideal_s / self.interval_s) - 1) * self.block_samples
            times.mark(ring.written_samples, ideal_s - self.interval_s, now_s)
            ring.write(sound(first, self.block_samples))


class SimulatedPlayback(SimulatedDevice):
    """A speaker without delay of its own; `heard` gets every block."""

    def run(self, now_s: float, ring: Ring, times: Timeline, heard: Callable[[Float32], None] | None = None) -> None:
        """Call back as often as is due."""
        block = np.zeros((self.block_samples, ring.channels), np.float32)
        for ideal_s in self.due(now_s):
            times.mark(ring.read_samples, ideal_s, now_s)
            ring.read_into(block)
            if heard is not None:
                heard(block)


class ImpairedNetwork(Generic[Item]):
    """Loses in bursts, delays, reorders and duplicates what is sent through it; the same seed does the same again.

    Parameters
    ----------
    seed : int
        Of its random numbers.
    loss : float
        Part of the packets that is lost, 0 to 0.9.
    burst_packets : float
        Mean length of a run of losses (Gilbert's model); 1 / (1 - loss) and less is independent loss.
    delay_ms, jitter_ms : float
        Least delay, and the mean of the exponentially distributed rest.
    reorder, duplicate : float
        Part that is held back by 30 ms more, and that comes twice.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        loss: float = 0.0,
        burst_packets: float = 1.0,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
    ) -> None:
        self._random = np.random.default_rng(seed)
        self.loss, self.delay_ms, self.jitter_ms = loss, delay_ms, jitter_ms
        self.reorder, self.duplicate = reorder, duplicate
        burst_packets = max(burst_packets, 1 / (1 - loss))
        self._leave_loss = 1 / burst_packets
        self._enter_loss = self._leave_loss * loss / (1 - loss)
        self._losing = False
        self._queue: list[tuple[float, int, Item]] = []
        self.sent = self.lost = 0

    def send(self, now_s: float, item: Item) -> None:
        """Take a packet."""
        self.sent += 1
        chance = self._random.random()
        self._losing = chance >= self._leave_loss if self._losing else chance < self._enter_loss
        if self._losing:
            self.lost += 1
            return
        copies = 2 if self._random.random() < self.duplicate else 1
        for copy in range(copies):
            delay_ms = self.delay_ms + self._random.exponential(1.0) * self.jitter_ms
            if self._random.random() < self.reorder:
                delay_ms += 30
            heapq.heappush(self._queue, (now_s + delay_ms / 1000, 2 * self.sent + copy, item))

    def due(self, now_s: float) -> list[Item]:
        """Return what has arrived by now, in the order of arrival."""
        arrived = []
        while self._queue and self._queue[0][0] <= now_s:
            arrived.append(heapq.heappop(self._queue)[2])
        return arrived
