"""Gradients of Snake as calculus gives them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def snake_gradients(
    x: NDArray[np.float32], alpha: NDArray[np.float32], grad_out: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradients by x [T, C] and by alpha [C], in float64, of sum(grad_out * snake(x, alpha))."""
    wide_x, wide_alpha, grad = x.astype(np.float64), alpha.astype(np.float64), grad_out.astype(np.float64)
    slope = np.sin(2 * wide_alpha * wide_x)
    by_alpha = (wide_x * slope - np.sin(wide_alpha * wide_x) ** 2 / wide_alpha) / wide_alpha
    return grad * (1 + slope), (grad * by_alpha).sum(0)
