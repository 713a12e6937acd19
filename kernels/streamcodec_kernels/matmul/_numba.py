"""Matrix product from register tiles of up to 8 rows by two vectors, weights packed in the order they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import INT, LANES, VECTOR, WIDE_REGISTERS, Emitter, flat, intrinsic, jit, round_up

TILE_ROWS = 8 if WIDE_REGISTERS else 6
PANEL = 2 * LANES


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


@intrinsic
def tile(
    typing: Any,
    rows: Any,
    x: Any,
    x_at: Any,
    step: Any,
    weight: Any,
    weight_at: Any,
    depth: Any,
    bias: Any,
    bias_at: Any,
    out: Any,
    out_at: Any,
    out_step: Any,
    columns: Any,
    accumulate: Any,
) -> Any:
    """Compute `rows` (1 to TILE_ROWS) rows of the panel at weight_at, `columns` of it, all sums held in registers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        source, panel, biases, target = (emit.pointer(signature.args[i], args[i], args[i + 1]) for i in (1, 4, 7, 9))
        row_count, step, depth, out_step, columns, accumulate = (args[i] for i in (0, 3, 6, 11, 12, 13))
        end = builder.append_basic_block("tile.end")
        wide = builder.zext(builder.icmp_signed(">", columns, INT(LANES)), INT)
        unreachable = builder.append_basic_block("tile.none")
        pick = builder.switch(builder.add(builder.mul(row_count, INT(2)), wide), unreachable)
        builder.position_at_end(unreachable)
        builder.branch(end)
        for count in range(1, TILE_ROWS + 1):
            for vectors in (1, 2):
                case = builder.append_basic_block(f"tile.{count}.{vectors}")
                pick.add_case(INT(2 * count + vectors - 1), case)
                builder.position_at_end(case)
                sums = _sums(emit, source, step, panel, depth, count, vectors)
                _finish(emit, sums, vectors, biases, target, out_step, columns, accumulate)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    arguments = (rows, x, x_at, step, weight, weight_at, depth, bias, bias_at, out, out_at, out_step, columns)
    return types.void(*arguments, accumulate), generate


