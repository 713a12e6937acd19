"""How many chains of codes an encoder keeps: more cost time and leave less of the sound uncoded."""

from __future__ import annotations

from numbers import Integral

from streamcodec.errors import ConfigError
from streamcodec_kernels.beam_search import MAX_BEAM


def checked_beam(beam: int) -> int:
    """Return what is a width of the beam.

    Raises
    ------
    ConfigError
        It is no whole number from 1 to MAX_BEAM.
    """
    if isinstance(beam, bool) or not isinstance(beam, Integral) or not 1 <= beam <= MAX_BEAM:
        raise ConfigError(f"beam is {beam!r}; it must be a whole number from 1 to {MAX_BEAM}")
    return int(beam)
