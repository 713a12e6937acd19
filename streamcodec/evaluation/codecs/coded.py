"""What a codec made of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamcodec.metrics.waveforms import Float32


@dataclass(frozen=True)
class Coded:
    """Decoded samples, float32 [T] at `sample_rate_hz` with the nominal delay removed, and what they cost.

    payload_bits: bits of all packets, without what a transport adds.  codes: int16 [K, F] where known.
    """

    samples: Float32
    sample_rate_hz: int
    payload_bits: float
    codes: NDArray[np.int16] | None = None
