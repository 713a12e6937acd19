"""Triton: one program walks the codebooks for sixteen latents without leaving the chip.

All products are float32 (no TF32), so that only a near-tie can fall otherwise than on the CPU.  Each lane keeps the
best of its own codes; lanes are compared once a codebook, and equal scores go to the lowest code.  What a code takes
from the residual is read from `parts`, where it was made once, in float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels.ring._triton import padded

BLOCK_ROWS = 16


@triton.jit
def _query(
    residual: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, value: tl.tensor, axis: tl.tensor,
    latent: tl.constexpr, dim: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Projections of the residuals to the dimensions `axis`."""
    mask = (value < latent)[:, None] & (axis < dim)[None, :]
    weight = tl.load(weight_ptr + value[:, None] * dim + axis[None, :], mask=mask, other=0.0)
    bias = tl.load(bias_ptr + axis, mask=axis < dim, other=0.0)
    return tl.dot(residual, weight, input_precision="ieee") + bias[None, :]


@triton.jit
def _score(
    query: tl.tensor, book_ptr: tl.tensor, code: tl.tensor, axis: tl.tensor, score: tl.tensor,
    dim: tl.constexpr, size: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Scores with the products over the dimensions `axis` added."""
    mask = (code < size)[None, :] & (axis < dim)[:, None]
    codes = tl.load(book_ptr + axis[:, None] * size + code[None, :], mask=mask, other=0.0)
    return tl.dot(query, codes, score, input_precision="ieee")


@triton.jit(do_not_specialize=["batch"])
def nearest_code_kernel(
    latent_ptr: tl.tensor, in_weight_ptr: tl.tensor, in_bias_ptr: tl.tensor, codebook_ptr: tl.tensor,
    parts_ptr: tl.tensor, counts_ptr: tl.tensor, active_ptr: tl.tensor, codes_ptr: tl.tensor, batch: int,
    books: tl.constexpr, latent: tl.constexpr, dim: tl.constexpr, size: tl.constexpr,
    block_latent: tl.constexpr, block_dim: tl.constexpr, block_rest: tl.constexpr, block_codes: tl.constexpr,
    block_rows: tl.constexpr,
) -> None:  # fmt: skip
    """Write the codes of `block_rows` latents."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    on = row < batch
    on = on & (tl.load(active_ptr + row, mask=on, other=0) != 0)
    count = tl.load(counts_ptr + row, mask=on, other=0)
    most = tl.minimum(tl.max(count, axis=0), books)
    value = tl.arange(0, block_latent)
    axis = tl.arange(0, block_dim)
    rest = block_dim + tl.arange(0, block_rest)
    lane = tl.arange(0, block_codes)
    target = codes_ptr + row.to(tl.int64) * books
    inside = on[:, None] & (value < latent)[None, :]
    offset = row.to(tl.int64)[:, None] * latent + value[None, :]
    residual = tl.load(latent_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    for k in range(most):
        weight_ptr = in_weight_ptr + k * (latent * dim)
        bias_ptr = in_bias_ptr + k * dim
        book_ptr = codebook_ptr + k * (size * dim)
        if dim <= block_dim + block_rest:
            query = _query(residual, weight_ptr, bias_ptr, value, axis, latent, dim)
        if block_dim < dim <= block_dim + block_rest:
            rest_query = _query(residual, weight_ptr, bias_ptr, value, rest, latent, dim)
        best = tl.full([block_rows, block_codes], float("-inf"), tl.float32)
        holder = tl.zeros([block_rows, block_codes], tl.int32)
        for first in range(0, size, block_codes):
            code = first + lane
            score = tl.zeros([block_rows, block_codes], tl.float32)
            if dim <= block_dim + block_rest:
                score = _score(query, book_ptr, code, axis, score, dim, size)
                if dim > block_dim:
                    score = _score(rest_query, book_ptr, code, rest, score, dim, size)
            else:  # queries of many dimensions do not fit beside the scores: made anew for each tile
                for first_axis in range(0, dim, block_dim):
                    part = _query(residual, weight_ptr, bias_ptr, value, first_axis + axis, latent, dim)
                    score = _score(part, book_ptr, code, first_axis + axis, score, dim, size)
            better = (code < size)[None, :] & (score > best)  # a score that is not a number never is
            best = tl.where(better, score, best)
            holder = tl.where(better, code[None, :], holder)
        highest = tl.max(best, axis=1)
        chosen = tl.min(tl.where(best == highest[:, None], holder, size), axis=1)
        tl.store(target + k, tl.where(k < count, chosen, 0).to(codes_ptr.dtype.element_ty), mask=on)
        part = (k * size + chosen).to(tl.int64) * latent
        residual -= tl.load(parts_ptr + part[:, None] + value[None, :], mask=inside, other=0.0)
    for k in range(most, books):
        tl.store(target + k, tl.zeros([block_rows], codes_ptr.dtype.element_ty), mask=on)


def plan(latent: int, dim: int, size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Tile of a shape and the compiler's options: queries of up to 64 dimensions are kept, in one block or two."""
    few = dim <= 64
    block_dim = min(32 if few else 16, padded(dim))
    tile = {"block_latent": padded(latent), "block_dim": block_dim, "block_rows": BLOCK_ROWS}
    tile["block_rest"] = min(block_dim, padded(max(1, dim - block_dim)))
    tile["block_codes"] = min(256, padded(size))
    shape = {"latent": latent, "dim": dim, "size": size}
    return {**tile, **shape}, {"num_warps": 8 if few else 16, "num_stages": 2}


def nearest_code(
    latents: Tensor, in_weight: Tensor, in_bias: Tensor, codebook: Tensor, parts: Tensor, counts: Tensor,
    active: Tensor, codes: Tensor,
) -> None:  # fmt: skip
    """Write the codes [B, K] of latents [B, L]."""
    batch, books = codes.shape
    _, dim, size = codebook.shape
    latent = latents.shape[1]
    if books > len(codebook) or parts.shape != (len(codebook), size, latent):
        raise ValueError(
            f"codes are {tuple(codes.shape)}, codebook {tuple(codebook.shape)}, parts {tuple(parts.shape)}; "
            "they must be [B, at most K], [K, D, N] and [K, N, L]"
        )
    constants, options = plan(latent, dim, size)
    if batch and books:
        nearest_code_kernel[(triton.cdiv(batch, BLOCK_ROWS),)](
            latents, in_weight, in_bias, codebook, parts, counts, active.view(torch.uint8), codes, batch,
            books=books, **constants, **options, enable_fp_fusion=True,
        )  # fmt: skip
