"""Snake as it is written in the paper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def snake(x: NDArray[np.floating], alpha: NDArray[np.float32]) -> NDArray[np.float64]:
    """Snake, x + sin^2(alpha x) / alpha, in float64.  x: [T, C].  alpha: [C], > 0."""
    wide = alpha.astype(np.float64)
    return np.asarray(x + np.sin(wide * x) ** 2 / wide)
