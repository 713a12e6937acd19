"""Triton: one program takes a tile of rows of all streams: Snake into the ring, then the sum of taps and channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.ring._triton import halo_rows, padded, ring_start, snake_into_ring, wrapped
from streamcodec_kernels.tanh._triton import tanh_value

WARPS = 4


@triton.jit(do_not_specialize=["batch"])
def waveform_conv_kernel(
    x_ptr: tl.tensor, alpha_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor,
    state_ptr: tl.tensor, frame_ptr: tl.tensor, active_ptr: tl.tensor, out_ptr: tl.tensor, batch: int,
    rows: tl.constexpr, channels: tl.constexpr, taps: tl.constexpr, halo: tl.constexpr,
    block_m: tl.constexpr, block_c: tl.constexpr, chunk: tl.constexpr,
) -> None:  # fmt: skip
    """Samples of one tile of `block_m` rows."""
    capacity: tl.constexpr = taps - 1 + rows
    first = tl.program_id(0) * block_m
    snake_into_ring(
        x_ptr, alpha_ptr, state_ptr, frame_ptr, active_ptr, batch, first,
        rows, channels, capacity, halo, block_m, block_c, chunk,
    )  # fmt: skip
    row = first + tl.arange(0, block_m)
    stream = row // rows
    on = row < batch * rows
    on = on & (tl.load(active_ptr + stream, mask=on, other=0) != 0)
    start = ring_start(frame_ptr, stream, on, rows, capacity) + row - stream * rows
    ring = (stream - first // rows) * capacity
    state_ptr += (first // rows).to(tl.int64) * (capacity * channels)
    total = tl.zeros([block_m, block_c], tl.float32)
    for first_channel in range(0, channels, block_c):
        channel = first_channel + tl.arange(0, block_c)
        inside = on[:, None] & (channel < channels)[None, :]
        for tap in tl.static_range(taps):
            place = ring + wrapped(start - (taps - 1 - tap), capacity)
            u = tl.load(state_ptr + (place * channels)[:, None] + channel[None, :], mask=inside, other=0.0)
            weight = tl.load(weight_ptr + tap * channels + channel, mask=channel < channels, other=0.0)
            total += u.to(tl.float32) * weight.to(tl.float32)[None, :]
    value = tl.sum(total, axis=1) + tl.load(bias_ptr).to(tl.float32)
    tl.store(out_ptr + row, tanh_value(value).to(out_ptr.dtype.element_ty), mask=on)


def plan(rows: int, channels: int, taps: int) -> dict[str, int]:
    """Tile of a shape: nothing else decides, so that values do not depend on the batch."""
    block_c = min(32, padded(channels))
    block_m = 2048 // block_c
    chunk = block_m // 2
    halo = triton.cdiv(halo_rows(taps - 1, rows, block_m), chunk) * chunk
    tile = {"block_m": block_m, "block_c": block_c, "chunk": chunk, "halo": halo}
    return {**tile, "rows": rows, "channels": channels, "taps": taps}


def waveform_conv(
    x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor, state: Tensor, frame: Tensor, active: Tensor, out: Tensor
) -> None:
    """Write out [B, T, 1]; advance the state."""
    batch, rows, channels = x.shape
    taps = weight.shape[0]
    if state.shape != (batch, taps - 1 + rows, channels):
        raise ValueError(f"the state is {tuple(state.shape)}; make it as state_shape says for x {tuple(x.shape)}")
    if out.shape != (batch, rows, 1) or weight.shape[2] != 1:
        raise ValueError(f"out is {tuple(out.shape)} and weight {tuple(weight.shape)}; both must end in one channel")
    constants = plan(rows, channels, taps)
    if x.numel():
        waveform_conv_kernel[(triton.cdiv(batch * rows, constants["block_m"]),)](
            x, alpha, weight, bias, state, frame, active.view(torch.uint8), out, batch,
            **constants, num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
