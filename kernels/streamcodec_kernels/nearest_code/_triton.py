"""Triton: a warp walks the codebooks for two latents, without a barrier between threads that have work.

A lane scores its own codes of every tile and keeps the best of them; lanes are compared once a codebook.  A tile lies
in memory as it is read (`arrange`), a row for each dimension, and a row is on its way while earlier ones are used: also
the next codebook's first rows while the last choice is made.

All products are float32 (no TF32), so that only a near-tie can fall otherwise than on the CPU; equal scores go to the
lowest code.  What a code takes from the residual is read from `parts`, where it was made once, in float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels._triton_cache import choose_triton_cache

choose_triton_cache()

BLOCK_ROWS = 2
KEPT_DIMS = 64
"""Dimensions up to which a query stays in registers; a longer one is made anew for every tile of codes."""

SPARE_ROWS = 16
"""Rows after the last tile: what is read ahead of it, and not used."""


@triton.jit
def _rows(ptr: tl.tensor, first: tl.constexpr, last: tl.constexpr, column: tl.tensor, width: tl.constexpr) -> tl.tuple:
    """Rows first..last - 1, each its own tensor."""
    rows = ()
    for i in tl.static_range(first, last):
        rows += (tl.load(ptr + i * width + column),)  # type: ignore[assignment]
    return rows


@triton.jit
def _query(
    residual: tl.tensor, weight_ptr: tl.tensor, weights: tl.tuple, value: tl.tensor,
    dim: tl.constexpr, block_latent: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """The residuals' projections, a column for each dimension; `weights` are the first rows of the matrix."""
    ahead: tl.constexpr = len(weights)
    query = ()
    for d in tl.static_range(dim):
        if d + ahead < dim:
            weights += _rows(weight_ptr, d + ahead, d + ahead + 1, value, block_latent)
        query += (tl.sum(residual * weights[d][None, :], axis=1)[:, None],)  # type: ignore[assignment]
    return query


