"""Latent of a frame's codes: one small product a codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import LANES, flat, inline_jit
from streamcodec_kernels.matmul._numba import matmul_windows, pack, pack_bias


def pack_lookup(
    codebook: NDArray[np.float32], out_weight: NDArray[np.float32], out_bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One codebook's arrays in the order that `lookup_codes` reads.

    codebook: [N, D].  out_weight: [D, L].  out_bias: [L].
    """
    return np.concatenate([codebook.reshape(-1), pack(out_weight), pack_bias(out_bias)])


@inline_jit
def lookup_codes(
    chosen: Any, scratch: Any, latent_at: int, latent: int, codes: int, dimension: int, weights: Any, weights_at: int
) -> None:
    """Write the latent of `chosen` to scratch[latent_at:]; every code must be from 0 to codes - 1."""
    lane_latent = (latent + LANES - 1) // LANES * LANES
    for i in range(latent):
        scratch[latent_at + i] = 0
    book_at = weights_at
    for k in range(chosen.size):
        out_at = book_at + codes * dimension
        bias_at = out_at + dimension * (lane_latent if latent > 1 else 1)
        matmul_windows(
            weights,
            book_at + chosen[k] * dimension,
            0,
            1,
            weights,
            out_at,
            dimension,
            latent,
            weights,
            bias_at,
            scratch,
            latent_at,
            0,
            True,
            1,
            0,
            0,
        )
        book_at = bias_at + lane_latent


@cached_jit
def _run(chosen: Any, latent: Any, codes: int, dimension: int, weights: Any) -> None:
    lookup_codes(chosen, latent, 0, latent.size, codes, dimension, weights, 0)


def code_lookup(
    codes: NDArray[np.int16],
    codebook: NDArray[np.float32],
    out_weight: NDArray[np.float32],
    out_bias: NDArray[np.float32],
    latent: NDArray[np.float32],
) -> None:
    """Latent of a frame's codes.

    codes: [K], K from 0.  codebook: [>= K, N, D].  out_weight: [>= K, D, L].  out_bias: [>= K, L].
    latent: [L], written.
    """
    _, size, dimension = codebook.shape
    if codes.size and not (codes.min() >= 0 and codes.max() < size):
        raise ValueError(f"codes from {codes.min()} to {codes.max()}; they must be from 0 to {size - 1}")
    books = [pack_lookup(codebook[k], out_weight[k], out_bias[k]) for k in range(codes.size)]
    weights = np.concatenate([*books, np.zeros(0, np.float32)])
    _run(codes, flat(latent), size, dimension, weights)