def _finish(
    emit: Emitter,
    sums: list[Any],
    vectors: int,
    biases: Any,
    target: Any,
    out_step: Any,
    columns: Any,
    accumulate: Any,
) -> None:
    """Add the bias, and what is there when accumulating, and store; the last vector may be a short one."""
    builder = emit.builder
    bias = [emit.load(emit.at(biases, v * LANES)) for v in range(vectors)]
    sums = [builder.fadd(value, bias[i % vectors]) for i, value in enumerate(sums)]
    addresses = [
        emit.at(target, builder.add(builder.mul(out_step, INT(row)), INT(v * LANES)))
        for row in range(len(sums) // vectors)
        for v in range(vectors)
    ]

    def write(mask: Any, adding: bool) -> None:
        for i, (value, address) in enumerate(zip(sums, addresses, strict=True)):
            only = mask if i % vectors == vectors - 1 else None
            emit.store(builder.fadd(value, emit.load(address, only)) if adding else value, address, only)

    whole = builder.icmp_signed(">=", columns, INT(vectors * LANES))
    with builder.if_else(whole) as (full, short):
        for branch, is_short in ((full, False), (short, True)):
            with branch:
                mask = emit.mask(builder.sub(columns, INT((vectors - 1) * LANES))) if is_short else None
                with builder.if_else(accumulate) as (adding, writing):
                    with adding:
                        write(mask, True)
                    with writing:
                        write(mask, False)


def _sums(emit: Emitter, source: Any, step: Any, panel: Any, depth: Any, rows: int, vectors: int) -> list[Any]:
    """The loop over depth: one phi node for each sum, and one moving pointer for every three rows."""
    builder = emit.builder
    starts = [emit.at(source, builder.mul(step, INT(row))) for row in range(0, rows, 3)]
    two_steps = builder.mul(step, INT(2))
    before = builder.block
    loop = builder.append_basic_block("depth")
    after = builder.append_basic_block("depth.end")
    builder.branch(loop)
    builder.position_at_end(loop)

    def carried(kind: Any, initial: Any) -> Any:
        phi = builder.phi(kind)
        phi.add_incoming(initial, before)
        return phi

    index = carried(INT, INT(0))
    weights_at = carried(panel.type, panel)
    rows_at = [carried(source.type, start) for start in starts]
    sums = [carried(VECTOR, emit.constant(0.0)) for _ in range(rows * vectors)]
    weights = [emit.load(emit.at(weights_at, v * LANES)) for v in range(vectors)]
    results = []
    for row in range(rows):
        base = rows_at[row // 3]
        address = (base, emit.at(base, step), emit.at(base, two_steps))[row % 3]
        value = emit.splat(builder.load(address))
        results += [emit.fma(value, weights[v], sums[row * vectors + v]) for v in range(vectors)]
    following = builder.add(index, INT(1))
    for phi, value in (
        (index, following),
        (weights_at, emit.at(weights_at, vectors * LANES)),
        *((at, emit.at(at, 1)) for at in rows_at),
        *zip(sums, results, strict=True),
    ):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    builder.position_at_end(after)
    return results


@intrinsic
def dot_windows(
    typing: Any,
    x: Any,
    x_at: Any,
    step: Any,
    rows: Any,
    weight: Any,
    weight_at: Any,
    depth: Any,
    bias: Any,
    out: Any,
    out_at: Any,
    out_step: Any,
    accumulate: Any,
) -> Any:
    """Product with a single column: LANES of the depth at once, four rows together."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        source = emit.pointer(signature.args[0], args[0], args[1])
        column = emit.pointer(signature.args[4], args[4], args[5])
        target = emit.pointer(signature.args[8], args[8], args[9])
        step, rows, depth, bias, out_step, accumulate = (args[i] for i in (2, 3, 6, 7, 10, 11))

        def some_rows(first: Any, count: int) -> None:
            row_numbers = [builder.add(first, INT(i)) for i in range(count)]
            windows = [emit.at(source, builder.mul(row, step)) for row in row_numbers]
            sums = [emit.variable(emit.constant(0.0)) for _ in windows]

            def block(at: Any, mask: Any) -> None:
                weights = emit.load(emit.at(column, at), mask)
                for window, total in zip(windows, sums, strict=True):
                    value = emit.load(emit.at(window, at), mask)
                    builder.store(emit.fma(value, weights, builder.load(total)), total)

            emit.blocks(depth, block)
            for row, total in zip(row_numbers, sums, strict=True):
                address = emit.at(target, builder.mul(row, out_step))
                base = builder.select(accumulate, builder.fadd(bias, builder.load(address)), bias)
                builder.store(emit.sum(base, builder.load(total)), address)

        fours = builder.and_(rows, INT(-4))
        with emit.loop(INT(0), fours, 4) as row:
            some_rows(row, 4)
        with emit.loop(fours, rows, 1) as row:
            some_rows(row, 1)
        return context.get_dummy_value()

    arguments = (x, x_at, step, rows, weight, weight_at, depth, bias, out, out_at, out_step, accumulate)
    return types.void(*arguments), generate


@jit
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
) -> None:
    """Rows of windows from x[x_at:] times packed weights, to out[out_at:], rows `out_step` apart; depth >= 1."""
    if columns == 1:
        dot_windows(x, x_at, step, rows, weight, weight_at, depth, bias[bias_at], out, out_at, out_step, accumulate)
        return
    blocks = (rows + TILE_ROWS - 1) // TILE_ROWS
    for column in range(0, columns, PANEL):
        row = 0
        for block in range(blocks):
            count = (rows - row + blocks - block - 1) // (blocks - block)
            tile(
                count,
                x,
                x_at + row * step,
                step,
                weight,
                weight_at + column * depth,
                depth,
                bias,
                bias_at + column,
                out,
                out_at + row * out_step + column,
                out_step,
                columns - column,
                accumulate,
            )
            row += count


@cached_jit
def _run(
    x: Any, step: int, rows: int, weight: Any, depth: int, columns: int, bias: Any, out: Any, accumulate: bool
) -> None:
    matmul_windows(x, 0, step, rows, weight, 0, depth, columns, bias, 0, out, 0, columns, accumulate)


def matmul(
    x: NDArray[np.float32],
    step: int,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    accumulate: bool = False,
) -> None:
    """Matrix product over sliding windows.

    x: flat, at least (rows - 1) * step + depth values.  weight: [depth, columns].  bias: [columns].
    out: [rows, columns], contiguous: written, or added to.
    """
    rows, columns = out.shape
    depth = len(weight)
    if weight.shape[1:] != (columns,) or bias.shape != (columns,) or x.size < (rows - 1) * step + depth:
        raise ValueError(f"x {x.shape}, step {step}, weight {weight.shape}, bias {bias.shape}, out {out.shape}: no fit")
    _run(x, step, rows, pack(weight), depth, columns, pack_bias(bias), flat(out), accumulate)
