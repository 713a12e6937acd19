"""Latents of the codes of B streams on CUDA."""

from __future__ import annotations

import torch
from torch import Tensor


def project(codebook: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    """What every code adds to a latent, float32 [K, N, L]: made once when a model is loaded.

    Parameters
    ----------
    codebook, out_weight, out_bias : Tensor
        [K, N, D], [K, D, L] and [K, L].
    """
    parts = torch.baddbmm(out_bias.double()[:, None], codebook.double(), out_weight.double())
    return parts.float().contiguous()


def code_lookup(codes: Tensor, counts: Tensor, parts: Tensor, active: Tensor, latent: Tensor) -> None:
    """Write the sum of what each stream's codes add; without codes (a lost frame) it is zeros.

    Parameters
    ----------
    codes : Tensor
        int16 [B, K]; what is not from 0 to N - 1 is taken as the nearest of them.
    counts : Tensor
        int32 [B], codebooks in use from 0 to K; codes beyond are not read.
    parts : Tensor
        float32 [at least K, N, L], by `project`.
    active : Tensor
        bool [B]; other rows of `latent` stay.
    latent : Tensor
        [B, L].
    """
    from streamcodec_kernels.code_lookup import _triton

    _triton.code_lookup(codes, counts, parts, active, latent)
