"""Residual unit, tap by tap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels.snake.reference import snake

Float32 = NDArray[np.float32]


def residual_unit(
    x: Float32,
    alpha1: Float32,
    depthwise: Float32,
    depthwise_bias: Float32,
    dilation: int,
    alpha2: Float32,
    mix: Float32,
    mix_bias: Float32,
    state: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One step in float64; returns the output [T, C] and the new state."""
    seen = np.concatenate([state, snake(x, alpha1)])
    y = depthwise_bias + sum(
        seen[tap * dilation : tap * dilation + len(x)] * depthwise[tap].astype(np.float64)
        for tap in range(len(depthwise))
    )
    return x + snake(y, alpha2) @ mix + mix_bias, seen[len(seen) - len(state) :]
