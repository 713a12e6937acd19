"""The other process of a ring test."""

import time
import zlib
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from streamcodec.audio.ring import Ring


def drain(name, n_samples, results):
    """Read `n_samples` from the ring in shared memory `name`; put their checksum into the queue."""
    memory = SharedMemory(name)
    ring = Ring.attach(memory.buf)
    crc, done = 0, 0
    out = np.empty((5000, ring.channels), np.float32)
    deadline = time.monotonic() + 60
    while done < n_samples and time.monotonic() < deadline:
        wanted = min(len(out), ring.readable_samples)
        if not wanted:
            time.sleep(0.0002)
            continue
        done += ring.read_into(out[:wanted])
        crc = zlib.crc32(out[:wanted], crc)
    ring.release()
    memory.close()
    results.put((done, crc))
