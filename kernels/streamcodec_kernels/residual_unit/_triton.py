"""Triton: one program makes a tile of rows of all streams, depthwise part and matrix product, in one launch.

The rows after the first Snake go to the ring and are read back tap by tap, past and present alike, mostly from the
multiprocessor's own cache: so Snake is computed about once a value, and no tap needs to know where a frame begins.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.ring._triton import halo_rows, padded, ring_start, snake_into_ring, wrapped
from streamcodec_kernels.snake._triton import snake_value

BLOCK_N = 256


@triton.jit(do_not_specialize=["batch"])
def residual_unit_kernel(
    x_ptr: tl.tensor, alpha1_ptr: tl.tensor, depthwise_ptr: tl.tensor, depthwise_bias_ptr: tl.tensor,
    alpha2_ptr: tl.tensor, mix_ptr: tl.tensor, mix_bias_ptr: tl.tensor,
    state_ptr: tl.tensor, frame_ptr: tl.tensor, active_ptr: tl.tensor, out_ptr: tl.tensor, batch: int,
    rows: tl.constexpr, channels: tl.constexpr, taps: tl.constexpr, dilation: tl.constexpr, halo: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, block_c: tl.constexpr, chunk: tl.constexpr,
    precision: tl.constexpr, fence: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of `block_m` rows and `block_n` output channels."""
    capacity: tl.constexpr = (taps - 1) * dilation + rows
    first = tl.program_id(0) * block_m
    snake_into_ring(
        x_ptr, alpha1_ptr, state_ptr, frame_ptr, active_ptr, batch, first,
        rows, channels, capacity, halo, block_m, block_c, chunk,
    )  # fmt: skip
    row = first + tl.arange(0, block_m)
    stream = row // rows
    on = row < batch * rows
    on = on & (tl.load(active_ptr + stream, mask=on, other=0) != 0)
    start = ring_start(frame_ptr, stream, on, rows, capacity) + row - stream * rows
    ring = (stream - first // rows) * capacity
    state_ptr += (first // rows).to(tl.int64) * (capacity * channels)
    n = tl.program_id(1) * block_n + tl.arange(0, block_n)
    total = tl.zeros([block_m, block_n], tl.float32)
    for first_channel in range(0, channels, block_k):
        channel = first_channel + tl.arange(0, block_k)
        known = channel < channels
        inside = on[:, None] & known[None, :]
        inner = tl.zeros([block_m, block_k], tl.float32)
        inner += tl.load(depthwise_bias_ptr + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        for tap in tl.static_range(taps):
            place = ring + wrapped(start - (taps - 1 - tap) * dilation, capacity)
            u = tl.load(state_ptr + (place * channels)[:, None] + channel[None, :], mask=inside, other=0.0)
            weight = tl.load(depthwise_ptr + tap * channels + channel, mask=known, other=0.0).to(tl.float32)
            inner += u.to(tl.float32) * weight[None, :]
        alpha = tl.load(alpha2_ptr + channel, mask=known, other=1.0).to(tl.float32)[None, :]
        if fence:  # or the compiler brings every tap, not their sum, into the layout of the matrix product
            inner = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [inner], tl.float32, is_pure=False, pack=1)
        inner = snake_value(inner, alpha, 1.0 / alpha)
        both = known[:, None] & (n < channels)[None, :]
        mix = tl.load(mix_ptr + channel[:, None] * channels + n[None, :], mask=both, other=0.0)
        total = tl.dot(inner.to(mix.dtype), mix, total, input_precision=precision)
    bias = tl.load(mix_bias_ptr + n, mask=n < channels, other=0.0).to(tl.float32)
    offset = (row - first)[:, None] * channels + n[None, :]
    inside = on[:, None] & (n < channels)[None, :]
    x = tl.load(x_ptr + first.to(tl.int64) * channels + offset, mask=inside, other=0.0).to(tl.float32)
    out_ptr += first.to(tl.int64) * channels
    tl.store(out_ptr + offset, (x + (total + bias[None, :])).to(out_ptr.dtype.element_ty), mask=inside)


TILES = {16: (128, 16, 8), 32: (64, 32, 8), 64: (64, 16, 8), 128: (32, 16, 4), 256: (16, 16, 8)}
"""Rows, depth and warps of a tile by its output channels: what fits in registers, two programs or more side by side."""


def plan(rows: int, channels: int, taps: int, dilation: int) -> tuple[dict[str, int], int]:
    """Tile of a shape, and its warps: nothing else decides, so that values do not depend on the batch."""
    block_n = min(BLOCK_N, padded(channels))
    block_m, block_k, warps = TILES[block_n]
    block_c = min(64, padded(channels))
    halo = halo_rows((taps - 1) * dilation, rows, block_m)
    chunk = min(block_m, max(padded(halo), 1024 // block_c)) if halo else block_m
    tile = {"block_m": block_m, "block_n": block_n, "block_k": block_k, "block_c": block_c}
    shape = {"rows": rows, "channels": channels, "taps": taps, "dilation": dilation}
    return {**tile, **shape, "chunk": chunk, "halo": triton.cdiv(halo, chunk) * chunk}, warps


def residual_unit(
    x: Tensor, alpha1: Tensor, depthwise: Tensor, depthwise_bias: Tensor, dilation: int, alpha2: Tensor, mix: Tensor,
    mix_bias: Tensor, state: Tensor, frame: Tensor, active: Tensor, out: Tensor, precision: str,
) -> None:  # fmt: skip
    """Write out [B, T, C]; advance the state."""
    batch, rows, channels = x.shape
    taps = depthwise.shape[0]
    if x.data_ptr() == out.data_ptr():
        raise ValueError("x and out are the same array; programs read rows of x that others would have overwritten")
    if state.shape != (batch, (taps - 1) * dilation + rows, channels):
        raise ValueError(f"the state is {tuple(state.shape)}; make it as state_shape says for x {tuple(x.shape)}")
    constants, warps = plan(rows, channels, taps, dilation)
    grid = triton.cdiv(batch * rows, constants["block_m"]), triton.cdiv(channels, constants["block_n"])
    if x.numel():
        residual_unit_kernel[grid](
            x, alpha1, depthwise, depthwise_bias, alpha2, mix, mix_bias, state, frame, active.view(torch.uint8), out,
            batch, **constants, precision=precision, fence=x.is_cuda,
            num_warps=warps, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip
