"""Beam search: products from `matmul`, codes scored PANEL_CODES at a time for all chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import INT, LANES, Emitter, copy_values, flat, inline_jit, intrinsic, ir, round_up
from streamcodec_kernels.beam_search import MAX_BEAM
from streamcodec_kernels.matmul._numba import matmul_windows, pack, pack_bias, packed_size
from streamcodec_kernels.nearest_code._numba import PANEL_CODES, SEARCH_VECTORS, book_places, pack_book

_CHAINS = 2
"""Chains that are scored side by side: their sums, and a panel's part, fit the registers."""


def scratch_values(latent: int, dimension: int, books: int, beam: int) -> int:
    """Values of scratch that a search needs: residuals twice, queries, scores, two rows of totals, and the chains."""
    return beam * (2 * latent + dimension + 1 + PANEL_CODES + 2 + 2 * books)


def guide_size(latent: int, codes: int, dimension: int) -> int:
    """Values of what `pack_guide` returns."""
    width = dimension + 1
    return packed_size(latent, width) + round_up(width, LANES) + round_up(codes, PANEL_CODES)


def pack_guide(
    codebook: NDArray[np.float32], out_weight: NDArray[np.float32], out_bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What the beam needs of one codebook beside `pack_book`: the way to its queries, zeros, what each code costs.

    codebook: [N, D].  out_weight: [D, L].  out_bias: [L].  Returns [guide_size].
    """
    parts = codebook.astype(np.float64) @ out_weight + out_bias
    costs = np.full(round_up(len(codebook), PANEL_CODES), -np.inf, np.float32)  # of the codes that fill the last panel
    costs[: len(codebook)] = -0.5 * (parts**2).sum(-1)
    queries = np.concatenate([out_weight, out_bias[None]]).T
    return np.concatenate([pack(queries), pack_bias(np.zeros(queries.shape[1], np.float32)), costs])


@intrinsic
def score_panel(
    typing: Any,
    queries: Any,
    queries_at: Any,
    step: Any,
    chains: Any,
    totals: Any,
    totals_at: Any,
    codes: Any,
    codes_at: Any,
    dimension: Any,
    costs: Any,
    costs_at: Any,
    out: Any,
    out_at: Any,
) -> Any:
    """Totals of each chain with each code of a panel, to out[out_at:], PANEL_CODES a chain.

    queries[queries_at:]: `dimension` values a chain, `step` apart.  totals[totals_at:]: one a chain.  codes[codes_at:]:
    a panel of `pack_codebook`.  costs[costs_at:]: PANEL_CODES values.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        source, sums_so_far, panel, cost, target = (
            emit.pointer(signature.args[i], args[i], args[i + 1]) for i in (0, 4, 6, 9, 11)
        )
        step, chains, dimension = args[2], args[3], args[8]

        def some(first: Any, count: int) -> None:
            numbers = [builder.add(first, INT(i)) for i in range(count)]
            rows = [emit.at(source, builder.mul(number, step)) for number in numbers]
            totals = [[emit.variable(emit.constant(0.0)) for _ in range(SEARCH_VECTORS)] for _ in rows]
            with emit.loop(INT(0), dimension, 1) as d:
                at = emit.at(panel, builder.mul(d, INT(PANEL_CODES)))
                parts = [emit.load(emit.at(at, v * LANES)) for v in range(SEARCH_VECTORS)]
                for row, sums in zip(rows, totals, strict=True):
                    value = emit.splat(builder.load(emit.at(row, d)))
                    for part, total in zip(parts, sums, strict=True):
                        builder.store(emit.fma(value, part, builder.load(total)), total)
            for number, sums in zip(numbers, totals, strict=True):
                base = emit.splat(builder.load(emit.at(sums_so_far, number)))
                place = emit.at(target, builder.mul(number, INT(PANEL_CODES)))
                for v, total in enumerate(sums):
                    score = builder.fadd(builder.load(total), emit.load(emit.at(cost, v * LANES)))
                    emit.store(builder.fadd(base, score), emit.at(place, v * LANES))

        emit.rows(chains, _CHAINS, some)
        return context.get_dummy_value()

    arguments = (queries, queries_at, step, chains, totals, totals_at, codes, codes_at, dimension)
    return types.void(*arguments, costs, costs_at, out, out_at), generate


@intrinsic
def any_above(typing: Any, scores: Any, scores_at: Any, threshold: Any) -> Any:
    """Whether one of the PANEL_CODES values from scores[scores_at:] is above the threshold."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        values, bound = emit.pointer(signature.args[0], args[0], args[1]), emit.splat(args[2])
        above: Any = None
        for v in range(SEARCH_VECTORS):
            one = builder.fcmp_ordered(">", emit.load(emit.at(values, v * LANES)), bound)
            above = one if above is None else builder.or_(above, one)
        bits = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(above, bits), bits(0))

    return types.boolean(scores, scores_at, types.float32), generate


@inline_jit
def _keep_best(
    scratch: Any, scores_at: int, chain: int, first: int, kept_at: int, chains_at: int, codes_at: int, wanted: int
) -> None:
    """Put those scores of a panel that belong there into the list of the best, sorted, earlier ones first at a tie."""
    last = kept_at + wanted - 1
    if not any_above(scratch, scores_at, scratch[last]):
        return
    for lane in range(PANEL_CODES):
        score = scratch[scores_at + lane]
        if score > scratch[last]:
            rank = wanted - 1
            while rank > 0 and score > scratch[kept_at + rank - 1]:
                scratch[kept_at + rank] = scratch[kept_at + rank - 1]
                scratch[chains_at + rank] = scratch[chains_at + rank - 1]
                scratch[codes_at + rank] = scratch[codes_at + rank - 1]
                rank -= 1
            scratch[kept_at + rank] = score
            scratch[chains_at + rank] = chain
            scratch[codes_at + rank] = first + lane


@inline_jit
def beam_codes(
    scratch: Any,
    latent_at: int,
    work_at: int,
    beam: int,
    latent: int,
    codes: int,
    dimension: int,
    weights: Any,
    books_at: int,
    guides_at: int,
    chosen: Any,
) -> None:
    """Fill `chosen`, [K], for the latent at scratch[latent_at:], which stays.

    scratch[work_at:] is used for `scratch_values`.  weights[books_at:]: codebooks of `pack_book`; weights[guides_at:]:
    those of `pack_guide`.
    """
    books = chosen.shape[0]
    width = dimension + 1
    lane_width = (width + LANES - 1) // LANES * LANES
    packed_codes = (codes + PANEL_CODES - 1) // PANEL_CODES * PANEL_CODES
    _, book_offset, out_offset, out_bias_offset, book_values = book_places(latent, codes, dimension)
    residuals_at = work_at
    next_at = residuals_at + beam * latent
    queries_at = next_at + beam * latent
    scores_at = queries_at + beam * width
    totals_at = scores_at + beam * PANEL_CODES
    kept_at = totals_at + beam
    paths_at = kept_at + beam
    copy_values(scratch, residuals_at, scratch, latent_at, latent)
    scratch[totals_at] = 0
    chains = 1
    for k in range(books):
        book_at = books_at + k * book_values
        guide_at = guides_at + k * (latent * lane_width + lane_width + packed_codes)
        zeros_at = guide_at + latent * lane_width
        costs_at = zeros_at + lane_width
        chains_at = paths_at + 2 * k * beam
        codes_at = chains_at + beam
        wanted = min(beam if k < books - 1 else 1, chains * codes)
        matmul_windows(
            scratch,
            residuals_at,
            latent,
            chains,
            weights,
            guide_at,
            latent,
            width,
            weights,
            zeros_at,
            scratch,
            queries_at,
            width,
            False,
            1,
            0,
            0,
        )
        for chain in range(chains):
            scratch[totals_at + chain] += scratch[queries_at + chain * width + dimension]
        for rank in range(wanted):  # what stays where nothing is a number
            scratch[kept_at + rank] = -np.inf
            scratch[chains_at + rank] = 0
            scratch[codes_at + rank] = 0
        for first in range(0, packed_codes, PANEL_CODES):
            score_panel(
                scratch,
                queries_at,
                width,
                chains,
                scratch,
                totals_at,
                weights,
                book_at + book_offset + first * dimension,
                dimension,
                weights,
                costs_at + first,
                scratch,
                scores_at,
            )
            for chain in range(chains):
                row = scores_at + chain * PANEL_CODES
                _keep_best(scratch, row, chain, first, kept_at, chains_at, codes_at, wanted)
        if k < books - 1:
            for rank in range(wanted):
                chain, code = int(scratch[chains_at + rank]), int(scratch[codes_at + rank])
                copy_values(scratch, next_at + rank * latent, scratch, residuals_at + chain * latent, latent)
                code_at = book_at + book_offset + code // PANEL_CODES * PANEL_CODES * dimension + code % PANEL_CODES
                for d in range(dimension):
                    scratch[queries_at + rank * width + d] = weights[code_at + d * PANEL_CODES]
            matmul_windows(
                scratch,
                queries_at,
                width,
                wanted,
                weights,
                book_at + out_offset,
                dimension,
                latent,
                weights,
                book_at + out_bias_offset,
                scratch,
                next_at,
                latent,
                True,
                1,
                0,
                0,
            )
            residuals_at, next_at = next_at, residuals_at
            totals_at, kept_at = kept_at, totals_at
            chains = wanted
    rank = 0
    for back in range(books):
        chains_at = paths_at + 2 * (books - 1 - back) * beam
        chosen[books - 1 - back] = int(scratch[chains_at + beam + rank])
        rank = int(scratch[chains_at + rank])


@cached_jit
def _run(
    scratch: Any, beam: int, latent: int, codes: int, dimension: int, weights: Any, guides_at: int, chosen: Any
) -> None:
    beam_codes(scratch, 0, latent, beam, latent, codes, dimension, weights, 0, guides_at, chosen)


def beam_search(
    latent: NDArray[np.float32],
    codebook: NDArray[np.float32],
    out_weight: NDArray[np.float32],
    out_bias: NDArray[np.float32],
    beam: int,
    codes: NDArray[np.int16],
) -> None:
    """Residual vector quantisation of one latent by a beam.

    latent: [L].  codebook: [K, N, D].  out_weight: [K, D, L].  out_bias: [K, L].  beam: 1 to MAX_BEAM.
    codes: [K], written.
    """
    books, size, dimension = codebook.shape
    if codes.shape != (books,) or out_weight.shape != (books, dimension, latent.size):
        raise ValueError(f"latent {latent.shape}, codebook {codebook.shape}, codes {codes.shape}: no fit")
    if not 1 <= beam <= MAX_BEAM:
        raise ValueError(f"beam is {beam}; it must be from 1 to {MAX_BEAM}")
    unused = np.zeros((latent.size, dimension), np.float32), np.zeros(dimension, np.float32)
    arrays = codebook, out_weight, out_bias
    packed = [pack_book(*unused, *(array[k] for array in arrays)) for k in range(books)]
    guides = [pack_guide(*(array[k] for array in arrays)) for k in range(books)]
    weights = np.concatenate([*packed, *guides])
    guides_at = sum(one.size for one in packed)
    work = np.full(scratch_values(latent.size, dimension, books, beam), np.nan, np.float32)
    scratch = np.concatenate([flat(latent), work])
    _run(scratch, beam, latent.size, size, dimension, weights, guides_at, codes)
