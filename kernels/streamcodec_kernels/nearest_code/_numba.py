"""Residual vector quantisation: products from `matmul`, the search over LANES codes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import (
    FLOAT,
    INDICES,
    INT,
    INT32,
    LANES,
    Emitter,
    flat,
    inline_jit,
    intrinsic,
    ir,
    round_up,
)
from streamcodec_kernels.matmul._numba import matmul_windows, pack, pack_bias, packed_size

SEARCH_VECTORS = 4
"""Vectors of codes that the search scores side by side."""

PANEL_CODES = SEARCH_VECTORS * LANES
"""Codes of a panel: what the search reads is one stretch of memory from a codebook's begin to its end."""


def pack_codebook(codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    """Panels of codes, those of a panel across.  codebook: [N, D].  Returns flat [panels, D, PANEL_CODES]."""
    padded = np.pad(codebook, ((0, -len(codebook) % PANEL_CODES), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, PANEL_CODES, codebook.shape[1]).transpose(0, 2, 1)).reshape(-1)


@intrinsic
def search(typing: Any, query: Any, query_at: Any, codes: Any, codes_at: Any, count: Any, dimension: Any) -> Any:
    """Index of the code with the largest dot product with query[query_at:], the lowest of equals.

    codes[codes_at:]: `count` codes of `dimension` values as `pack_codebook` lays them.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        values = emit.pointer(signature.args[0], args[0], args[1])
        book = emit.pointer(signature.args[2], args[2], args[3])
        count, dimension = args[4], args[5]
        lowest = emit.constant(float("-inf"))
        lanes = ir.Constant(INDICES, list(range(LANES)))
        best, best_index = emit.variable(lowest), emit.variable(lanes)

        def panel(at: Any, left: Any) -> None:
            totals = [emit.variable(emit.constant(0.0)) for _ in range(SEARCH_VECTORS)]
            codes = emit.at(book, builder.mul(at, dimension))
            with emit.loop(INT(0), dimension, 1) as d:
                value = emit.splat(builder.load(emit.at(values, d)))
                parts = emit.at(codes, builder.mul(d, INT(PANEL_CODES)))
                for v, total in enumerate(totals):
                    part = emit.load(emit.at(parts, v * LANES))
                    builder.store(emit.fma(value, part, builder.load(total)), total)
            for v, total in enumerate(totals):
                score = builder.load(total)
                if left is not None:
                    score = builder.select(emit.mask(builder.sub(left, INT(v * LANES))), score, lowest)
                better = builder.fcmp_ordered(">", score, builder.load(best))
                index = builder.add(emit.splat(builder.trunc(builder.add(at, INT(v * LANES)), INT32)), lanes)
                builder.store(builder.select(better, score, builder.load(best)), best)
                builder.store(builder.select(better, index, builder.load(best_index)), best_index)

        whole = builder.and_(count, INT(-PANEL_CODES))
        with emit.loop(INT(0), whole, PANEL_CODES) as at:
            panel(at, None)
        with emit.loop(whole, count, PANEL_CODES) as at:
            panel(at, builder.sub(count, at))
        scores, indices = builder.load(best), builder.load(best_index)
        top, top_index = ir.Constant(FLOAT, float("-inf")), INT32(0)
        for lane in range(LANES):
            score = builder.extract_element(scores, INT32(lane))
            index = builder.extract_element(indices, INT32(lane))
            tie = builder.and_(builder.fcmp_ordered("==", score, top), builder.icmp_signed("<", index, top_index))
            better = builder.or_(builder.fcmp_ordered(">", score, top), tie)
            top = builder.select(better, score, top)
            top_index = builder.select(better, index, top_index)
        return builder.sext(top_index, INT)

    return types.int64(query, query_at, codes, codes_at, count, dimension), generate


def book_size(latent: int, codes: int, dimension: int) -> int:
    """Values of one codebook's arrays, packed."""
    return (
        packed_size(latent, dimension)
        + round_up(dimension, LANES)
        + dimension * round_up(codes, PANEL_CODES)
        + packed_size(dimension, latent)
        + round_up(latent, LANES)
    )


def pack_book(
    in_weight: NDArray[np.float32],
    in_bias: NDArray[np.float32],
    codebook: NDArray[np.float32],
    out_weight: NDArray[np.float32],
    out_bias: NDArray[np.float32],
) -> NDArray[np.float32]:
    """One codebook's arrays in the order that `nearest_codes` reads; the way out negative, as it is subtracted.

    in_weight: [L, D].  in_bias: [D].  codebook: [N, D].  out_weight: [D, L].  out_bias: [L].  Returns [book_size].
    """
    parts = (pack(in_weight), pack_bias(in_bias), pack_codebook(codebook), pack(-out_weight), pack_bias(-out_bias))
    return np.concatenate(parts)


@inline_jit
def book_places(latent: int, codes: int, dimension: int) -> tuple[int, int, int, int, int]:
    """Where `pack_book` puts the bias of the way in, the codes, the way out and its bias, and where it ends."""
    lane_dimension = (dimension + LANES - 1) // LANES * LANES
    lane_latent = (latent + LANES - 1) // LANES * LANES
    in_bias = latent * (lane_dimension if dimension > 1 else 1)
    book = in_bias + lane_dimension
    out = book + dimension * ((codes + PANEL_CODES - 1) // PANEL_CODES * PANEL_CODES)
    out_bias = out + dimension * (lane_latent if latent > 1 else 1)
    return in_bias, book, out, out_bias, out_bias + lane_latent


@inline_jit
def nearest_codes(
    scratch: Any,
    residual_at: int,
    query_at: int,
    stream_step: int,
    latent: int,
    codes: int,
    dimension: int,
    weights: Any,
    weights_at: int,
    chosen: Any,
) -> None:
    """Fill `chosen`, [streams, K], from each stream's scratch[residual_at:], which ends as what no code explains.

    Streams are `stream_step` values apart; a stream's scratch[query_at:] is used for `dimension` values.
    """
    streams, books = chosen.shape
    in_bias_offset, book_offset, out_offset, out_bias_offset, book_values = book_places(latent, codes, dimension)
    for k in range(books):
        in_at = weights_at + k * book_values
        book_at = in_at + book_offset
        matmul_windows(
            scratch,
            residual_at,
            0,
            1,
            weights,
            in_at,
            latent,
            dimension,
            weights,
            in_at + in_bias_offset,
            scratch,
            query_at,
            0,
            False,
            streams,
            stream_step,
            stream_step,
        )
        for stream in range(streams):
            query = query_at + stream * stream_step
            code = search(scratch, query, weights, book_at, codes, dimension)
            chosen[stream, k] = code
            code_at = book_at + code // PANEL_CODES * PANEL_CODES * dimension + code % PANEL_CODES
            for d in range(dimension):
                scratch[query + d] = weights[code_at + d * PANEL_CODES]
        matmul_windows(
            scratch,
            query_at,
            0,
            1,
            weights,
            in_at + out_offset,
            dimension,
            latent,
            weights,
            in_at + out_bias_offset,
            scratch,
            residual_at,
            0,
            True,
            streams,
            stream_step,
            stream_step,
        )


@cached_jit
def _run(scratch: Any, latent: int, codes: int, dimension: int, weights: Any, chosen: Any) -> None:
    nearest_codes(scratch, 0, latent, 0, latent, codes, dimension, weights, 0, chosen)


def nearest_code(
    latent: NDArray[np.float32],
    in_weight: NDArray[np.float32],
    in_bias: NDArray[np.float32],
    codebook: NDArray[np.float32],
    out_weight: NDArray[np.float32],
    out_bias: NDArray[np.float32],
    codes: NDArray[np.int16],
) -> None:
    """Residual vector quantisation of one latent.

    latent: [L].  in_weight: [K, L, D].  in_bias: [K, D].  codebook: [K, N, D].  out_weight: [K, D, L].
    out_bias: [K, L].  codes: [K], written.
    """
    books, size, dimension = codebook.shape
    if codes.shape != (books,) or in_weight.shape != (books, latent.size, dimension):
        raise ValueError(f"latent {latent.shape}, codebook {codebook.shape}, codes {codes.shape}: no fit")
    arrays = (in_weight, in_bias, codebook, out_weight, out_bias)
    weights = np.concatenate([pack_book(*(array[k] for array in arrays)) for k in range(books)])
    scratch = np.concatenate([flat(latent), np.empty(dimension, np.float32)])
    _run(scratch, latent.size, size, dimension, weights, codes[None])
