"""Latent of a frame's codes, codebook by codebook."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def code_lookup(
    codes: NDArray[np.int16], codebook: Float32, out_weight: Float32, out_bias: Float32
) -> NDArray[np.float64]:
    """Latent [L] of codes [K], in float64."""
    latent = np.zeros(out_bias.shape[1])
    for k, code in enumerate(codes):
        latent += codebook[k][code].astype(np.float64) @ out_weight[k] + out_bias[k]
    return latent
