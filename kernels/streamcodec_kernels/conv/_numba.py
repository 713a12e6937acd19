"""Dense causal convolution as a matrix product over the overlapping windows of history and input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import copy_values, flat, inline_jit
from streamcodec_kernels.matmul._numba import matmul_windows, pack, pack_bias
from streamcodec_kernels.snake._numba import snake_rows


def pack_conv(weight: NDArray[np.float32], dilation: int) -> NDArray[np.float32]:
    """Packed weights, one matrix when the taps are neighbours, else one after another.  weight: [kernel, in, out]."""
    kernel, inputs, outputs = weight.shape
    if dilation == 1 or kernel == 1:
        return pack(weight.reshape(kernel * inputs, outputs))
    return np.concatenate([pack(tap) for tap in weight])


@inline_jit
def windows_step(
    scratch: Any,
    source_at: int,
    values: int,
    channels: int,
    seen_at: int,
    history: int,
    state: Any,
    state_at: int,
    weights: Any,
    snake_at: int,
) -> None:
    """Put history and input side by side at scratch[seen_at:], and keep their last `history` values in the state.

    The input is scratch[source_at: + values], through a Snake if snake_at is not negative.
    """
    copy_values(scratch, seen_at, state, state_at, history)
    if snake_at >= 0:
        snake_rows(scratch, source_at, scratch, seen_at + history, values // channels, channels, weights, snake_at)
    else:
        copy_values(scratch, seen_at + history, scratch, source_at, values)
    copy_values(state, state_at, scratch, seen_at + values, history)


@inline_jit
def tap_products(
    scratch: Any,
    seen_at: int,
    step: int,
    rows: int,
    matrix: Any,
    matrix_at: int,
    depth: int,
    columns: int,
    weights: Any,
    bias_at: int,
    zeros_at: int,
    out_at: int,
    accumulate: bool,
    taps: int,
    tap_step: int,
    tap_weights: int,
    streams: int,
    seen_stream: int,
    out_stream: int,
) -> None:
    """Sum of `taps` matrix products, each `tap_step` values further into what is seen; the bias counts once.

    The packed matrix is matrix[matrix_at:], float32 or float16 bits; the bias and as many zeros are in `weights`.
    """
    for tap in range(taps):
        matmul_windows(
            scratch,
            seen_at + tap * tap_step,
            step,
            rows,
            matrix,
            matrix_at + tap * tap_weights,
            depth,
            columns,
            weights,
            bias_at if tap == 0 else zeros_at,
            scratch,
            out_at,
            columns,
            accumulate or tap > 0,
            streams,
            seen_stream,
            out_stream,
        )


@cached_jit
def _run(
    scratch: Any, values: int, channels: int, state: Any, weights: Any, rows: int, columns: int, layout: Any
) -> None:
    step, depth, first, taps, tap_step, tap_weights, bias_at, zeros_at = layout
    history = state.size
    windows_step(scratch, 0, values, channels, values, history, state, 0, weights, -1)
    out_at = 2 * values + history
    seen_at = values + first
    tap_products(
        scratch,
        seen_at,
        step,
        rows,
        weights,
        0,
        depth,
        columns,
        weights,
        bias_at,
        zeros_at,
        out_at,
        False,
        taps,
        tap_step,
        tap_weights,
        1,
        0,
        0,
    )


def conv(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    stride: int,
    dilation: int,
    state: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """One step of a dense causal convolution.

    x: [T, Cin].  weight: [kernel, Cin, Cout].  bias: [Cout].  state: [history rows, Cin], advanced.
    out: [T / stride, Cout].
    """
    kernel, channels, columns = weight.shape
    span = (kernel - 1) * dilation + 1
    rows, rest = divmod(len(x), stride)
    if rest or state.shape != (max(0, span - stride), channels) or out.shape != (rows, columns):
        raise ValueError(f"x {x.shape}, weight {weight.shape}, state {state.shape}, out {out.shape}: no fit")
    packed, biases = pack_conv(weight, dilation), pack_bias(bias)
    taps = kernel if dilation > 1 else 1
    layout = (
        stride * channels,
        kernel * channels // taps,
        max(0, stride - span) * channels,
        taps,
        dilation * channels,
        packed.size // taps,
        packed.size,
        packed.size + biases.size,
    )
    scratch = np.concatenate([flat(x), np.empty(x.size + state.size + out.size, np.float32)])
    weights = np.concatenate([packed, biases, np.zeros_like(biases)])
    _run(scratch, x.size, channels, flat(state), weights, rows, columns, layout)
    flat(out)[:] = scratch[scratch.size - out.size :]
