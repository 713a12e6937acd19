"""The frame counters of streams on CUDA."""

from __future__ import annotations

from torch import Tensor


def advance(frame: Tensor, active: Tensor) -> None:
    """Count one frame for every active stream: the last launch of a step, after all layers.

    Encoder and decoder of a stream are two streams: each has its counter.

    Parameters
    ----------
    frame : Tensor
        int32 [B].
    active : Tensor
        bool [B].
    """
    from streamcodec_kernels.ring import _triton

    _triton.advance(frame, active)
