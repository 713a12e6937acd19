"""Residual vector quantisation of the latents of B streams on CUDA."""

from __future__ import annotations

from torch import Tensor


def nearest_code(
    latents: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebook: Tensor,
    parts: Tensor,
    counts: Tensor,
    active: Tensor,
    codes: Tensor,
) -> None:
    """Write the codes of each latent in its own number of codebooks, and 0 in the rest.

    Parameters
    ----------
    latents : Tensor
        [B, L], float32, bfloat16 or float16.
    in_weight, in_bias : Tensor
        float32 [K, L, D] and [K, D] (or of more codebooks), as the package describes them.
    codebook : Tensor
        float32 [K, D, N]: neighbours in memory are codes, as those are what neighbouring threads compare.
    parts : Tensor
        float32 [K, N, L], by `streamcodec_kernels.code_lookup.cuda.project`.
    counts : Tensor
        int32 [B], codebooks in use from 0 to K.
    active : Tensor
        bool [B]; other rows of `codes` stay.
    codes : Tensor
        int16 [B, K].
    """
    from streamcodec_kernels.nearest_code import _triton

    _triton.nearest_code(latents, in_weight, in_bias, codebook, parts, counts, active, codes)
