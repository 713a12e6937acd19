"""Choose an engine once; an explicit choice never falls back silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamcodec.checkpoint import Checkpoint
from streamcodec.engine import Engine
from streamcodec.engine.sound_check import check_sound
from streamcodec.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from streamcodec.engine.batch import StreamBatch

BACKENDS = ("auto", "cpu", "torch")
DEVICES = ("cpu", "cuda")


def create_engine(checkpoint: Checkpoint, backend: str = "auto", device: str = "cpu") -> Engine:
    """Make the engine that `backend` and `device` name; "auto" is the Numba engine, or torch on a GPU.

    Raises
    ------
    BackendError
        An unknown name, or an engine that cannot run this model or cannot run here.
    MissingExtraError
        torch is asked for and not installed.
    CheckpointError
        The weights make sound that is not finite.
    """
    engine = _made(checkpoint, backend, device)
    check_sound(engine, checkpoint.arrays)
    return engine


def _made(checkpoint: Checkpoint, backend: str, device: str) -> Engine:
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if device not in DEVICES:
        raise BackendError(f"device {device!r} is unknown; choose one of {', '.join(DEVICES)}")
    if backend == "auto":
        backend = "torch" if device == "cuda" else "cpu"
    if backend == "cpu":
        if device != "cpu":
            raise BackendError(f"backend 'cpu' does not run on device {device!r}; choose backend='torch'")
        from streamcodec.engine.cpu import CpuEngine

        return CpuEngine(checkpoint.config, checkpoint.arrays)
    try:
        from streamcodec.engine.torch import BlockTorchEngine, TorchEngine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "torch") from None
    make = TorchEngine if device == "cpu" else BlockTorchEngine
    return make(checkpoint.config, checkpoint.arrays, device)


def create_batch(
    checkpoint: Checkpoint, streams: int, bitrate_bps: float, mode: str, device: str, backend: str, precision: str
) -> StreamBatch:
    """Make a `StreamBatch`, which see.

    Raises
    ------
    BackendError
        It cannot run here.
    MissingExtraError
        torch is not installed.
    """
    try:
        from streamcodec.engine.batch import StreamBatch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "gpu") from None
    return StreamBatch(
        checkpoint.config,
        checkpoint.arrays,
        streams,
        bitrate_bps=bitrate_bps,
        mode=mode,
        device=device,
        backend=backend,
        precision=precision,
    )
