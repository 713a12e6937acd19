"""Transposed convolution by overlap-add."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def conv_transpose(
    x: NDArray[np.floating], weight: Float32, bias: Float32, stride: int, state: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One step in float64; returns the output [T * stride, Cout] and the new state."""
    seen = np.concatenate([state, x]).astype(np.float64)
    kernel = weight.shape[1]
    reach = np.zeros((len(seen) * stride + kernel, weight.shape[2]))
    for i, row in enumerate(seen):
        for j in range(kernel):
            reach[i * stride + j] += row @ weight[:, j]
    out = reach[len(state) * stride : len(seen) * stride] + bias.astype(np.float64)
    return out, seen[len(seen) - len(state) :]
