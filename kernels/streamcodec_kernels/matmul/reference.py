"""Matrix product over sliding windows, window by window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def matmul(
    x: NDArray[np.float32], step: int, rows: int, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Windows of x @ weight + bias in float64.  x: flat.  weight: [depth, columns].  Returns [rows, columns]."""
    depth = len(weight)
    windows = np.stack([x[i * step : i * step + depth] for i in range(rows)]).astype(np.float64)
    return np.asarray(windows @ weight + bias)
