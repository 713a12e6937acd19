"""ViSQOL v3 (Chinen et al. 2020): a mean opinion score predicted from gammatone spectrograms, by visqol-python."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Literal

from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.metrics.waveforms import Float32, check_pair, resampled

Mode = Literal["audio", "speech"]
_RATE_HZ = {"audio": 48_000, "speech": 16_000}
_SHORTEST_S = 1.0


def visqol(reference: Float32, degraded: Float32, sample_rate_hz: int, mode: Mode = "audio") -> float:
    """ViSQOL of two waveforms [T]: 1 (bad) to about 4.7 (audio) or 5 (speech).

    Both are resampled to 48 kHz (audio mode: full band, any sound) or 16 kHz (speech mode).  Audio mode is what the
    codec literature reports, for speech as well.  Speech mode uses the polynomial map, which needs nothing more
    installed and reads higher than the lattice map of the C++ default.

    Raises
    ------
    AudioError
        Shorter than one second, or a mode that is neither.
    MissingExtraError
        visqol-python is not installed.
    """
    x, y = check_pair(reference, degraded)
    if mode not in _RATE_HZ:
        raise AudioError(f"ViSQOL has no mode {mode!r}; choose audio or speech")
    if len(x) < _SHORTEST_S * sample_rate_hz:
        raise AudioError(f"ViSQOL got {len(x) / sample_rate_hz:.2f} s; it needs at least {_SHORTEST_S:g} s")
    rate_hz = _RATE_HZ[mode]
    x, y = (resampled(wave, sample_rate_hz, rate_hz) for wave in (x, y))
    return float(_api(mode).measure_from_arrays(x, y, rate_hz).moslqo)


@lru_cache(maxsize=2)
def _api(mode: Mode) -> Any:
    try:
        from visqol import VisqolApi
    except ImportError:
        raise MissingExtraError("visqol-python", "eval") from None
    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = VisqolApi()
    api.create(mode=mode, use_lattice_model=False if mode == "speech" else None)
    return api
