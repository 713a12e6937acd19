"""Triton: one program walks all codebooks for sixteen latents without leaving the chip.

latents: [rows, L], float32, bfloat16 or float16, contiguous.  The arrays of the contract: float32, contiguous.
codes: int16 [rows, K], written.  All products are float32 (no TF32), so that only a near-tie can fall otherwise than
on the CPU; equal scores go to the lowest code.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK_ROWS = 16
BLOCK_CODES = 128
WARPS = 8


def padded(extent: int) -> int:
    """Power of two, at least the sixteen that a matrix product takes."""
    return max(16, 1 << (extent - 1).bit_length())


@triton.jit
def nearest_code_kernel(
    latent_ptr: tl.tensor, in_weight_ptr: tl.tensor, in_bias_ptr: tl.tensor, codebook_ptr: tl.tensor,
    out_weight_ptr: tl.tensor, out_bias_ptr: tl.tensor, codes_ptr: tl.tensor, rows: int, books: int,
    latent: tl.constexpr, dim: tl.constexpr, size: tl.constexpr,
    block_latent: tl.constexpr, block_dim: tl.constexpr, block_codes: tl.constexpr, block_rows: tl.constexpr,
) -> None:  # fmt: skip
    """Write the codes of `block_rows` latents."""
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    value = tl.arange(0, block_latent)
    axis = tl.arange(0, block_dim)
    code = tl.arange(0, block_codes)
    inside = (row < rows)[:, None] & (value < latent)[None, :]
    residual = tl.load(latent_ptr + row[:, None] * latent + value[None, :], mask=inside, other=0.0).to(tl.float32)
    in_offset = value[:, None] * dim + axis[None, :]
    in_mask = (value < latent)[:, None] & (axis < dim)[None, :]
    out_offset = axis[:, None] * latent + value[None, :]
    out_mask = (axis < dim)[:, None] & (value < latent)[None, :]
    for k in range(books):
        in_weight = tl.load(in_weight_ptr + k * (latent * dim) + in_offset, mask=in_mask, other=0.0)
        in_bias = tl.load(in_bias_ptr + k * dim + axis, mask=axis < dim, other=0.0)
        query = tl.dot(residual, in_weight, input_precision="ieee") + in_bias[None, :]
        book_ptr = codebook_ptr + k * (size * dim)
        best = tl.full([block_rows], float("-inf"), tl.float32)
        chosen = tl.zeros([block_rows], tl.int32)
        for first in range(0, size, block_codes):
            offset = (first + code)[None, :] * dim + axis[:, None]
            mask = (first + code < size)[None, :] & (axis < dim)[:, None]
            codes = tl.load(book_ptr + offset, mask=mask, other=0.0)
            score = tl.dot(query, codes, input_precision="ieee")
            score = tl.where((first + code < size)[None, :], score, float("-inf"))
            highest, at = tl.max(score, axis=1, return_indices=True, return_indices_tie_break_left=True)
            chosen = tl.where(highest > best, first + at, chosen)
            best = tl.maximum(highest, best)
        tl.store(codes_ptr + row * books + k, chosen.to(codes_ptr.dtype.element_ty), mask=row < rows)
        nearest = tl.load(book_ptr + chosen[:, None] * dim + axis[None, :], mask=(axis < dim)[None, :], other=0.0)
        out_weight = tl.load(out_weight_ptr + k * (dim * latent) + out_offset, mask=out_mask, other=0.0)
        out_bias = tl.load(out_bias_ptr + k * latent + value, mask=value < latent, other=0.0)
        residual -= tl.dot(nearest, out_weight, input_precision="ieee") + out_bias[None, :]


def nearest_code(
    latents: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebook: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    codes: Tensor,
) -> None:
    """Write the codes of the first codes.shape[1] codebooks for every latent."""
    rows, books = codes.shape
    size, dim = codebook.shape[1:]
    latent = latents.shape[1]
    if rows and books:
        nearest_code_kernel[(triton.cdiv(rows, BLOCK_ROWS),)](
            latents, in_weight, in_bias, codebook, out_weight, out_bias, codes, rows, books,
            latent=latent, dim=dim, size=size, block_latent=padded(latent), block_dim=padded(dim),
            block_codes=min(BLOCK_CODES, padded(size)), block_rows=BLOCK_ROWS,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
