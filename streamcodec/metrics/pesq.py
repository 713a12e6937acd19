"""PESQ, wideband (ITU-T P.862.2): a mean opinion score for speech, by the pesq package."""

from __future__ import annotations

from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.metrics.waveforms import Float32, check_pair, resampled

RATE_HZ = 16_000


def pesq(reference: Float32, degraded: Float32, sample_rate_hz: int) -> float:
    """PESQ-WB of two waveforms [T], resampled to 16 kHz: about 1.04 (bad) to 4.64.  For speech only.

    Raises
    ------
    AudioError
        Too short, or no speech found in it.
    MissingExtraError
        pesq is not installed.
    """
    x, y = check_pair(reference, degraded)
    try:
        from pesq import BufferTooShortError, NoUtterancesError
        from pesq import pesq as itu_pesq
    except ImportError:
        raise MissingExtraError("pesq", "eval") from None
    x, y = (resampled(wave, sample_rate_hz, RATE_HZ) for wave in (x, y))
    if not (x.any() and y.any()):
        raise AudioError("PESQ got silence; score clips that hold speech")
    try:
        return float(itu_pesq(RATE_HZ, x, y, "wb"))
    except (BufferTooShortError, NoUtterancesError) as error:
        raise AudioError(f"PESQ cannot score this clip: {type(error).__name__}; score clips that hold speech") from None
