"""Runs the torch modules of `streamcodec.nn` frame by frame: the reference that other engines are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import streamcodec.engine.forked  # noqa: F401
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.engine import Float32, Int16
from streamcodec.engine.beam import checked_beam
from streamcodec.errors import BackendError
from streamcodec.nn.model import CodecModel


class TorchEngine:
    """An `Engine` in eager torch.

    Parameters
    ----------
    config : CodecConfig
        A causal shape.
    arrays : mapping of str to array
        Weights by the names of `streamcodec.architecture`.
    device : str
        Where to compute; state travels with every call.

    Raises
    ------
    BackendError
        The model is not causal, or the device is not there.
    """

    name = "torch"

    def __init__(self, config: CodecConfig, arrays: Arrays, device: str = "cpu") -> None:
        if not config.causal:
            raise BackendError(f"{config.name} looks ahead, so it cannot stream; choose a causal model")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError(f"device {device}: torch finds no GPU; choose device='cpu'")
        self.config = config
        self.device = torch.device(device)
        self._arrays = arrays
        model = CodecModel(config)
        model.load_arrays(arrays)
        self.model = model.eval().requires_grad_(False).to(self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew from the arrays; a pickle then needs the same kind of device."""
        return type(self), (self.config, self._arrays, str(self.device))

    def encoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` encoders, [streams, values]."""
        state: Float32 = torch.zeros(streams, self.model.encoder.state_values).numpy()
        return state

    def decoder_state(self, streams: int = 1) -> Float32:
        """Zeroed state of `streams` decoders, [streams, values]."""
        state: Float32 = torch.zeros(streams, self.model.decoder.state_values).numpy()
        return state

    @torch.no_grad()
    def encode_step(self, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
        """Encode one frame of every stream; see `Engine.encode_step`."""
        self._encode(frames[None], state, codes[None], beam)

    @torch.no_grad()
    def decode_step(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """Decode one frame of every stream; see `Engine.decode_step`."""
        self._decode(codes[None], state, frames[None])

    def _encode(self, frames: Float32, state: Float32, codes: Int16, beam: int) -> None:
        """One step of F frames: [F, B, hop] to codes [F, B, K]."""
        advanced = self._tensor(state)
        by_stream = frames.transpose(1, 0, 2).reshape(frames.shape[1], -1, 1).copy()  # read-only is no tensor
        latent = self.model.encoder.step(torch.from_numpy(by_stream).to(self.device), advanced)
        found = self.model.quantizer.encode(latent, codes.shape[2], checked_beam(beam))
        codes[:] = found.transpose(0, 1).cpu().numpy()
        self._write_back(advanced, state)

    def _decode(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """One step of F frames: codes [F, B, K] to [F, B, hop]."""
        advanced = self._tensor(state)
        index = torch.from_numpy(codes.transpose(1, 0, 2).astype(np.int64)).to(self.device)
        latent = self.model.quantizer.decode(index, self.config.latent_dim)
        waveform = self.model.decoder.step(latent, advanced).view(codes.shape[1], len(codes), -1)
        frames[:] = waveform.transpose(0, 1).cpu().numpy()
        self._write_back(advanced, state)

    def _tensor(self, array: Float32) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _write_back(self, advanced: Tensor, state: Float32) -> None:
        if self.device.type != "cpu":
            state[:] = advanced.cpu().numpy()


class BlockTorchEngine(TorchEngine):
    """A `TorchEngine` that takes clips in blocks, as it should on a GPU: one step, one trip of the state a block.

    Sums of a block round otherwise than those of single frames, so near-ties of codes may fall otherwise.
    """

    @torch.no_grad()
    def encode_frames(self, frames: Float32, state: Float32, codes: Int16, beam: int = 1) -> None:
        """Encode F frames of every stream; see `clips.ClipEngine`."""
        self._encode(frames, state, codes, beam)

    @torch.no_grad()
    def decode_frames(self, codes: Int16, state: Float32, frames: Float32) -> None:
        """Decode F frames of every stream; see `clips.ClipEngine`."""
        self._decode(codes, state, frames)
