"""Latency as a distribution: a log-linear histogram of fixed size, as HdrHistogram has it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_SUB_BITS = 7  # values are kept to one part in 2^7
_FLOOR_MS = 2.0**-10
_OCTAVES = 30


class LatencyHistogram:
    """Counts of durations from 1 us to 12 days, each kept to better than 1 %; recording allocates nothing.

    Attributes
    ----------
    count : int
        Values recorded.
    max_ms, sum_ms : float
        Largest value and sum, exact.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_OCTAVES << _SUB_BITS, np.int64)
        self.count = 0
        self.max_ms = 0.0
        self.sum_ms = 0.0

    def record(self, value_ms: float, expected_interval_ms: float | None = None) -> None:
        """Count a value.

        With the interval at which values were due, a value longer than it also stands for those that it held
        up: value - interval, value - 2 intervals, ... (coordinated omission).
        """
        self._count(value_ms)
        if expected_interval_ms is not None and expected_interval_ms > 0:
            missing = value_ms - expected_interval_ms
            while missing >= expected_interval_ms:
                self._count(missing)
                missing -= expected_interval_ms

    def _count(self, value_ms: float) -> None:
        mantissa, exponent = math.frexp(max(value_ms, _FLOOR_MS) / _FLOOR_MS)
        index = ((exponent - 1) << _SUB_BITS) + int((2 * mantissa - 1) * (1 << _SUB_BITS))
        self.counts[min(index, len(self.counts) - 1)] += 1
        self.count += 1
        self.sum_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)

    def percentile(self, percent: float) -> float:
        """Smallest recorded value, to 1 %, that `percent` of the values do not exceed; NaN when empty."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(self._upper_ms(index), self.max_ms)

    @staticmethod
    def _upper_ms(index: int) -> float:
        octave, sub = divmod(index, 1 << _SUB_BITS)
        return float(math.ldexp(1 + (sub + 1) / (1 << _SUB_BITS), octave) * _FLOOR_MS)

    def buckets(self) -> list[tuple[float, int]]:
        """Upper edge in ms and count of every bucket that holds values."""
        return [(self._upper_ms(int(index)), int(self.counts[index])) for index in np.flatnonzero(self.counts)]

    def merge(self, other: LatencyHistogram) -> None:
        """Add another histogram's values."""
        self.counts += other.counts
        self.count += other.count
        self.sum_ms += other.sum_ms
        self.max_ms = max(self.max_ms, other.max_ms)

    def summary(self) -> dict[str, Any]:
        """Count, mean, p50, p99, p99.9 and max, in ms."""
        return {
            "count": self.count,
            "mean_ms": self.sum_ms / self.count if self.count else math.nan,
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "p99.9_ms": self.percentile(99.9),
            "max_ms": self.max_ms,
        }

    def __str__(self) -> str:
        facts = self.summary()
        names = ("p50", "p99", "p99.9", "max")
        return ", ".join(f"{name} {facts[f'{name}_ms']:.2f} ms" for name in names)
