"""Snake, convolution and tanh, one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels.conv.reference import conv
from streamcodec_kernels.snake.reference import snake

Float32 = NDArray[np.float32]


def waveform_conv(
    x: NDArray[np.floating], alpha: Float32, weight: Float32, bias: Float32, state: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One step in float64; returns the output [T, 1] and the new state."""
    out, state = conv(snake(x, alpha), weight, bias, 1, 1, state)
    return np.tanh(out), state
