"""Where rows stand in a ring, how a frame is written into it, and the counters, in Triton.

Rows of a batch are numbered through, B * T of them, and cut into tiles: small frames share a tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.snake._triton import snake_value

ADVANCE_BLOCK = 256


def padded(extent: int) -> int:
    """Power of two, at least the sixteen that a matrix product takes."""
    return max(16, 1 << (extent - 1).bit_length())


def halo_rows(history: int, rows: int, tile: int) -> int:
    """Rows before a tile that belong to the same frame and that the tile looks back to."""
    return 0 if tile % rows == 0 else min(history, rows - 1)


@triton.jit
def ring_start(
    frame_ptr: tl.tensor, stream: tl.tensor, on: tl.tensor, kept: tl.constexpr, capacity: tl.constexpr
) -> tl.tensor:
    """Row of the ring where the present frame's rows begin."""
    frame = tl.load(frame_ptr + stream, mask=on, other=0)
    return ((frame % capacity) * kept) % capacity


@triton.jit
def wrapped(place: tl.tensor, capacity: tl.constexpr) -> tl.tensor:
    """Row of the ring of a place at most one turn ahead or behind."""
    place = tl.where(place < 0, place + capacity, place)
    return tl.where(place >= capacity, place - capacity, place)


@triton.jit
def snake_into_ring(
    x_ptr: tl.tensor, alpha_ptr: tl.tensor, state_ptr: tl.tensor, frame_ptr: tl.tensor, active_ptr: tl.tensor,
    batch: int, first: tl.tensor,
    rows: tl.constexpr, channels: tl.constexpr, capacity: tl.constexpr, halo: tl.constexpr,
    block_m: tl.constexpr, block_c: tl.constexpr, chunk: tl.constexpr,
) -> None:  # fmt: skip
    """Write snake(x) of the tile of rows from `first`, and of the rows that it looks back to in the same frame.

    A neighbour writes the same values to the rows that both need.  Then wait for this program's threads.
    """
    first_stream = first // rows
    x_ptr += first.to(tl.int64) * channels
    state_ptr += first_stream.to(tl.int64) * (capacity * channels)
    for begin in range(-halo, block_m, chunk):
        row = first + begin + tl.arange(0, chunk)
        stream = row // rows
        on = (row >= 0) & (row < batch * rows) & ((begin >= 0) | (stream == first_stream))
        on = on & (tl.load(active_ptr + stream, mask=on, other=0) != 0)
        start = ring_start(frame_ptr, stream, on, rows, capacity)
        place = wrapped(start + row - stream * rows, capacity)
        source = (row - first) * channels
        target = ((stream - first_stream) * capacity + place) * channels
        for first_channel in tl.static_range(0, channels, block_c):
            channel = first_channel + tl.arange(0, block_c)
            inside = on[:, None] & (channel < channels)[None, :]
            alpha = tl.load(alpha_ptr + channel, mask=channel < channels, other=1.0).to(tl.float32)[None, :]
            x = tl.load(x_ptr + source[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
            u = snake_value(x, alpha, 1.0 / alpha).to(state_ptr.dtype.element_ty)
            tl.store(state_ptr + target[:, None] + channel[None, :], u, mask=inside)
    tl.debug_barrier()


@triton.jit
def advance_kernel(frame_ptr: tl.tensor, active_ptr: tl.tensor, batch: int, block: tl.constexpr) -> None:
    """Count one frame for active streams."""
    stream = tl.program_id(0) * block + tl.arange(0, block)
    on = (stream < batch) & (tl.load(active_ptr + stream, mask=stream < batch, other=0) != 0)
    frame = tl.load(frame_ptr + stream, mask=on, other=0)
    tl.store(frame_ptr + stream, tl.where(frame == 2147483647, 0, frame + 1), mask=on)


def advance(frame: Tensor, active: Tensor) -> None:
    """Count one frame for every active stream."""
    batch = frame.shape[0]
    if batch:
        grid = (triton.cdiv(batch, ADVANCE_BLOCK),)
        advance_kernel[grid](
            frame, active.view(torch.uint8), batch, block=ADVANCE_BLOCK, num_warps=4, enable_fp_fusion=True
        )
