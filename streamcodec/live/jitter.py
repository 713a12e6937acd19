"""The jitter buffer: packets wait here, in order, for the time to decode them."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Arrival(enum.Enum):
    """What became of a packet that arrived."""

    STORED = enum.auto()
    """It waits for its turn."""
    IMPROVED = enum.auto()
    """It took the place of the coarse copy of its frame."""
    DUPLICATE = enum.auto()
    """Its frame is there already, as good or better."""
    LATE = enum.auto()
    """Its frame was played or given up."""
    JUMP = enum.auto()
    """It is too far ahead to be of this stretch; what waited was given up, and the stream goes on from it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A packet and what is known about it; `captured_s` is NaN where the sender's clock is not ours."""

    packet: bytes
    coarse: bool
    arrived_s: float
    captured_s: float = math.nan


class JitterBuffer:
    """At most `capacity_frames` packets, by sequence number.

    Parameters
    ----------
    capacity_frames : int
        Reach: a packet further ahead of the next frame to play is a jump.

    Attributes
    ----------
    waiting_frames, dropped_frames : int
        Packets that wait here; that were given up.  Coarse copies count in neither.
    """

    def __init__(self, capacity_frames: int) -> None:
        self.capacity_frames = capacity_frames
        self._slots: list[Waiting | None] = [None] * capacity_frames
        self.next_sequence = 0
        self.end_sequence = 0
        self.waiting_frames = 0
        self.dropped_frames = 0

    @property
    def span_frames(self) -> int:
        """Frames from the next one to play up to the newest that came, missing ones included."""
        return self.end_sequence - self.next_sequence

    @property
    def has_next(self) -> bool:
        """Whether the next frame to play is here."""
        return self._slots[self.next_sequence % self.capacity_frames] is not None

    def restart(self, sequence: int) -> None:
        """Give up what waits; the stream goes on from `sequence`."""
        self._slots = [None] * self.capacity_frames
        self.next_sequence = self.end_sequence = sequence
        self.dropped_frames += self.waiting_frames
        self.waiting_frames = 0

    def put(self, sequence: int, waiting: Waiting) -> Arrival:
        """Store a packet, or refuse it."""
        ahead = sequence - self.next_sequence
        if ahead < 0:
            return Arrival.LATE
        result = Arrival.STORED
        if ahead >= self.capacity_frames:
            if waiting.coarse:
                return Arrival.LATE
            self.restart(sequence)
            result = Arrival.JUMP
        slot = sequence % self.capacity_frames
        present = self._slots[slot]
        if present is not None:
            if waiting.coarse or not present.coarse:
                return Arrival.DUPLICATE
            result = Arrival.IMPROVED
        self._slots[slot] = waiting
        self.waiting_frames += not waiting.coarse
        self.end_sequence = max(self.end_sequence, sequence + 1)
        return result

    def take(self) -> Waiting | None:
        """Go on by one frame; its packet, or None where it is missing."""
        slot = self.next_sequence % self.capacity_frames
        waiting, self._slots[slot] = self._slots[slot], None
        self.next_sequence += 1
        self.end_sequence = max(self.end_sequence, self.next_sequence)
        self.waiting_frames -= waiting is not None and not waiting.coarse
        return waiting

    def give_up(self) -> Waiting | None:
        """Go on by one frame that is not played; its packet, which counts as dropped, or None where it is missing."""
        waiting = self.take()
        self.dropped_frames += waiting is not None and not waiting.coarse
        return waiting
