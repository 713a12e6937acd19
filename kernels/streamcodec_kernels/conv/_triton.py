"""Triton: one tile of output rows of all streams by one tile of output channels, as a matrix product.

The rows under the kernel lie one after the other, so the window of an output row is one vector of kernel * Cin values:
its first part may lie in the stream's past, which is read from the ring.  The programs of the first output channels
also write what the next step looks back to.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.ring._triton import padded, ring_start, wrapped
from streamcodec_kernels.snake._triton import snake_value
from streamcodec_kernels.tanh._triton import tanh_value

BLOCK_N = 64
WARPS = 8
STAGES = 3


@triton.jit(do_not_specialize=["batch"])
def conv_kernel(
    x_ptr: tl.tensor, alpha_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor,
    state_ptr: tl.tensor, frame_ptr: tl.tensor, active_ptr: tl.tensor, out_ptr: tl.tensor, batch: int,
    rows: tl.constexpr, in_channels: tl.constexpr, out_channels: tl.constexpr, kernel: tl.constexpr,
    stride: tl.constexpr, capacity: tl.constexpr, with_snake: tl.constexpr, with_tanh: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of `block_m` output rows and `block_n` output channels."""
    history: tl.constexpr = kernel - stride
    kept: tl.constexpr = capacity - history
    depth: tl.constexpr = kernel * in_channels
    first = tl.program_id(0) * block_m
    first_stream = first // (rows // stride)
    x_ptr += first_stream.to(tl.int64) * (rows * in_channels)
    state_ptr += first_stream.to(tl.int64) * (capacity * in_channels)
    out_ptr += first.to(tl.int64) * out_channels
    index = first + tl.arange(0, block_m)
    stream = index // (rows // stride)
    last = (index - stream * (rows // stride)) * stride - history  # input row of the first tap
    on = index < batch * (rows // stride)
    on = on & (tl.load(active_ptr + stream, mask=on, other=0) != 0)
    source = ((stream - first_stream) * rows + last) * in_channels
    n = tl.program_id(1) * block_n + tl.arange(0, block_n)
    first_kept = history + tl.program_id(1) * kernel  # tap that meets each row first; later channels have none
    total = tl.zeros([block_m, block_n], tl.float32)
    if history > 0:
        start = ring_start(frame_ptr, stream, on, kept, capacity)
        ring = ((stream - first_stream) * capacity)[:, None]
    for k0 in range(0, depth, block_k):
        k = k0 + tl.arange(0, block_k)
        if in_channels % block_k == 0:
            tap = k0 // in_channels + tl.zeros([1], tl.int32)
            channel = k - tap * in_channels
        else:
            tap = k // in_channels
            channel = k - tap * in_channels
        row = last[:, None] + tap[None, :]
        inside = on[:, None] & (k < depth)[None, :]
        value = tl.load(x_ptr + source[:, None] + k[None, :], mask=inside & (row >= 0), other=0.0).to(tl.float32)
        if with_snake:
            alpha = tl.load(alpha_ptr + channel, mask=k < depth, other=1.0).to(tl.float32)[None, :]
            value = snake_value(value, alpha, 1.0 / alpha)
        if history > 0:
            place = (ring + wrapped(start[:, None] + row, capacity)) * in_channels + channel[None, :]
            past = tl.load(state_ptr + place, mask=inside & (row < 0), other=0.0).to(tl.float32)
            mine = (tap >= first_kept)[None, :] & (row >= rows - kept)
            place = (ring + wrapped(start[:, None] + row - (rows - kept), capacity)) * in_channels + channel[None, :]
            tl.store(state_ptr + place, value.to(state_ptr.dtype.element_ty), mask=inside & mine)
            value = tl.where(row >= 0, value, past)
        both = (k < depth)[:, None] & (n < out_channels)[None, :]
        weight = tl.load(weight_ptr + k[:, None] * out_channels + n[None, :], mask=both, other=0.0)
        total = tl.dot(value.to(weight.dtype), weight, total, input_precision=precision)
    bias = tl.load(bias_ptr + n, mask=n < out_channels, other=0.0).to(tl.float32)
    total += bias[None, :]
    if with_tanh:
        total = tanh_value(total)
    offset = (index - first)[:, None] * out_channels + n[None, :]
    inside = on[:, None] & (n < out_channels)[None, :]
    tl.store(out_ptr + offset, total.to(out_ptr.dtype.element_ty), mask=inside)


def plan(rows: int, in_channels: int, out_channels: int, kernel: int, stride: int) -> dict[str, int]:
    """Tile of a shape: nothing else decides, so that values do not depend on the batch."""
    block_n, block_k = min(BLOCK_N, padded(out_channels)), min(32, padded(kernel * in_channels))
    tile = {"block_m": 64 if rows // stride >= 80 else 32, "block_n": block_n, "block_k": block_k}
    shape = {"rows": rows, "in_channels": in_channels, "out_channels": out_channels, "kernel": kernel, "stride": stride}
    return {**tile, **shape, "capacity": kernel - stride + min(kernel - stride, rows)}


def conv(
    x: Tensor, alpha: Tensor | None, weight: Tensor, bias: Tensor, stride: int,
    state: Tensor, frame: Tensor, active: Tensor, out: Tensor, precision: str, with_tanh: bool,
) -> None:  # fmt: skip
    """Write out [B, T / stride, Cout]; advance the state."""
    batch, rows, in_channels = x.shape
    kernel, _, out_channels = weight.shape
    if kernel < stride or rows % stride:
        raise ValueError(
            f"{rows} rows by a kernel of {kernel} and a stride of {stride}; "
            "rows must be a multiple of the stride, and the kernel no shorter"
        )
    constants = plan(rows, in_channels, out_channels, kernel, stride)
    if state.shape != (batch, constants["capacity"], in_channels):
        raise ValueError(f"the state is {tuple(state.shape)}; make it as state_shape says for x {tuple(x.shape)}")
    if out.shape != (batch, rows // stride, out_channels):
        raise ValueError(f"out is {tuple(out.shape)}; it must be {(batch, rows // stride, out_channels)}")
    grid = (
        triton.cdiv(batch * (rows // stride), constants["block_m"]),
        triton.cdiv(out_channels, constants["block_n"]),
    )
    if out.numel():
        conv_kernel[grid](
            x, bias if alpha is None else alpha, weight, bias, state, frame, active.view(torch.uint8), out, batch,
            **constants, with_snake=alpha is not None, with_tanh=with_tanh, precision=precision,
            num_warps=WARPS, num_stages=STAGES, enable_fp_fusion=True,
        )  # fmt: skip
