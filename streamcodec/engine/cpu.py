"""The CPU engine: a frame is one call into compiled code, on the caller's thread, with the GIL released."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamcodec.architecture import array_shapes
from streamcodec.config import CodecConfig
from streamcodec.engine import Float32, Int16
from streamcodec.engine.beam import checked_beam
from streamcodec.engine.program import Program, aligned, compile_decoder, compile_encoder
from streamcodec.errors import AudioError, BackendError, CheckpointError
from streamcodec_kernels.program._numba import beam_step, step
from streamcodec_kernels.program.layout import GROUP_STREAMS

_Number = TypeVar("_Number", bound=np.generic)

_FLOAT32, _INT16 = np.dtype(np.float32), np.dtype(np.int16)


class CpuEngine:
    """Runs any number of streams on the CPU; calls from several threads run side by side.

    Parameters
    ----------
    config : CodecConfig
        A causal model.
    weights : mapping of str to array of float32
        Names and shapes: `streamcodec.architecture.array_shapes`.
    half_weights : bool
        Round the large matrices to float16: half the memory traffic, a little noise.  Matrices whose values are
        float16 already are kept so without being asked; that changes nothing.

    Raises
    ------
    BackendError
        The model is not causal, so it cannot stream.
    CheckpointError
        An array is missing or of a wrong shape.
    """

    name = "cpu"

    def __init__(self, config: CodecConfig, weights: Mapping[str, Float32], half_weights: bool = False) -> None:
        if not config.causal:
            raise BackendError(f"{config.name} is not causal: it looks ahead and cannot stream; use a causal model")
        self.config = config
        self._hop_samples = config.hop_samples
        for key, shape in array_shapes(config).items():
            if key not in weights or weights[key].shape != shape:
                found = f"has shape {weights[key].shape}" if key in weights else "is missing"
                raise CheckpointError(f"array {key} {found}; {config.name} needs shape {shape}")
        given = {key: np.ascontiguousarray(weights[key], np.float32) for key in array_shapes(config)}
        self._given = {key: weights[key] for key in given}, half_weights
        self._encoder = compile_encoder(config, given, half_weights)
        self._decoder = compile_decoder(config, given, half_weights)
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are packed anew: programs hold addresses, and their layout is this processor's."""
        return type(self), (self.config, *self._given)

    @property
    def weight_bytes(self) -> int:
        """Packed weights, which all streams share."""
        return sum(program.weights.nbytes for program in (self._encoder, self._decoder)) + self.half_bytes

    @property
    def half_bytes(self) -> int:
        """Those weights of them that are float16."""
        return sum(program.half_weights.nbytes for program in (self._encoder, self._decoder))

    def encoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` encoders, [streams, values]."""
        return np.zeros((streams, self._encoder.state_values), np.float32)

    def decoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` decoders, [streams, values]."""
        return np.zeros((streams, self._decoder.state_values), np.float32)

    def encode_step(self, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
        """Encode one frame of every stream.

        frames: float32 [B, hop_samples].  state: [B, values], advanced.  codes: int16 [B, K], written.
        beam: 1 to MAX_BEAM chains of codes.
        """
        frames = _contiguous(frames)  # else Numba would compile anew, amid a stream
        self._check(frames, state, codes, self._encoder)
        if codes.shape[1] == 0:
            raise AudioError(f"codes is {codes.shape}; encode to at least one codebook")
        if beam == 1:
            self._step(True, frames, state, codes, self._encoder)
        else:
            self._beam_step(frames, state, codes, checked_beam(beam))

    def decode_step(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """Decode one frame of every stream.

        codes: int16 [B, K], K = 0 for a lost frame.  state: [B, values], advanced.  frames: [B, hop_samples], written.
        """
        codes = _contiguous(codes)
        self._check(frames, state, codes, self._decoder)
        if not self._step(False, frames, state, codes, self._decoder):
            raise AudioError(
                f"codes are from {codes.min()} to {codes.max()}; "
                f"this model has codes 0 to {self.config.codebook_size - 1}"
            )

    def _check(self, frames: Float32, state: Float32, codes: Int16, program: Program) -> None:
        """Refuse what would make compiled code read or write out of bounds."""
        streams, n_codebooks = len(frames), codes.shape[-1]
        for name, array, dtype, shape in (
            ("frames", frames, _FLOAT32, (streams, self._hop_samples)),
            ("state", state, _FLOAT32, (streams, program.state_values)),
            ("codes", codes, _INT16, (streams, n_codebooks)),
        ):
            if array.dtype != dtype or array.shape != shape or not array.flags.carray:
                raise AudioError(
                    f"{name} is {array.dtype} {array.shape}; give writable, contiguous {dtype} of shape {shape}"
                )
        if n_codebooks > self.config.n_codebooks:
            raise AudioError(f"codes is {codes.shape}; {self.config.name} has {self.config.n_codebooks} codebooks")

    def _step(self, is_encoder: bool, frames: Float32, state: Float32, codes: Int16, program: Program) -> bool:
        """Run all streams; false, and nothing done, if a code is not one of the model's."""
        scratch, scratch_address = self._scratch(program, len(frames))
        return bool(step(is_encoder, frames, state, codes, program.settings_address, scratch_address, scratch.size))

    def _beam_step(self, frames: Float32, state: Float32, codes: Int16, beam: int) -> None:
        """Encode all streams, as many at a time as leave their latents in scratch."""
        program = self._encoder
        for first in range(0, len(frames), GROUP_STREAMS):
            group = slice(first, first + GROUP_STREAMS)
            self._step(True, frames[group], state[group], codes[group, :0], program)
            scratch, scratch_address = self._scratch(program, 1)
            beam_step(codes[group], beam, program.settings_address, scratch_address, scratch.size)

    def _scratch(self, program: Program, streams: int) -> tuple[Float32, int]:
        """Working memory of the calling thread, and its address."""
        values = program.shared_scratch_values + min(streams, GROUP_STREAMS) * program.stream_scratch_values
        kept: tuple[Float32, int] | None = getattr(self._local, "scratch", None)
        if kept is None or kept[0].size < values:
            scratch = aligned(np.zeros(values, np.float32))
            kept = self._local.scratch = scratch, int(scratch.ctypes.data)
        return kept


def _contiguous(array: NDArray[_Number]) -> NDArray[_Number]:
    """The array itself where compiled code can read it, else a copy."""
    return array if array.flags.carray else np.require(array, requirements=["C", "A", "W"])


def warm_up(config: CodecConfig) -> None:
    """Compile ahead and keep the result where the next process finds it; one call serves every model."""
    weights = {key: np.ones(shape, np.float32) for key, shape in array_shapes(config).items()}
    engine = CpuEngine(config, weights)
    frames = np.zeros((1, config.hop_samples), np.float32)
    codes = np.zeros((1, 1), np.int16)
    for beam in (1, 2):
        engine.encode_step(frames, engine.encoder_state(), codes, beam)
    engine.decode_step(codes, engine.decoder_state(), frames)
