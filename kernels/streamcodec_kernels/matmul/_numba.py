"""Matrix product over sliding windows of many streams at once, weights packed in the order they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import LANES, flat, inline_jit, jit, round_up
from streamcodec_kernels.matmul._tile import PANEL, ROW_PANELS, TILE_ROWS, dot_windows, tile


def packed_size(depth: int, columns: int) -> int:
    """Values in the packed form of a [depth, columns] matrix."""
    return depth * (round_up(columns, LANES) if columns > 1 else 1)


def pack(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Order weights as the tiles read them: panels of PANEL columns, the last one of LANES if that holds the rest.

    One column stays as it is.

    weight: [depth, columns].  Returns flat [packed_size(depth, columns)], absent columns zero.
    """
    depth, columns = weight.shape
    if columns == 1:
        return weight.reshape(-1)
    padded = np.zeros((depth, round_up(columns, LANES)), np.float32)
    padded[:, :columns] = weight
    return np.concatenate([padded[:, at : at + PANEL].reshape(-1) for at in range(0, columns, PANEL)])


def pack_bias(bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bias padded to whole vectors."""
    return np.pad(bias, (0, round_up(len(bias), LANES) - len(bias)))


@jit
def _windows(
    x: Any,
    x_at: int,
    step: int,
    rows: int,
    weight: Any,
    weight_at: int,
    depth: int,
    columns: int,
    bias: Any,
    bias_at: int,
    out: Any,
    out_at: int,
    out_step: int,
    accumulate: int,
    streams: int,
    x_stream: int,
    out_stream: int,
) -> None:
    if rows == 1:
        rows, step, out_step, streams = streams, x_stream, out_stream, 1
    if columns == 1:
        for stream in range(streams):
            dot_windows(
                x,
                x_at + stream * x_stream,
                step,
                rows,
                weight,
                weight_at,
                depth,
                bias[bias_at],
                out,
                out_at + stream * out_stream,
                out_step,
                accumulate != 0,
            )
        return
    blocks = (rows + TILE_ROWS - 1) // TILE_ROWS
    column = 0
    while column < columns:
        width = ROW_PANELS * PANEL if rows == 1 and columns - column >= ROW_PANELS * PANEL else PANEL
        for stream in range(streams):
            row = 0
            for block in range(blocks):
                count = (rows - row + blocks - block - 1) // (blocks - block)
                tile(
                    count,
                    x,
                    x_at + stream * x_stream + row * step,
                    step,
                    weight,
                    weight_at + column * depth,
                    depth,
                    bias,
                    bias_at + column,
                    out,
                    out_at + stream * out_stream + row * out_step + column,
                    out_step,
                    columns - column,
                    accumulate != 0,
                )
                row += count
        column += width


@inline_jit
def matmul_windows(
    x: Any,
    x_at: int,
    step: int,
    rows: int,
    weight: Any,
    weight_at: int,
    depth: int,
    columns: int,
    bias: Any,
    bias_at: int,
    out: Any,
    out_at: int,
    out_step: int,
    accumulate: bool,
    streams: int,
    x_stream: int,
    out_stream: int,
) -> None:
    """Rows of windows from x[x_at:] times packed weights, to out[out_at:], rows `out_step` apart; depth >= 1.

    The same for each of `streams` streams, x_stream and out_stream values apart: a panel of weights is read once.
    weight: float32, or uint16 that are the bits of float16, where columns are whole panels.
    """
    _windows(
        x,
        np.int64(x_at),
        np.int64(step),
        np.int64(rows),
        weight,
        np.int64(weight_at),
        np.int64(depth),
        np.int64(columns),
        bias,
        np.int64(bias_at),
        out,
        np.int64(out_at),
        np.int64(out_step),
        np.int64(accumulate),
        np.int64(streams),
        np.int64(x_stream),
        np.int64(out_stream),
    )


@cached_jit
def matmul_packed(
    x: Any,
    step: int,
    rows: int,
    weight: Any,
    depth: int,
    columns: int,
    bias: Any,
    out: Any,
    accumulate: bool,
    streams: int,
    x_stream: int,
) -> None:
    """`matmul` of arrays as one row of values each, weight and bias packed; x_stream values from stream to stream."""
    matmul_windows(
        x,
        0,
        step,
        rows,
        weight,
        0,
        depth,
        columns,
        bias,
        0,
        out,
        0,
        columns,
        accumulate,
        streams,
        x_stream,
        rows * columns,
    )


def matmul(
    x: NDArray[np.float32],
    step: int,
    weight: NDArray[np.float32] | NDArray[np.float16],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    accumulate: bool = False,
) -> None:
    """Matrix product over sliding windows.

    x: [streams, at least (rows - 1) * step + depth].  weight: [depth, columns], float32, or float16 where columns
    is a multiple of PANEL.  bias: [columns].  out: [streams, rows, columns], contiguous: written, or added to.
    """
    streams, rows, columns = out.shape
    depth = len(weight)
    is_half = weight.dtype == np.float16
    if (
        weight.shape[1:] != (columns,)
        or bias.shape != (columns,)
        or x.shape[1] < (rows - 1) * step + depth
        or (is_half and columns % PANEL)
    ):
        raise ValueError(f"x {x.shape}, step {step}, weight {weight.shape}, bias {bias.shape}, out {out.shape}: no fit")
    packed: NDArray[np.float32] | NDArray[np.uint16] = pack(weight.astype(np.float32))
    if is_half:
        packed = packed.astype(np.float16).view(np.uint16)
    biases, x_stream = pack_bias(bias), x.shape[1]
    matmul_packed(flat(x), step, rows, packed, depth, columns, biases, flat(out), accumulate, streams, x_stream)
