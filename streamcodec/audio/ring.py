"""A ring of samples between one producer and one consumer, in threads or in processes, without a lock.

All memory is there from the start; nothing waits.  Two counters that only grow tell how much was written and read, each
stored by one side alone and only after the samples it tells of.  The interpreter's lock keeps that order
between threads; between processes (and without that lock) it is the processor's, which x86-64 keeps and ARM does not
promise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import AudioError

Float32 = NDArray[np.float32]

_MAGIC = 0x31474E49524353  # "SCRING1"
_LINE_BYTES = 64  # the geometry, the producer's and the consumer's counters have a cache line each
_DATA_OFFSET = 3 * _LINE_BYTES

_TOTAL, _EVENTS, _MISSED = range(3)


class Ring:
    """Ring buffer of float32 [capacity_samples, channels] for one producer and one consumer.

    The producer calls `acquire_write`, fills the views and calls `commit_write`, or just `write`; the consumer calls
    `acquire_read`, uses the views and calls `commit_read`, or just `read_into`.  `write` drops what finds no room and
    `read_into` gives silence for what is not there; both are counted.  None of them allocates memory for samples.

    Parameters
    ----------
    capacity_samples : int
        Samples per channel that fit.
    channels : int
        Channels.
    buffer : writable buffer or None
        At least `required_bytes`, aligned to 8 bytes, such as `multiprocessing.shared_memory.SharedMemory.buf`; it is
        set up as an empty ring, which the other side opens with `attach`.  None makes a private one.

    Examples
    --------
    >>> ring = Ring(capacity_samples=4, channels=1)
    >>> ring.write(np.ones((3, 1), np.float32)), ring.readable_samples, ring.writable_samples
    (3, 3, 1)
    """

    def __init__(self, capacity_samples: int, channels: int, buffer: Any = None) -> None:
        n_bytes = self.required_bytes(capacity_samples, channels)
        view = self._bytes_of(bytearray(n_bytes) if buffer is None else buffer)
        if len(view) < n_bytes:
            raise AudioError(
                f"the buffer is {len(view)} bytes; {capacity_samples} samples of {channels} channels take {n_bytes}."
            )
        view[:_DATA_OFFSET] = bytes(_DATA_OFFSET)
        geometry = view[:_LINE_BYTES].cast("q")
        geometry[1], geometry[2] = capacity_samples, channels
        geometry[0] = _MAGIC
        geometry.release()
        self._map(view)

    @staticmethod
    def required_bytes(capacity_samples: int, channels: int) -> int:
        """Bytes of a buffer for a ring of that size.

        Raises
        ------
        AudioError
            The size is not at least one sample of one channel.
        """
        if capacity_samples < 1 or channels < 1:
            raise AudioError(f"a ring of {capacity_samples} samples, {channels} channels; both are 1 or more.")
        return _DATA_OFFSET + capacity_samples * channels * np.dtype(np.float32).itemsize

    @classmethod
    def attach(cls, buffer: Any) -> Ring:
        """Open the ring that the other side set up in `buffer`.

        Raises
        ------
        AudioError
            There is no ring in it.
        """
        view = cls._bytes_of(buffer)
        geometry = [0, 0, 0]
        if len(view) >= _DATA_OFFSET:
            with view[:_LINE_BYTES].cast("q") as line:
                geometry = line.tolist()
        if geometry[0] != _MAGIC or min(geometry[1:3]) < 1 or cls.required_bytes(geometry[1], geometry[2]) > len(view):
            view.release()
            raise AudioError("the buffer holds no ring; let the other side set one up first.")
        ring = cls.__new__(cls)
        ring._map(view)
        return ring

    @staticmethod
    def _bytes_of(buffer: Any) -> memoryview:
        view = memoryview(buffer)
        if view.readonly or not view.contiguous:
            raise AudioError("the buffer of a ring must be writable and contiguous.")
        return view.cast("B")

    def _map(self, view: memoryview) -> None:
        with view[:_LINE_BYTES].cast("q") as geometry:
            self.capacity_samples: int = geometry[1]
            self.channels: int = geometry[2]
        self._producer = view[_LINE_BYTES : 2 * _LINE_BYTES].cast("q")
        self._consumer = view[2 * _LINE_BYTES : 3 * _LINE_BYTES].cast("q")
        count = self.capacity_samples * self.channels
        data: Float32 = np.frombuffer(view, np.float32, count, _DATA_OFFSET)
        self._data = data.reshape(self.capacity_samples, self.channels)
        self._empty = self._data[:0]
        view.release()

    def release(self) -> None:
        """Let go of the buffer, so that shared memory can be closed; the ring is of no use afterwards."""
        self._data = self._empty = np.zeros((0, self.channels), np.float32)
        self._producer.release()
        self._consumer.release()

    @property
    def written_samples(self) -> int:
        """Samples ever written."""
        return self._producer[_TOTAL]

    @property
    def read_samples(self) -> int:
        """Samples ever read."""
        return self._consumer[_TOTAL]

    @property
    def readable_samples(self) -> int:
        """Samples waiting; the consumer can rely on that many, the producer may add to them at any time."""
        return self._producer[_TOTAL] - self._consumer[_TOTAL]

    @property
    def writable_samples(self) -> int:
        """Room; the producer can rely on that much, the consumer may add to it at any time."""
        return self.capacity_samples - self.readable_samples

    @property
    def overflows(self) -> int:
        """How often `write` found too little room."""
        return self._producer[_EVENTS]

    @property
    def overflow_samples(self) -> int:
        """Samples that `write` dropped."""
        return self._producer[_MISSED]

    @property
    def underflows(self) -> int:
        """How often `read_into` found too few samples."""
        return self._consumer[_EVENTS]

    @property
    def underflow_samples(self) -> int:
        """Samples of silence that `read_into` put in."""
        return self._consumer[_MISSED]

    def acquire_write(self, n_samples: int) -> tuple[Float32, Float32]:
        """Room for the next samples: two views [T1, channels] and [T2, channels], T1 + T2 at most `n_samples`.

        The second follows the first and is empty unless the ring wraps around.  Nothing counts until `commit_write`.
        """
        return self._views(self._producer[_TOTAL], min(n_samples, self.writable_samples))

    def commit_write(self, n_samples: int) -> None:
        """Hand `n_samples` to the consumer.

        Raises
        ------
        AudioError
            There is no room for so many.
        """
        room = self.writable_samples
        if not 0 <= n_samples <= room:
            raise AudioError(f"{n_samples} samples were committed to a ring with room for {room}.")
        self._producer[_TOTAL] += n_samples

    def acquire_read(self, n_samples: int) -> tuple[Float32, Float32]:
        """The next samples: two views [T1, channels] and [T2, channels], T1 + T2 at most `n_samples`.

        The second follows the first and is empty unless the ring wraps around.  They stay until `commit_read`.
        """
        return self._views(self._consumer[_TOTAL], min(n_samples, self.readable_samples))

    def commit_read(self, n_samples: int) -> None:
        """Hand the room of the oldest `n_samples` back to the producer; without looking at them, it skips them.

        Raises
        ------
        AudioError
            There are not so many.
        """
        there = self.readable_samples
        if not 0 <= n_samples <= there:
            raise AudioError(f"{n_samples} samples were taken from a ring that has {there}.")
        self._consumer[_TOTAL] += n_samples

    def write(self, samples: Float32) -> int:
        """Append samples [T, channels]; how many found room.  The rest is dropped and counted."""
        wanted = len(samples)
        first, second = self.acquire_write(wanted)
        split = len(first)
        taken = split + len(second)
        first[:] = samples[:split]
        if taken > split:
            second[:] = samples[split:taken]
        self._producer[_TOTAL] += taken
        if taken < wanted:
            self._producer[_EVENTS] += 1
            self._producer[_MISSED] += wanted - taken
        return taken

    def read_into(self, out: Float32) -> int:
        """Fill `out` [T, channels] with the oldest samples; how many there were.  The rest is silence, and counted."""
        wanted = len(out)
        first, second = self.acquire_read(wanted)
        split = len(first)
        taken = split + len(second)
        out[:split] = first
        if taken > split:
            out[split:taken] = second
        self._consumer[_TOTAL] += taken
        if taken < wanted:
            out[taken:] = 0
            self._consumer[_EVENTS] += 1
            self._consumer[_MISSED] += wanted - taken
        return taken

    def _views(self, total: int, n_samples: int) -> tuple[Float32, Float32]:
        start = total % self.capacity_samples
        stop = start + n_samples
        if stop <= self.capacity_samples:
            return self._data[start:stop], self._empty
        return self._data[start:], self._data[: stop - self.capacity_samples]
