"""Residual vector quantisation by a beam, with every code of every chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def beam_search(
    latent: NDArray[np.floating], codebook: Float32, out_weight: Float32, out_bias: Float32, beam: int
) -> NDArray[np.int16]:
    """Codes [K] of one latent [L], computed in float64."""
    residuals = latent.astype(np.float64)[None]
    chains: NDArray[np.int16] = np.zeros((1, 0), np.int16)
    for k, book in enumerate(codebook):
        parts = book.astype(np.float64) @ out_weight[k] + out_bias[k]
        left = residuals[:, None] - parts
        keep = 1 if k == len(codebook) - 1 else beam
        order = np.argsort((left**2).sum(-1), axis=None, kind="stable")[:keep]
        chain, code = np.divmod(order, len(parts))
        residuals = left[chain, code]
        chains = np.concatenate([chains[chain], code[:, None].astype(np.int16)], axis=1)
    best: NDArray[np.int16] = chains[0]
    return best
