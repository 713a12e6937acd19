"""What a batch refuses before any stream advances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcodec.engine import Int16
from streamcodec.errors import AudioError, CorruptStream

UNUSED = -1
"""Stands where a stream uses no codebook."""


def copy(target: NDArray[np.generic], given: NDArray[np.generic], name: str) -> None:
    """Copy what is of the same type and shape.

    Raises
    ------
    AudioError
        It is not.
    """
    if given.shape != target.shape or given.dtype != target.dtype:
        raise AudioError(f"{name} are {given.dtype} {given.shape}; give {target.dtype} {target.shape}")
    target[:] = given


def mask(given: NDArray[np.bool_], streams: int) -> NDArray[np.bool_]:
    """Return what is a mask of so many streams.

    Raises
    ------
    AudioError
        It is none.
    """
    if given.shape != (streams,) or given.dtype != np.bool_:
        raise AudioError(f"a mask is {given.dtype} {given.shape}; give bool ({streams},)")
    return given


def received_books(codes: Int16, active: NDArray[np.bool_], codebook_size: int) -> NDArray[np.int64]:
    """Codebooks that each active stream received, [B]; 0 is a lost frame.  codes: [B, K].

    Raises
    ------
    CorruptStream
        A code of an active stream is out of range or stands behind an unused one.
    """
    used = codes != UNUSED
    wrong = (codes < UNUSED) | (codes >= codebook_size)
    wrong[:, 1:] |= used[:, 1:] & ~used[:, :-1]
    wrong &= active[:, None]
    if wrong.any():
        slot = int(np.flatnonzero(wrong.any(1))[0])
        raise CorruptStream(
            f"slot {slot} received codes {codes[slot].tolist()}; give codes from 0 to {codebook_size - 1}, "
            f"then {UNUSED} for the codebooks that are not used"
        )
    counts: NDArray[np.int64] = used.sum(1) * active
    return counts