@triton.jit(do_not_specialize=["batch"])
def nearest_code_kernel(
    latent_ptr: tl.tensor, weight_ptr: tl.tensor, book_ptr: tl.tensor, parts_ptr: tl.tensor, counts_ptr: tl.tensor,
    active_ptr: tl.tensor, codes_ptr: tl.tensor, batch: int,
    books: tl.constexpr, latent: tl.constexpr, dim: tl.constexpr, size: tl.constexpr,
    block_rows: tl.constexpr, block_latent: tl.constexpr, block_codes: tl.constexpr,
    kept: tl.constexpr, weights_ahead: tl.constexpr, rows_ahead: tl.constexpr,
) -> None:  # fmt: skip
    """Write the codes of `block_rows` latents."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    on = row < batch
    on = on & (tl.load(active_ptr + row, mask=on, other=0) != 0)
    count = tl.load(counts_ptr + row, mask=on, other=0)
    most = tl.minimum(tl.max(count, axis=0), books)
    value = tl.arange(0, block_latent)
    column = tl.arange(0, block_codes)
    target = codes_ptr + row.to(tl.int64) * books
    inside = on[:, None] & (value < latent)[None, :]
    offset = row.to(tl.int64)[:, None] * latent + value[None, :]
    offset = tl.max_contiguous(offset, [1, 4])  # sixteen-bit latents lie over the lanes as what is taken from them
    residual = tl.load(latent_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    taken = tl.zeros([block_rows, block_latent], tl.float32)
    near = _rows(book_ptr, 0, rows_ahead, column, block_codes)
    for k in range(most):
        tl.debug_barrier()  # tells the assembler that a program's threads make this loop together
        weights = _rows(weight_ptr, 0, weights_ahead, value, block_latent)
        residual -= taken
        if kept:
            query = _query(residual, weight_ptr, weights, value, dim, block_latent)
        best = tl.full([block_rows, block_codes], float("-inf"), tl.float32)
        origin = tl.zeros([block_rows, block_codes], tl.int32)
        for first in range(0, size, block_codes):
            if kept:
                rows = near + _rows(book_ptr, rows_ahead, rows_ahead + 1, column, block_codes)
                score = tl.broadcast_to(near[0][None, :], [block_rows, block_codes])
                for d in tl.static_range(dim):
                    rows += _rows(book_ptr, rows_ahead + d + 1, rows_ahead + d + 2, column, block_codes)
                    score += query[d] * rows[d + 1][None, :]
                near = ()
                for i in tl.static_range(rows_ahead):
                    near += (rows[dim + 1 + i],)
            else:
                score = tl.broadcast_to(tl.load(book_ptr + column)[None, :], [block_rows, block_codes])
                for d in range(dim):
                    weight = tl.load(weight_ptr + d * block_latent + value)
                    part = tl.sum(residual * weight[None, :], axis=1)
                    score += part[:, None] * tl.load(book_ptr + (d + 1) * block_codes + column)[None, :]
            better = score > best  # never so of a score that is not a number
            best = tl.where(better, score, best)
            origin = tl.where(better, first, origin)
            book_ptr += (dim + 1) * block_codes
        level = best == tl.max(best, axis=1)[:, None]
        chosen = tl.min(tl.where(level, origin + column[None, :], size), axis=1)
        tl.store(target + k, tl.where(k < count, chosen, 0).to(codes_ptr.dtype.element_ty), mask=on)
        part_row = (k * size + chosen).to(tl.int64) * latent
        taken = tl.load(parts_ptr + part_row[:, None] + value[None, :], mask=inside, other=0.0)
        weight_ptr += dim * block_latent
    for k in range(most, books):
        tl.store(target + k, tl.zeros([block_rows], codes_ptr.dtype.element_ty), mask=on)


def plan(latent: int, dim: int, size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Tile of a shape and the compiler's options: as much read ahead as registers hold beside the query."""
    kept, block = dim <= KEPT_DIMS, max(128, triton.next_power_of_2(latent))
    tile = {"block_rows": BLOCK_ROWS, "block_latent": block, "block_codes": 512, "kept": kept}
    ahead = {"weights_ahead": 0, "rows_ahead": 0}
    if kept:
        tile["block_codes"] = 256 if dim <= 8 else 128
        ahead["weights_ahead"] = min(dim, max(1, (1024 if dim <= 33 else 512) // block))
        ahead["rows_ahead"] = min(dim + 1, SPARE_ROWS if dim <= 33 else 4 if dim <= 48 else 2)
    options = {"num_warps": max(1, block // 512)}
    if not kept:
        options["maxnreg"] = 255  # no spills for the sake of more programs at once
    return {**tile, **ahead, "latent": latent, "dim": dim, "size": size}, options


def arrange(in_weight: Tensor, in_bias: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [K, D, padded L], and rows [K * tiles * (1 + D) and spare ones, codes of a tile].

    A tile is a row of what the bias adds to each code's score, then a row for each dimension.
    """
    books, size, dim = codebook.shape
    constants, _ = plan(in_weight.shape[1], dim, size)
    block, codes = constants["block_latent"], constants["block_codes"]
    weight = torch.nn.functional.pad(in_weight.transpose(1, 2), (0, block - in_weight.shape[1]))
    offset = codebook.double() @ in_bias.double()[:, :, None]
    rows = torch.cat([offset.to(codebook.dtype), codebook], 2)
    rows = torch.nn.functional.pad(rows, (0, 0, 0, -size % codes))
    rows[:, size:, 0] = float("nan")  # never chosen
    rows = rows.view(books, -1, codes, 1 + dim).transpose(2, 3).reshape(-1, codes)
    return weight.contiguous(), torch.nn.functional.pad(rows, (0, 0, 0, SPARE_ROWS)).contiguous()


def nearest_code(
    latents: Tensor, weight: Tensor, book: Tensor, parts: Tensor, counts: Tensor, active: Tensor, codes: Tensor
) -> None:
    """Write the codes [B, K] of latents [B, L]."""
    (batch, books), latent = codes.shape, latents.shape[1]
    (known, size, _), dim = parts.shape, weight.shape[1]
    constants, options = plan(latent, dim, size)
    width = constants["block_codes"]
    expected = (known * triton.cdiv(size, width) * (1 + dim) + SPARE_ROWS, width)
    if books > known or parts.shape[2] != latent or len(weight) != known or tuple(book.shape) != expected:
        raise ValueError(
            f"codes are {tuple(codes.shape)}, latents {tuple(latents.shape)}, parts {tuple(parts.shape)}, weight "
            f"{tuple(weight.shape)}, book {tuple(book.shape)}; they must be [B, at most K], [B, L], [K, N, L], and as "
            "`arrange` makes them of K codebooks of N codes"
        )
    if batch and books:
        nearest_code_kernel[(triton.cdiv(batch, BLOCK_ROWS),)](
            latents, weight, book, parts, counts, active.view(torch.uint8), codes, batch,
            books=books, **constants, **options, enable_fp_fusion=True,
        )  # fmt: skip
