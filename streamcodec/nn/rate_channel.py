"""What stands for the quantiser while the encoder still moves."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn


class RateChannel(nn.Module):
    """A noisy channel of a fixed rate, in place of a quantiser whose codebooks could not follow the encoder.

    Frames are brought to unit level; their second moments C then say how much white noise lets through R bits:
    1/2 log2 det(I + C / noise) = R (Cover and Thomas 2006, section 10.3).  The noise has a gradient by C, so spreading
    a signal over more dimensions does not look free, and none by the level of a frame, so growing does not help.

    Parameters
    ----------
    latent_dim : int
        L.
    decay : float
        Of the moving average C.
    """

    moments: Tensor

    def __init__(self, latent_dim: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("moments", torch.eye(latent_dim))

    def forward(self, latent: Tensor, bits: Tensor) -> Tensor:
        """Pass [B, F, L] through channels of `bits` [B] a frame, each followed by its Wiener filter."""
        latent = latent.float()
        level = (latent.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        unit = (latent / level).flatten(0, 1)
        mine = unit.t() @ unit / len(unit)
        with torch.no_grad():
            self.moments.lerp_(mine.detach(), 1 - self.decay)
            vectors = torch.linalg.eigh(self.moments)[1]
        spread = torch.einsum("ij,ik,kj->j", vectors, self.moments + mine - mine.detach(), vectors).clamp_min(1e-8)
        passed = torch.empty_like(latent)
        for rate in bits.unique():
            rows = (bits == rate).nonzero()[:, 0]
            noise = noise_for_rate(spread, float(rate))
            gain = (spread / (spread + noise)).detach()
            heard = latent[rows] + torch.randn_like(latent[rows]) * (level[rows] * noise.sqrt())
            passed = passed.index_copy(0, rows, heard @ (vectors * gain @ vectors.t()))
        return passed


def noise_for_rate(spread: Tensor, bits: float) -> Tensor:
    """White noise that lets `bits` through, with its gradient by the variances `spread` [L]."""
    known = spread.detach().double()
    low, high = known.new_tensor(1e-9), known.new_tensor(1e6)
    for _ in range(60):
        middle = (low * high).sqrt()
        over = (0.5 * torch.log2(1 + known / middle)).sum() > bits
        low, high = (middle, high) if over else (low, middle)
    noise = middle.to(spread.dtype)
    rate = (0.5 * torch.log2(1 + spread / noise)).sum()
    slope = (-0.5 / log(2) * spread.detach() / (spread.detach() + noise)).sum()  # of the rate by log noise
    return noise * (1 - (rate - rate.detach()) / slope)
