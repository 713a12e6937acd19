"""Many frames of the same streams at once, for clips and files: state stays where the engine computes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from streamcodec.engine import Engine, Float32, Int16

BLOCK_FRAMES = 75
"""Frames in one call of a `ClipEngine`."""


@runtime_checkable
class ClipEngine(Protocol):
    """An engine that takes many frames in one call; codes may differ from single steps at near-ties."""

    def encode_frames(self, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
        """Encode F frames of every stream: [F, B, hop] to codes [F, B, K]; beam as in `Engine.encode_step`."""
        ...

    def decode_frames(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """Decode F frames of every stream: codes [F, B, K] to [F, B, hop]."""
        ...


def encode_frames(engine: Engine, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
    """Encode F frames of every stream, in blocks where the engine takes them.

    frames: [F, B, hop].  state: [B, values], advanced.  codes: [F, B, K], written.  beam: see `Engine.encode_step`.
    """
    if isinstance(engine, ClipEngine):
        for start in range(0, len(frames), BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            engine.encode_frames(frames[block], state, codes[block], beam)
        return
    for frame, row in zip(frames, codes, strict=True):
        engine.encode_step(frame, state, row, beam)


def decode_frames(engine: Engine, codes: Int16, state: Float32, frames: Float32) -> None:
    """Decode F frames of every stream, in blocks where the engine takes them.

    codes: [F, B, K], K = 0 for lost frames.  state: [B, values], advanced.  frames: [F, B, hop], written.
    """
    if isinstance(engine, ClipEngine):
        for start in range(0, len(codes), BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            engine.decode_frames(codes[block], state, frames[block])
        return
    for row, frame in zip(codes, frames, strict=True):
        engine.decode_step(row, state, frame)
