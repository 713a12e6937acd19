"""Residual unit in blocks of rows that stay in the first-level cache, written over its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import INT, Emitter, copy_values, flat, inline_jit, intrinsic
from streamcodec_kernels.matmul._numba import matmul_windows, pack, pack_bias
from streamcodec_kernels.matmul._tile import TILE_ROWS
from streamcodec_kernels.snake._numba import emit_snake, snake_constants, snake_rows

BLOCK_VALUES = 2048
"""Values of one block between the second Snake and the 1x1 convolution, unless TILE_ROWS rows are more."""


def block_rows(channels: int) -> int:
    """Rows of one block."""
    return max(1, BLOCK_VALUES // channels // TILE_ROWS) * TILE_ROWS


@intrinsic
def depthwise_snake_rows(
    typing: Any,
    x: Any,
    x_at: Any,
    out: Any,
    out_at: Any,
    rows: Any,
    channels: Any,
    kernel: Any,
    dilation: Any,
    weights: Any,
    weight_at: Any,
    bias_at: Any,
    constants_at: Any,
) -> Any:
    """Depthwise convolution, then Snake.

    x[x_at:] begins (kernel - 1) * dilation rows before the first row of out[out_at:]; weights[weight_at:] is
    [kernel, channels], weights[bias_at:] [channels], weights[constants_at:] the Snake's.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        source = emit.pointer(signature.args[0], args[0], args[1])
        target = emit.pointer(signature.args[2], args[2], args[3])
        row_count, channel_count, kernel, dilation = args[4:8]
        taps, biases, rates = (emit.pointer(signature.args[8], args[8], at) for at in args[9:12])
        gains = emit.at(rates, channel_count)
        stride = builder.mul(dilation, channel_count)

        def some_rows(row: Any, count: int) -> None:
            first = builder.mul(row, channel_count)

            def block(channel: Any, mask: Any) -> None:
                bias, rate, gain = (emit.load(emit.at(pointer, channel), mask) for pointer in (biases, rates, gains))
                at = builder.add(first, channel)
                sums = [emit.variable(bias) for _ in range(count)]
                with emit.loop(INT(0), kernel, 1) as tap:
                    weight = emit.load(emit.at(taps, builder.add(builder.mul(tap, channel_count), channel)), mask)
                    seen = emit.at(source, builder.add(at, builder.mul(tap, stride)))
                    for i, total in enumerate(sums):
                        value = emit.load(emit.at(seen, builder.mul(channel_count, INT(i))), mask)
                        builder.store(emit.fma(value, weight, builder.load(total)), total)
                for i, total in enumerate(sums):
                    result = emit_snake(emit, builder.load(total), rate, gain)
                    emit.store(result, emit.at(target, builder.add(at, builder.mul(channel_count, INT(i)))), mask)

            emit.blocks(channel_count, block)

        emit.rows(row_count, 4, some_rows)
        return context.get_dummy_value()

    arguments = (x, x_at, out, out_at, rows, channels, kernel, dilation, weights, weight_at, bias_at, constants_at)
    return types.void(*arguments), generate


@inline_jit
def residual_unit_step(
    scratch: Any,
    x_at: int,
    seen_at: int,
    block_at: int,
    rows: int,
    channels: int,
    kernel: int,
    dilation: int,
    block: int,
    state: Any,
    state_at: int,
    weights: Any,
    snake1_at: int,
    depthwise_at: int,
    depthwise_bias_at: int,
    snake2_at: int,
    mix_at: int,
    mix_bias_at: int,
) -> None:
    """Run the unit on scratch[x_at:], in place.

    scratch[seen_at:] holds history and rows, scratch[block_at:] `block` rows; both are overwritten.
    """
    history = (kernel - 1) * dilation * channels
    copy_values(scratch, seen_at, state, state_at, history)
    for row in range(0, rows, block):
        count = min(block, rows - row)
        at = row * channels
        snake_rows(scratch, x_at + at, scratch, seen_at + history + at, count, channels, weights, snake1_at)
        depthwise_snake_rows(
            scratch,
            seen_at + at,
            scratch,
            block_at,
            count,
            channels,
            kernel,
            dilation,
            weights,
            depthwise_at,
            depthwise_bias_at,
            snake2_at,
        )
        matmul_windows(
            scratch,
            block_at,
            channels,
            count,
            weights,
            mix_at,
            channels,
            channels,
            weights,
            mix_bias_at,
            scratch,
            x_at + at,
            channels,
            True,
            1,
            0,
            0,
        )
    copy_values(state, state_at, scratch, seen_at + rows * channels, history)


@cached_jit
def _run(
    scratch: Any, rows: int, channels: int, kernel: int, dilation: int, block: int, state: Any, w: Any, at: Any
) -> None:
    seen_at = rows * channels
    block_at = seen_at + state.size + rows * channels
    residual_unit_step(
        scratch,
        0,
        seen_at,
        block_at,
        rows,
        channels,
        kernel,
        dilation,
        block,
        state,
        0,
        w,
        at[0],
        at[1],
        at[2],
        at[3],
        at[4],
        at[5],
    )


def residual_unit(
    x: NDArray[np.float32],
    alpha1: NDArray[np.float32],
    depthwise: NDArray[np.float32],
    depthwise_bias: NDArray[np.float32],
    dilation: int,
    alpha2: NDArray[np.float32],
    mix: NDArray[np.float32],
    mix_bias: NDArray[np.float32],
    state: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """One step of a residual unit.

    x, out: [T, C].  alpha1, alpha2, depthwise_bias, mix_bias: [C].  depthwise: [kernel, C].  mix: [C, C].
    state: [(kernel - 1) * dilation, C], advanced.
    """
    rows, channels = x.shape
    kernel = len(depthwise)
    if state.shape != ((kernel - 1) * dilation, channels) or out.shape != x.shape or mix.shape != (channels, channels):
        raise ValueError(
            f"x {x.shape}, kernel {kernel}, dilation {dilation}, state {state.shape}, mix {mix.shape}: no fit"
        )
    parts = (
        snake_constants(alpha1),
        depthwise.reshape(-1),
        depthwise_bias,
        snake_constants(alpha2),
        pack(mix),
        pack_bias(mix_bias),
    )
    at = np.cumsum([0, *(part.size for part in parts[:-1])])
    block = block_rows(channels)
    scratch = np.empty(2 * rows * channels + state.size + block * channels, np.float32)
    scratch[: x.size] = flat(x)
    _run(scratch, rows, channels, kernel, dilation, block, flat(state), np.concatenate(parts), at)
    flat(out)[:] = scratch[: x.size]
