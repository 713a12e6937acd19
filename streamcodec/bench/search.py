"""How many streams keep a deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Ticks:
    """Times of a tick, in which every one of so many streams codes and decodes a frame.

    Parameters
    ----------
    streams : int
        Streams stepped together.
    p50_ms, p99_ms : float
        Time of one tick; infinite where so many do not fit.
    """

    streams: int
    p50_ms: float
    p99_ms: float


def most_streams(
    measure: Callable[[int], Ticks], first: int, deadline_ms: float, most: int, steps_per_octave: int = 32
) -> Ticks:
    """Search for the largest number of streams whose p99 tick ends within the deadline.

    Parameters
    ----------
    measure : callable
        Times so many streams.
    first, most : int
        Where to begin, and what not to exceed; doubled while the deadline is kept, and halved until it is.
    deadline_ms : float
        Time of one tick.
    steps_per_octave : int
        How finely: 32 is to 3 %, 1 is to a power of two times `first`.

    Returns
    -------
    Ticks
        Of the largest number; where not even one stream keeps the deadline, its times and 0 streams.
    """
    best = measure(first)
    high = best.streams
    if best.p99_ms > deadline_ms:
        while best.p99_ms > deadline_ms:
            if best.streams == 1:
                return replace(best, streams=0)
            high = best.streams
            best = measure(high // 2)
        most = high
    while high < most:
        high = min(2 * high, most)
        tried = measure(high)
        if tried.p99_ms > deadline_ms:
            break
        best = tried
    while high - best.streams > max(1, best.streams // steps_per_octave):
        tried = measure((best.streams + high) // 2)
        if tried.p99_ms <= deadline_ms:
            best = tried
        else:
            high = tried.streams
    return best
