"""Triton: every program walks along time with the last seven rows in registers.

While it computes a row, the next one is on its way.  Each value is read once, Snake is computed once a value, and v is
never stored: backward computes it again from x.
A lane is one phase of the dilation in one stretch of `steps` * dilation rows; neighbouring lanes read neighbouring
rows.  A stretch starts with the six (backward: twelve) rows that its neighbour reads too.

x, y, grad_y, grad_x: float32, bfloat16 or float16, [B, T, C] contiguous.  Others: float32.  Arithmetic is float32.
The kernel of the convolution has seven taps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.snake._triton import channel_block, snake_slopes, snake_value

TAPS = 7
TILE = 256
FORWARD_WARPS, BACKWARD_WARPS = 4, 8
LONG_STEPS, SHORT_STEPS = 64, 16
"""Rows that a lane walks, in long clips and in short ones."""

SUMS = TAPS + 3
"""Per-channel sums of backward: alpha_in, the taps, bias, alpha_out."""


def steps_for(rows: int, dilation: int) -> int:
    """Length of a lane: long ones waste fewer rows, short ones keep a small clip parallel."""
    return LONG_STEPS if rows >= 8 * LONG_STEPS * dilation else SHORT_STEPS


@triton.jit
def _lane_starts(
    stretches: int, dilation: int, tile_lanes: tl.constexpr, steps: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """For each lane of this program: its clip, and its first row."""
    lane = tl.program_id(0) * tile_lanes + tl.arange(0, tile_lanes)
    clip = lane // (stretches * dilation)
    rest = lane % (stretches * dilation)
    return clip, (rest // dilation) * (steps * dilation) + rest % dilation


@triton.jit
def _row(
    ptr: tl.tensor, clip: tl.tensor, row: tl.tensor, wanted: tl.tensor, channel: tl.tensor,
    batch: int, rows: int, channels: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """One row of each lane in float32, zero outside the clip and where it is not wanted."""
    offset = (clip.to(tl.int64) * rows + row)[:, None] * channels + channel[None, :]
    inside = (wanted & (clip < batch) & (row >= 0) & (row < rows))[:, None] & (channel < channels)[None, :]
    return tl.load(ptr + offset, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store_row(
    ptr: tl.tensor, value: tl.tensor, clip: tl.tensor, row: tl.tensor, wanted: tl.tensor, channel: tl.tensor,
    batch: int, rows: int, channels: tl.constexpr,
) -> None:  # fmt: skip
    offset = (clip.to(tl.int64) * rows + row)[:, None] * channels + channel[None, :]
    inside = (wanted & (clip < batch) & (row < rows))[:, None] & (channel < channels)[None, :]
    tl.store(ptr + offset, value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def _constants(ptr: tl.tensor, channel: tl.tensor, channels: tl.constexpr, other: tl.constexpr) -> tl.tensor:
    return tl.load(ptr + channel, mask=channel < channels, other=other).to(tl.float32)[None, :]


@triton.jit
def forward_kernel(
    x_ptr: tl.tensor, alpha_in_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, alpha_out_ptr: tl.tensor,
    y_ptr: tl.tensor, batch: int, rows: int, stretches: int, dilation: int,
    channels: tl.constexpr, block_c: tl.constexpr, tile_lanes: tl.constexpr, steps: tl.constexpr,
) -> None:  # fmt: skip
    """Write y."""
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)
    clip, start = _lane_starts(stretches, dilation, tile_lanes, steps)
    a = _constants(alpha_in_ptr, channel, channels, 1.0)
    b = _constants(alpha_out_ptr, channel, channels, 1.0)
    bias = _constants(bias_ptr, channel, channels, 0.0)
    w0 = _constants(weight_ptr, channel, channels, 0.0)
    w1 = _constants(weight_ptr + channels, channel, channels, 0.0)
    w2 = _constants(weight_ptr + 2 * channels, channel, channels, 0.0)
    w3 = _constants(weight_ptr + 3 * channels, channel, channels, 0.0)
    w4 = _constants(weight_ptr + 4 * channels, channel, channels, 0.0)
    w5 = _constants(weight_ptr + 5 * channels, channel, channels, 0.0)
    w6 = _constants(weight_ptr + 6 * channels, channel, channels, 0.0)
    inverse_a, inverse_b = 1.0 / a, 1.0 / b
    always = start >= 0
    u1 = snake_value(_row(x_ptr, clip, start - 6 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u2 = snake_value(_row(x_ptr, clip, start - 5 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u3 = snake_value(_row(x_ptr, clip, start - 4 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u4 = snake_value(_row(x_ptr, clip, start - 3 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u5 = snake_value(_row(x_ptr, clip, start - 2 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u6 = snake_value(_row(x_ptr, clip, start - dilation, always, channel, batch, rows, channels), a, inverse_a)
    x = _row(x_ptr, clip, start, always, channel, batch, rows, channels)
    for i in range(steps):
        row = start + i * dilation
        following = _row(x_ptr, clip, row + dilation, always, channel, batch, rows, channels)  # arrives meanwhile
        u0, u1, u2, u3, u4, u5 = u1, u2, u3, u4, u5, u6
        u6 = snake_value(x, a, inverse_a)
        v = bias + w0 * u0 + w1 * u1 + w2 * u2 + w3 * u3 + w4 * u4 + w5 * u5 + w6 * u6
        _store_row(y_ptr, snake_value(v, b, inverse_b), clip, row, always, channel, batch, rows, channels)
        x = following


@triton.jit
def _store_sum(ptr: tl.tensor, k: tl.constexpr, value: tl.tensor, channel: tl.tensor, channels: tl.constexpr) -> None:
    tl.store(ptr + k * channels + channel, tl.sum(value, axis=0), mask=channel < channels)


@triton.jit
def _own_zero(zero: tl.tensor, start: tl.tensor, k: tl.constexpr) -> tl.tensor:
    """Zeros that the compiler cannot tell from others.

    It takes loop variables that begin alike and are handed from one to the next for one variable (Triton 3.6 and 3.9).
    """
    return tl.where((start < -k)[:, None], 1.0, zero)


@triton.jit
def backward_kernel(
    x_ptr: tl.tensor, alpha_in_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, alpha_out_ptr: tl.tensor,
    grad_y_ptr: tl.tensor, grad_x_ptr: tl.tensor, sums_ptr: tl.tensor,
    batch: int, rows: int, stretches: int, dilation: int,
    channels: tl.constexpr, block_c: tl.constexpr, tile_lanes: tl.constexpr, steps: tl.constexpr,
) -> None:  # fmt: skip
    """Write grad_x, and this program's share of the per-channel sums.

    Step i takes in row `ahead`, makes its u, v and g (the gradient by v), and finishes row `row`, six taps earlier.
    """
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)
    clip, start = _lane_starts(stretches, dilation, tile_lanes, steps)
    a = _constants(alpha_in_ptr, channel, channels, 1.0)
    b = _constants(alpha_out_ptr, channel, channels, 1.0)
    bias = _constants(bias_ptr, channel, channels, 0.0)
    w0 = _constants(weight_ptr, channel, channels, 0.0)
    w1 = _constants(weight_ptr + channels, channel, channels, 0.0)
    w2 = _constants(weight_ptr + 2 * channels, channel, channels, 0.0)
    w3 = _constants(weight_ptr + 3 * channels, channel, channels, 0.0)
    w4 = _constants(weight_ptr + 4 * channels, channel, channels, 0.0)
    w5 = _constants(weight_ptr + 5 * channels, channel, channels, 0.0)
    w6 = _constants(weight_ptr + 6 * channels, channel, channels, 0.0)
    inverse_a, inverse_b = 1.0 / a, 1.0 / b
    always = start >= 0
    u1 = snake_value(_row(x_ptr, clip, start - 6 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u2 = snake_value(_row(x_ptr, clip, start - 5 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u3 = snake_value(_row(x_ptr, clip, start - 4 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u4 = snake_value(_row(x_ptr, clip, start - 3 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u5 = snake_value(_row(x_ptr, clip, start - 2 * dilation, always, channel, batch, rows, channels), a, inverse_a)
    u6 = snake_value(_row(x_ptr, clip, start - dilation, always, channel, batch, rows, channels), a, inverse_a)
    zero = tl.zeros([tile_lanes, block_c], tl.float32)
    g1, g2, g3 = _own_zero(zero, start, 1), _own_zero(zero, start, 2), _own_zero(zero, start, 3)
    g4, g5, g6 = _own_zero(zero, start, 4), _own_zero(zero, start, 5), _own_zero(zero, start, 6)
    by_a, by_b, by_bias = zero, zero, zero
    by_w0, by_w1, by_w2, by_w3, by_w4, by_w5, by_w6 = zero, zero, zero, zero, zero, zero, zero
    newest = _row(x_ptr, clip, start, always, channel, batch, rows, channels)
    grad = _row(grad_y_ptr, clip, start, always, channel, batch, rows, channels)
    for i in range(steps + 6):
        ahead = start + i * dilation
        row = ahead - 6 * dilation
        own = always & (i >= 6)
        x = _row(x_ptr, clip, row, own, channel, batch, rows, channels)
        next_x = _row(x_ptr, clip, ahead + dilation, always, channel, batch, rows, channels)  # arrive meanwhile
        next_grad = _row(grad_y_ptr, clip, ahead + dilation, always, channel, batch, rows, channels)
        u0, u1, u2, u3, u4, u5 = u1, u2, u3, u4, u5, u6
        g0, g1, g2, g3, g4, g5 = g1, g2, g3, g4, g5, g6
        u6 = snake_value(newest, a, inverse_a)
        v = bias + w0 * u0 + w1 * u1 + w2 * u2 + w3 * u3 + w4 * u4 + w5 * u5 + w6 * u6
        slope, slope_b = snake_slopes(v, b, inverse_b)
        g6 = grad * slope
        by_b += tl.where(i < steps, grad * slope_b, 0.0)
        slope, slope_a = snake_slopes(x, a, inverse_a)
        u = tl.where(own[:, None], u0, 0.0)
        by_w6 += g0 * u
        by_w5 += g1 * u
        by_w4 += g2 * u
        by_w3 += g3 * u
        by_w2 += g4 * u
        by_w1 += g5 * u
        by_w0 += g6 * u
        by_bias += g0
        grad_u = g0 * w6 + g1 * w5 + g2 * w4 + g3 * w3 + g4 * w2 + g5 * w1 + g6 * w0
        by_a += grad_u * slope_a
        _store_row(grad_x_ptr, grad_u * slope, clip, row, own, channel, batch, rows, channels)
        newest, grad = next_x, next_grad
    mine = sums_ptr + tl.program_id(0).to(tl.int64) * (10 * channels)
    _store_sum(mine, 0, by_a, channel, channels)
    _store_sum(mine, 1, by_w0, channel, channels)
    _store_sum(mine, 2, by_w1, channel, channels)
    _store_sum(mine, 3, by_w2, channel, channels)
    _store_sum(mine, 4, by_w3, channel, channels)
    _store_sum(mine, 5, by_w4, channel, channels)
    _store_sum(mine, 6, by_w5, channel, channels)
    _store_sum(mine, 7, by_w6, channel, channels)
    _store_sum(mine, 8, by_bias, channel, channels)
    _store_sum(mine, 9, by_b, channel, channels)


def _plan(x: Tensor, dilation: int, warps: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and keywords of either kernel."""
    batch, rows, channels = x.shape
    steps, block = steps_for(rows, dilation), channel_block(channels)
    stretches = triton.cdiv(rows, steps * dilation)
    lanes = max(1, TILE // block)
    sizes = {"batch": batch, "rows": rows, "stretches": stretches, "dilation": dilation, "channels": channels}
    grid = triton.cdiv(batch * stretches * dilation, lanes), triton.cdiv(channels, block)
    return grid, {
        **sizes, "block_c": block, "tile_lanes": lanes, "steps": steps, "num_warps": warps, "enable_fp_fusion": True
    }  # fmt: skip


def forward(
    x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int, y: Tensor
) -> None:
    """Write y [B, T, C]."""
    grid, keywords = _plan(x, dilation, FORWARD_WARPS)
    if x.numel():
        forward_kernel[grid](x, alpha_in, weight, bias, alpha_out, y, **keywords)


def backward(
    grad_y: Tensor, x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int,
    grad_x: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Write grad_x; return those of alpha_in, weight, bias and alpha_out, the same bits on every run."""
    grid, keywords = _plan(x, dilation, BACKWARD_WARPS)
    sums = torch.empty(grid[0], SUMS, x.shape[-1], dtype=torch.float32, device=x.device)
    if x.numel():
        backward_kernel[grid](x, alpha_in, weight, bias, alpha_out, grad_y, grad_x, sums, **keywords)
    else:
        sums.zero_()
    total = sums.sum(0)
    return total[0], total[1 : TAPS + 1], total[TAPS + 1], total[TAPS + 2]
