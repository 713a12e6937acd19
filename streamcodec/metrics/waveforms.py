"""What every metric asks of the two waveforms that it compares."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import AudioError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = TypeVar("Floats", Float32, Float64)


def check_pair(reference: Float32, degraded: Float32) -> tuple[Float64, Float64]:
    """Both waveforms as float64 [T].

    Raises
    ------
    AudioError
        Not one-dimensional, empty, of two lengths, or not finite.
    """
    pair = []
    for name, waveform in (("reference", reference), ("degraded", degraded)):
        array = np.asarray(waveform, dtype=np.float64)
        if array.ndim != 1 or not array.size:
            raise AudioError(f"the {name} waveform has shape {array.shape}; a metric needs one channel, [T], T > 0")
        if not np.isfinite(array).all():
            raise AudioError(f"the {name} waveform holds a value that is not finite; clean it before scoring")
        pair.append(array)
    if len(pair[0]) != len(pair[1]):
        raise AudioError(
            f"the reference has {len(pair[0])} samples and the degraded {len(pair[1])}; align them before scoring"
        )
    return pair[0], pair[1]


def resampled(waveform: Floats, rate_hz: int, wanted_hz: int) -> Floats:
    """`waveform` [T] resampled from `rate_hz` to `wanted_hz` with soxr's best quality, dtype kept."""
    if rate_hz == wanted_hz:
        return waveform
    import soxr

    out: Floats = soxr.resample(waveform, rate_hz, wanted_hz, quality="VHQ")
    return out
