"""Register tiles: a few rows of a product, all sums held in vector registers while the depth runs through."""

from __future__ import annotations

from typing import Any

from numba import types

from streamcodec_kernels._simd import INT, LANES, WIDE_REGISTERS, Emitter, intrinsic

TILE_ROWS = 8 if WIDE_REGISTERS else 6
"""Most rows of a tile of two vectors."""

PANEL = 2 * LANES
"""Columns of a panel of packed weights."""

ROW_PANELS = 4
"""Panels that a single row is multiplied by at once: enough sums to hide the latency of an addition."""


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
    """Compute `rows` rows of the panel at weight_at.

    rows: 1 to TILE_ROWS; with one row and ROW_PANELS whole panels left, all of them.  columns: columns left, some may
    be beyond the panel.  weight: float32, or uint16 that are the bits of float16 and whose panels are whole.
    """
    is_half = weight.dtype == types.uint16
    shapes = [(count, vectors) for count in range(1, TILE_ROWS + 1) for vectors in ((2,) if is_half else (1, 2))]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")  # one copy: the tiles are large
        emit = Emitter(context, builder)
        source, panel, biases, target = (emit.pointer(signature.args[i], args[i], args[i + 1]) for i in (1, 4, 7, 9))
        row_count, step, depth, out_step, columns, accumulate = (args[i] for i in (0, 3, 6, 11, 12, 13))
        end = builder.append_basic_block("tile.end")
        none = builder.append_basic_block("tile.none")
        more = builder.zext(builder.icmp_signed(">", columns, INT(LANES)), INT)
        wide = builder.and_(
            builder.icmp_signed("==", row_count, INT(1)), builder.icmp_signed(">=", columns, INT(ROW_PANELS * PANEL))
        )
        key = builder.add(builder.mul(row_count, INT(2)), more)
        pick = builder.switch(builder.select(wide, INT(1), key), none)
        builder.position_at_end(none)
        builder.branch(end)
        for count, vectors in [*shapes, (1, 2 * ROW_PANELS)]:
            case = builder.append_basic_block(f"tile.{count}.{vectors}")
            pick.add_case(INT(1 if vectors > 2 else 2 * count + vectors - 1), case)
            builder.position_at_end(case)
            sums = _sums(emit, source, step, panel, depth, count, vectors, is_half)
            _finish(emit, sums, vectors, biases, target, out_step, columns, accumulate)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    arguments = (rows, x, x_at, step, weight, weight_at, depth, bias, bias_at, out, out_at, out_step, columns)
    return types.void(*arguments, accumulate), generate


def _sums(
    emit: Emitter, source: Any, step: Any, panel: Any, depth: Any, rows: int, vectors: int, is_half: bool
) -> list[Any]:
    """The loop over depth: one phi node for each sum, one moving pointer for three rows and for each panel."""
    builder = emit.builder
    in_panel = min(vectors, PANEL // LANES)
    starts = [emit.at(source, builder.mul(step, INT(row))) for row in range(0, rows, 3)]
    panels = [emit.at(panel, builder.mul(depth, INT(i * PANEL))) for i in range(vectors // in_panel)]
    two_steps = builder.mul(step, INT(2))
    before = builder.block
    loop = builder.append_basic_block("depth")
    after = builder.append_basic_block("depth.end")
    builder.branch(loop)
    builder.position_at_end(loop)

    def carried(initial: Any) -> Any:
        phi = builder.phi(initial.type)
        phi.add_incoming(initial, before)
        return phi

    index = carried(INT(0))
    panels_at = [carried(start) for start in panels]
    rows_at = [carried(start) for start in starts]
    sums = [carried(emit.constant(0.0)) for _ in range(rows * vectors)]
    load = emit.load_half if is_half else emit.load
    weights = [load(emit.at(at, v * LANES)) for at in panels_at for v in range(in_panel)]
    results = []
    for row in range(rows):
        base = rows_at[row // 3]
        address = (base, emit.at(base, step), emit.at(base, two_steps))[row % 3]
        value = emit.splat(builder.load(address))
        results += [emit.fma(value, weights[v], sums[row * vectors + v]) for v in range(vectors)]
    following = builder.add(index, INT(1))
    for phi, value in (
        (index, following),
        *((at, emit.at(at, in_panel * LANES)) for at in panels_at),
        *((at, emit.at(at, 1)) for at in rows_at),
        *zip(sums, results, strict=True),
    ):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    builder.position_at_end(after)
    return results


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
    addresses = [
        emit.at(target, builder.add(builder.mul(out_step, INT(row)), INT(v * LANES)))
        for row in range(len(sums) // vectors)
        for v in range(vectors)
    ]
    last = emit.mask(builder.sub(columns, INT((vectors - 1) * LANES)))
    every = emit.splat(accumulate)
    masks = [last if i % vectors == vectors - 1 else None for i in range(len(sums))]
    results = []
    for i, (value, address, mask) in enumerate(zip(sums, addresses, masks, strict=True)):
        before = emit.load(address, every if mask is None else builder.and_(every, mask))
        results.append(builder.fadd(builder.fadd(value, bias[i % vectors]), before))

    def write(short: bool) -> None:
        for value, address, mask in zip(results, addresses, masks, strict=True):
            emit.store(value, address, mask if short else None)

    if WIDE_REGISTERS:
        write(short=True)
        return
    with builder.if_else(builder.icmp_signed(">=", columns, INT(vectors * LANES))) as (full, part):
        with full:
            write(short=False)
        with part:
            write(short=True)


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

        emit.rows(rows, 4, some_rows)
        return context.get_dummy_value()

    arguments = (x, x_at, step, rows, weight, weight_at, depth, bias, out, out_at, out_step, accumulate)
    return types.void(*arguments), generate
