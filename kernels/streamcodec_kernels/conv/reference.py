"""Dense causal convolution, row by row and tap by tap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def conv(
    x: NDArray[np.floating],
    weight: Float32,
    bias: Float32,
    stride: int,
    dilation: int,
    state: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One step in float64; returns the output [T / stride, Cout] and the new state."""
    seen = np.concatenate([state, x]).astype(np.float64)
    kernel = len(weight)
    out = np.tile(bias.astype(np.float64), (len(x) // stride, 1))
    for i in range(len(out)):
        last = len(state) + (i + 1) * stride - 1
        for tap in range(kernel):
            out[i] += seen[last - (kernel - 1 - tap) * dilation] @ weight[tap]
    return out, seen[len(seen) - len(state) :]
