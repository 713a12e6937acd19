"""One loop over outputs; nothing is allocated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from streamcodec_kernels._cache import cached_jit


@njit(nogil=True, fastmath=True, error_model="numpy")
def _dot(low: Any, high: Any, part: Any, x: Any) -> Any:
    total = np.float32(0.0)
    for j in range(low.shape[0]):
        total += (low[j] + part * (high[j] - low[j])) * x[j]
    return total


@cached_jit
def resample(samples: Any, buffer: Any, cursor: Any, step: float, table: Any, out: Any) -> int:
    """See the package."""
    phases, taps = table.shape[0] - 1, table.shape[1]
    held = int(cursor[1])
    buffer[held : held + samples.shape[0]] = samples
    held += samples.shape[0]
    place, count = cursor[0], 0
    while int(place) + taps <= held:
        first = int(place)
        at = (place - first) * phases
        row = int(at)
        out[count] = _dot(table[row], table[row + 1], np.float32(at - row), buffer[first : first + taps])
        count += 1
        place += step
    keep = min(int(place), held)
    for i in range(keep, held):
        buffer[i - keep] = buffer[i]
    cursor[0], cursor[1] = place - keep, held - keep
    return count
