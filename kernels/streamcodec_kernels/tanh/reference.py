"""Hyperbolic tangent as numpy has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tanh(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Hyperbolic tangent in float64."""
    return np.asarray(np.tanh(x.astype(np.float64)))
