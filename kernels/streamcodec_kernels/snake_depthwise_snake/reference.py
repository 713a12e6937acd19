"""The specification: whole-array numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def _snake(x: Array, alpha: Array) -> Array:
    return x + np.sin(alpha * x) ** 2 / alpha


def forward(
    x: Array, alpha_in: Array, weight: Array, bias: Array, alpha_out: Array, dilation: int
) -> tuple[Array, Array]:
    """Return y and v, as the package describes them."""
    rows = x.shape[1]
    past = (weight.shape[0] - 1) * dilation
    u = np.pad(_snake(x, alpha_in), ((0, 0), (past, 0), (0, 0)))
    v = bias + sum(tap * u[:, j * dilation : j * dilation + rows] for j, tap in enumerate(weight))
    return _snake(v, alpha_out), v
