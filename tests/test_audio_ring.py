"""The ring gives every sample once, in order, whatever the two sides do and wherever they run."""

import multiprocessing
import sys
import threading
import time
import tracemalloc
import zlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ring_process import drain

from streamcodec.audio.ring import Ring
from streamcodec.errors import AudioError


class RingMachine(RuleBasedStateMachine):
    """Two handles of one buffer against a list."""

    @initialize(capacity=st.integers(1, 17), channels=st.integers(1, 3))
    def open(self, capacity, channels):
        buffer = bytearray(Ring.required_bytes(capacity, channels))
        self.producer = Ring(capacity, channels, buffer)
        self.consumer = Ring.attach(buffer)
        self.capacity, self.channels = capacity, channels
        self.waiting = []
        self.next_value = 1
        self.counts = {"written": 0, "read": 0, "overflows": 0, "overflow": 0, "underflows": 0, "underflow": 0}

    def fresh(self, n_samples):
        values = np.arange(self.next_value, self.next_value + n_samples * self.channels, dtype=np.float32)
        self.next_value += n_samples * self.channels
        return values.reshape(n_samples, self.channels)

    def take(self, n_samples):
        taken, self.waiting = self.waiting[:n_samples], self.waiting[n_samples:]
        self.counts["read"] += len(taken)
        return taken

    def put(self, rows):
        self.waiting += rows.tolist()
        self.counts["written"] += len(rows)

    @rule(n_samples=st.integers(0, 25))
    def write(self, n_samples):
        rows = self.fresh(n_samples)
        room = self.capacity - len(self.waiting)
        assert self.producer.write(rows) == min(room, n_samples)
        self.put(rows[:room])
        if n_samples > room:
            self.counts["overflows"] += 1
            self.counts["overflow"] += n_samples - room

    @rule(n_samples=st.integers(0, 25))
    def read_into(self, n_samples):
        out = np.full((n_samples, self.channels), np.nan, np.float32)
        there = self.consumer.read_into(out)
        expected = self.take(n_samples)
        assert there == len(expected)
        assert out[:there].tolist() == expected
        assert not out[there:].any()
        if there < n_samples:
            self.counts["underflows"] += 1
            self.counts["underflow"] += n_samples - there

    @rule(n_samples=st.integers(0, 25), keep=st.integers(0, 25))
    def acquire_and_commit_write(self, n_samples, keep):
        first, second = self.producer.acquire_write(n_samples)
        room = len(first) + len(second)
        assert room == min(n_samples, self.capacity - len(self.waiting))
        rows = self.fresh(room)
        first[:], second[:] = rows[: len(first)], rows[len(first) :]
        self.producer.commit_write(min(keep, room))
        self.put(rows[: min(keep, room)])

    @rule(n_samples=st.integers(0, 25), keep=st.integers(0, 25))
    def acquire_and_commit_read(self, n_samples, keep):
        first, second = self.consumer.acquire_read(n_samples)
        assert np.shares_memory(first, self.consumer._data) or not len(first)
        assert first.tolist() + second.tolist() == self.waiting[:n_samples]
        n_taken = min(keep, len(self.waiting))
        self.consumer.commit_read(n_taken)
        self.take(n_taken)

    @rule(extra=st.integers(1, 3))
    def commit_too_much(self, extra):
        for bad in (self.capacity - len(self.waiting) + extra, -extra):
            with pytest.raises(AudioError, match="room for"):
                self.producer.commit_write(bad)
        for bad in (len(self.waiting) + extra, -extra):
            with pytest.raises(AudioError, match="ring that has"):
                self.consumer.commit_read(bad)

    @invariant()
    def counters_agree(self):
        if not hasattr(self, "counts"):
            return
        for ring in (self.producer, self.consumer):
            assert ring.readable_samples == len(self.waiting)
            assert ring.writable_samples == self.capacity - len(self.waiting)
            assert (ring.written_samples, ring.read_samples) == (self.counts["written"], self.counts["read"])
            assert (ring.overflows, ring.overflow_samples) == (self.counts["overflows"], self.counts["overflow"])
            assert (ring.underflows, ring.underflow_samples) == (self.counts["underflows"], self.counts["underflow"])


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)

