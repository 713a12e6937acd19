"""Triton: rows of the projected codes, gathered and summed in float32, in the order of the codebooks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels._triton_cache import choose_triton_cache

choose_triton_cache()

BLOCK_STREAMS = 4
WARPS = 4


@triton.jit(do_not_specialize=["batch"])
def code_lookup_kernel(
    codes_ptr: tl.tensor, counts_ptr: tl.tensor, parts_ptr: tl.tensor, active_ptr: tl.tensor, latent_ptr: tl.tensor,
    batch: int, books: tl.constexpr, size: tl.constexpr, latent: tl.constexpr,
    block_b: tl.constexpr, block_l: tl.constexpr,
) -> None:  # fmt: skip
    """Latents of `block_b` streams."""
    stream = tl.program_id(0) * block_b + tl.arange(0, block_b)
    value = tl.arange(0, block_l)
    on = stream < batch
    on = on & (tl.load(active_ptr + stream, mask=on, other=0) != 0)
    count = tl.load(counts_ptr + stream, mask=on, other=0)
    total = tl.zeros([block_b, block_l], tl.float32)
    for k in range(books):
        used = on & (k < count)
        code = tl.load(codes_ptr + stream.to(tl.int64) * books + k, mask=used, other=0).to(tl.int32)
        code = tl.minimum(tl.maximum(code, 0), size - 1)
        row = (k * size + code).to(tl.int64) * latent
        inside = used[:, None] & (value < latent)[None, :]
        total += tl.load(parts_ptr + row[:, None] + value[None, :], mask=inside, other=0.0)
    offset = stream.to(tl.int64)[:, None] * latent + value[None, :]
    inside = on[:, None] & (value < latent)[None, :]
    tl.store(latent_ptr + offset, total.to(latent_ptr.dtype.element_ty), mask=inside)


def code_lookup(codes: Tensor, counts: Tensor, parts: Tensor, active: Tensor, latent: Tensor) -> None:
    """Write latent [B, L]."""
    batch, books = codes.shape
    _, size, width = parts.shape
    if latent.shape != (batch, width) or parts.shape[0] < books:
        raise ValueError(
            f"codes are {tuple(codes.shape)}, parts {tuple(parts.shape)} and latent {tuple(latent.shape)}; "
            "they must be [B, K], [at least K, N, L] and [B, L]"
        )
    if batch:
        code_lookup_kernel[(triton.cdiv(batch, BLOCK_STREAMS),)](
            codes, counts, parts, active.view(torch.uint8), latent, batch,
            books=books, size=size, latent=width, block_b=BLOCK_STREAMS, block_l=triton.next_power_of_2(width),
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
