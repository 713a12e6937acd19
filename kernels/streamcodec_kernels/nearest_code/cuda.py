"""Residual vector quantisation of the latents of B streams on CUDA."""

from __future__ import annotations

from torch import Tensor


def arrange(in_weight: Tensor, in_bias: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Projections and codebooks as `nearest_code` takes them, made once when a model is loaded.

    Parameters
    ----------
    in_weight, in_bias, codebook : Tensor
        float32 [K, L, D], [K, D] and [K, N, D], as the package describes them.

    Returns
    -------
    tuple of Tensor
        Weight and book, in an order of the kernel's own.
    """
    from streamcodec_kernels.nearest_code import _triton

    return _triton.arrange(in_weight, in_bias, codebook)


def nearest_code(
    latents: Tensor, weight: Tensor, book: Tensor, parts: Tensor, counts: Tensor, active: Tensor, codes: Tensor
) -> None:
    """Write the codes of each latent in its own number of codebooks, and 0 in the rest.

    Parameters
    ----------
    latents : Tensor
        [B, L], float32, bfloat16 or float16.
    weight, book : Tensor
        Of K codebooks or more, by `arrange`.
    parts : Tensor
        float32 [K, N, L], by `streamcodec_kernels.code_lookup.cuda.project`, of as many codebooks as `book`.
    counts : Tensor
        int32 [B], codebooks in use from 0 to K.
    active : Tensor
        bool [B]; other rows of `codes` stay.
    codes : Tensor
        int16 [B, K].
    """
    from streamcodec_kernels.nearest_code import _triton

    _triton.nearest_code(latents, weight, book, parts, counts, active, codes)