TABLE_SAMPLES, MOST = 99_991, 20_000


def _table(channels):
    rows = np.random.default_rng(0).standard_normal((TABLE_SAMPLES, channels)).astype(np.float32)
    return np.concatenate([rows, rows[:MOST]])


def _feed(ring, n_samples, result):
    """Write `n_samples` of the table in pieces of any size, never too many; checksum into `result`."""
    table, rng = _table(ring.channels), np.random.default_rng(1)
    crc, done = 0, 0
    while done < n_samples:
        wanted = min(int(rng.integers(1, MOST)), n_samples - done, ring.writable_samples)
        if not wanted:
            time.sleep(0)
            continue
        piece = table[done % TABLE_SAMPLES :][:wanted]
        assert ring.write(piece) == wanted
        crc = zlib.crc32(piece, crc)
        done += wanted
    result.append(crc)


def test_two_threads_pass_a_simulated_hour_without_losing_a_sample():
    ring, n_samples = Ring(48_000, 1), 3600 * 24_000
    interval, sent = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-5)
    try:
        feeder = threading.Thread(target=_feed, args=(ring, n_samples, sent))
        feeder.start()
        rng, crc, done = np.random.default_rng(2), 0, 0
        while done < n_samples:
            first, second = ring.acquire_read(int(rng.integers(1, MOST)))
            crc = zlib.crc32(second, zlib.crc32(first, crc))
            ring.commit_read(len(first) + len(second))
            done += len(first) + len(second)
            if not len(first):
                time.sleep(0)
        feeder.join()
    finally:
        sys.setswitchinterval(interval)
    assert sent == [crc]
    assert ring.read_samples == ring.written_samples == n_samples
    assert ring.overflows == ring.underflows == 0


def test_two_processes_share_a_ring():
    n_samples, channels = 1_000_000, 2
    try:
        memory = SharedMemory(create=True, size=Ring.required_bytes(30_011, channels))
    except OSError as error:
        pytest.skip(f"this system has no shared memory: {error}")
    context = multiprocessing.get_context("spawn")
    results, sent = context.Queue(), []
    ring = Ring(30_011, channels, memory.buf)
    reader = context.Process(target=drain, args=(memory.name, n_samples, results))
    try:
        reader.start()
        feeder = threading.Thread(target=_feed, args=(ring, n_samples, sent), daemon=True)
        feeder.start()
        done, crc = results.get(timeout=60)
        feeder.join(10)
        reader.join(10)
        assert (done, [crc]) == (n_samples, sent)
        assert ring.read_samples == n_samples
    finally:
        reader.kill()
        ring.release()
        memory.close()
        memory.unlink()


def test_passing_samples_on_allocates_none():
    ring = Ring(10_000, 2)
    piece, out = np.ones((4096, 2), np.float32), np.empty((4096, 2), np.float32)
    ring.write(piece)
    ring.read_into(out)
    tracemalloc.start()
    for _ in range(20):
        ring.write(piece)
        ring.read_into(out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096


def test_samples_of_another_shape_are_refused_and_count_nothing():
    ring = Ring(10, 1)
    assert ring.write(np.ones((4, 1), np.float32)) == 4
    with pytest.raises(ValueError, match="broadcast"):
        ring.write(np.ones((4, 3), np.float32))
    assert ring.readable_samples == 4


def test_ring_refuses_a_buffer_that_cannot_hold_it():
    with pytest.raises(AudioError, match="the buffer is 100 bytes; 10 samples of 1 channels take 232"):
        Ring(10, 1, bytearray(100))
    with pytest.raises(AudioError, match="writable"):
        Ring(10, 1, bytes(1000))
    for size in ((0, 1), (1, 0), (-1, 2)):
        with pytest.raises(AudioError, match="1 or more"):
            Ring(*size)
    for buffer in (bytearray(0), bytearray(500), b"\xff" * 10):
        with pytest.raises(AudioError):
            Ring.attach(buffer)
    whole = bytearray(Ring.required_bytes(10, 1))
    Ring(10, 1, whole)
    with pytest.raises(AudioError, match="no ring"):
        Ring.attach(whole[:-1])
