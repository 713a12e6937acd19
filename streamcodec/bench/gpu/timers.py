"""Times work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

_FLUSH_BYTES = 256 << 20
_WARM_UP_RUNS = 5


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 50) -> float:
    """Median time of `call` on the device, its inputs not in the device's cache.

    On CUDA between two events; while the device fills the cache before the first, the host queues what follows, so a
    launch counts only where it takes longer than that.  The cache is filled by reading: lines that were written would
    have to be written back in the time of `call`.
    """
    for _ in range(_WARM_UP_RUNS):
        call()
    if device.type == "cpu":
        return float(np.median([_host_ms(call) for _ in range(repeats)]))
    flush = torch.zeros(_FLUSH_BYTES // 4, device=device)
    pairs = []
    for _ in range(repeats):
        flush.sum()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize(device)
    return float(np.median([begin.elapsed_time(end) for begin, end in pairs]))


def _host_ms(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)
