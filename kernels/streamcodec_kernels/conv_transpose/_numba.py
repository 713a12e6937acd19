"""Transposed convolution as a matrix product: the window of input rows that reach an output block, stacked.

Output rows i * stride to (i + 1) * stride - 1 hear input rows i, i - 1, ... as far as the kernel reaches, so they are
one row of a product of `ceil(kernel / stride)` input rows with stride * Cout columns: no overlap-add, and the history
is input rows, which are fewer values than the overhang.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels.conv._numba import conv


def as_conv(
    weight: NDArray[np.float32], bias: NDArray[np.float32], stride: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same map as a convolution of stride 1 with stride * Cout outputs.

    weight: [Cin, kernel, Cout].  bias: [Cout].  Returns weight [taps, Cin, stride * Cout], bias [stride * Cout].
    """
    inputs, kernel, outputs = weight.shape
    taps = -(-kernel // stride)
    padded = np.zeros((inputs, taps * stride, outputs), np.float32)
    padded[:, :kernel] = weight
    by_tap = padded.reshape(inputs, taps, stride * outputs).transpose(1, 0, 2)
    return np.ascontiguousarray(by_tap[::-1]), np.tile(bias, stride)


def conv_transpose(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    stride: int,
    state: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """One step of a transposed convolution.

    x: [T, Cin].  weight: [Cin, kernel, Cout].  bias: [Cout].  state: [ceil(kernel / stride) - 1, Cin], advanced.
    out: [T * stride, Cout].
    """
    windows_weight, windows_bias = as_conv(weight, bias, stride)
    if out.shape != (len(x) * stride, weight.shape[2]):
        raise ValueError(f"x is {x.shape}, out {out.shape}; out must be {(len(x) * stride, weight.shape[2])}")
    conv(x, windows_weight, windows_bias, 1, 1, state, out.reshape(len(x), -1))
