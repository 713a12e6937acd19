"""STOI, short-time objective intelligibility of speech (Taal et al. 2011), by the pystoi package."""

from __future__ import annotations

import warnings

from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.metrics.waveforms import Float32, check_pair


def stoi(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """STOI of two waveforms [T]: 0 to 1, higher is better.  For speech only.

    Raises
    ------
    AudioError
        Fewer than 30 frames (0.4 s) that are not silent.
    MissingExtraError
        pystoi is not installed.
    """
    x, y = check_pair(reference, degraded)
    try:
        from pystoi import stoi as taal_stoi
    except ImportError:
        raise MissingExtraError("pystoi", "eval") from None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(taal_stoi(x, y, sample_rate_hz))
        except (RuntimeWarning, ValueError, IndexError):
            raise AudioError("STOI needs at least 0.4 s that is not silent; score clips that hold speech") from None
