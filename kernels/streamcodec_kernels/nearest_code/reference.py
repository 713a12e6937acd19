"""Residual vector quantisation, codebook by codebook."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def nearest_code(
    latent: NDArray[np.floating],
    in_weight: Float32,
    in_bias: Float32,
    codebook: Float32,
    out_weight: Float32,
    out_bias: Float32,
) -> NDArray[np.int16]:
    """Codes [K] of one latent [L], computed in float64."""
    residual = latent.astype(np.float64)
    codes = []
    for k in range(len(codebook)):
        query = residual @ in_weight[k] + in_bias[k]
        codes.append(int(np.argmax(codebook[k] @ query)))
        residual = residual - (codebook[k][codes[-1]].astype(np.float64) @ out_weight[k] + out_bias[k])
    return np.array(codes, np.int16)
