"""What a batch asks of the device: four operations on all of its streams at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError, MissingExtraError

BACKENDS = ("auto", "torch", "triton")
PRECISIONS = ("ieee", "tf32x3", "tf32")


class StreamSteps(Protocol):
    """The network for B streams whose state stays in fixed places on one device.

    No call allocates what outlives it or looks at a value on the host, so a CUDA graph can hold any of them but
    `reset`.  A row that is not active keeps its state, bit for bit; what is written for it means nothing.

    Attributes
    ----------
    name : str
        Of the implementation.
    """

    name: str

    def encode(self, frames: Tensor, books: Tensor, active: Tensor, codes: Tensor) -> None:
        """Encode one frame of every active stream.

        frames: float32 [B, hop].  books: int32 [B], codebooks of each stream.  active: bool [B].
        codes: int16 [B, K], written; from books[b] on they mean nothing.
        """
        ...

    def decode(self, codes: Tensor, books: Tensor, active: Tensor, frames: Tensor) -> None:
        """Decode one frame of every active stream.

        codes: int16 [B, K], in range up to books[b].  books: int32 [B], 0 where the frame was lost.
        active: bool [B].  frames: float32 [B, hop], written.
        """
        ...

    def reset(self, slots: Tensor) -> None:
        """Zero the state of some streams.  slots: int64 [n]."""
        ...


def create_steps(
    config: CodecConfig,
    arrays: Arrays,
    streams: int,
    device: torch.device,
    backend: str = "auto",
    precision: str = "ieee",
) -> StreamSteps:
    """Choose once: "auto" is Triton on CUDA and plain torch elsewhere.

    Raises
    ------
    BackendError
        An unknown name, or an implementation that cannot run here.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown for a batch; choose one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if backend == "auto":
        backend = "triton" if device.type == "cuda" else "torch"
    if backend == "torch":
        if precision != "ieee":
            raise BackendError(f"backend 'torch' multiplies as 'ieee' alone; precision {precision!r} needs 'triton'")
        from streamcodec.engine.batch.torch_steps import TorchSteps

        return TorchSteps(config, arrays, streams, device)
    try:
        from triton.runtime.interpreter import InterpretedFunction

        from streamcodec_kernels.ring import _triton as ring_kernels
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "triton":
            raise
        raise MissingExtraError("triton", "gpu") from None
    if device.type == "cpu" and not isinstance(ring_kernels.advance_kernel, InterpretedFunction):
        raise BackendError("backend 'triton' does not run on device 'cpu'; choose backend='torch'")
    from streamcodec.engine.batch.triton_steps import TritonSteps

    return TritonSteps(config, arrays, streams, device, precision)
