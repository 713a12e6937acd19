"""The obvious loop over outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def resample(
    samples: Float32, buffer: Float32, cursor: NDArray[np.float64], step: float, table: Float32, out: Float32
) -> int:
    """See the package."""
    phases, taps = table.shape[0] - 1, table.shape[1]
    held = int(cursor[1])
    everything = np.concatenate([buffer[:held], samples])
    place, count = cursor[0], 0
    while int(place) + taps <= len(everything):
        first = int(place)
        at = (place - first) * phases
        row = int(at)
        weights = table[row] + (at - row) * (table[row + 1].astype(np.float64) - table[row])
        out[count] = weights @ everything[first : first + taps].astype(np.float64)
        count += 1
        place += step
    keep = min(int(place), len(everything))
    rest = everything[keep:]
    buffer[: len(rest)] = rest
    cursor[:] = place - keep, len(rest)
    return count
