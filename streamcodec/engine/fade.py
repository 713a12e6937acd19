"""Fades out what is concealed for long: the network invents speech for a moment, not for a minute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamcodec.engine import Float32

HOLD_FRAMES = 4
FADE_FRAMES = 8
VALUES = 2
"""What a stream keeps: the frames lost in a row, and 1 - gain; zeros at the start."""


def gains(lost: NDArray[np.bool_], state: Float32) -> tuple[Float32, Float32]:
    """Gain of each stream at the first and at the last sample of a frame, float32 [B] both.

    The level is held for HOLD_FRAMES of loss, fades over the next FADE_FRAMES and comes back within one frame.

    lost: [B].  state: [B, VALUES], advanced.
    """
    state[:, 0] = np.where(lost, np.minimum(state[:, 0] + 1, HOLD_FRAMES + FADE_FRAMES), 0)
    before: Float32 = 1 - state[:, 1]
    state[:, 1] = np.maximum(0, (state[:, 0] - HOLD_FRAMES) / FADE_FRAMES)
    after: Float32 = 1 - state[:, 1]
    return before, after


def problem(own: Float32) -> str | None:
    """What makes finite values of one stream impossible, if anything does.  own: [VALUES]."""
    lost, down = own.tolist()
    most = HOLD_FRAMES + FADE_FRAMES
    if not 0 <= lost <= most or lost % 1:
        return f"holds {lost:g} lost frames; a whole number from 0 to {most} is counted"
    expected = max(0, lost - HOLD_FRAMES) / FADE_FRAMES
    return None if down == expected else f"holds a fade of {down:g}; after {lost:g} lost frames it is {expected:g}"
