"""Batched steps in plain torch, on any device: what every other implementation must agree with."""

from __future__ import annotations

import torch
from torch import Tensor

from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.nn.layers import Stack
from streamcodec.nn.model import CodecModel


class TorchSteps:
    """`StreamSteps` over the modules of `streamcodec.nn`.

    Parameters
    ----------
    config : CodecConfig
        A causal model.
    arrays : mapping of str to array
        Weights by the names of `streamcodec.architecture`.
    streams : int
        B.
    device : torch.device
        Where state and weights are.
    """

    name = "torch"

    def __init__(self, config: CodecConfig, arrays: Arrays, streams: int, device: torch.device) -> None:
        self.config = config
        model = CodecModel(config)
        model.load_arrays(arrays)
        self.model = model.eval().requires_grad_(False).to(device)
        self.encoder_state = self.model.encoder.init_state(streams)
        self.decoder_state = self.model.decoder.init_state(streams)
        self._order = torch.arange(config.n_codebooks, device=device)

    @torch.no_grad()
    def encode(self, frames: Tensor, books: Tensor, active: Tensor, codes: Tensor) -> None:
        """See `StreamSteps.encode`."""
        latent = _advance(self.model.encoder, frames.unsqueeze(-1), self.encoder_state, active)
        codes.copy_(self.model.quantizer.encode(latent, self.config.n_codebooks)[:, 0])

    @torch.no_grad()
    def decode(self, codes: Tensor, books: Tensor, active: Tensor, frames: Tensor) -> None:
        """See `StreamSteps.decode`."""
        used = self._order < books[:, None]
        index = codes.masked_fill(~used, 0).long()
        latent = frames.new_zeros(frames.shape[0], self.config.latent_dim)
        for k, book in enumerate(self.model.quantizer.books):
            part: Tensor = book.decode(index[:, k])  # type: ignore[operator]
            latent = latent + part * used[:, k, None]
        frames.copy_(_advance(self.model.decoder, latent.unsqueeze(1), self.decoder_state, active)[..., 0])

    def reset(self, slots: Tensor) -> None:
        """See `StreamSteps.reset`."""
        self.encoder_state.index_fill_(0, slots, 0.0)
        self.decoder_state.index_fill_(0, slots, 0.0)


def _advance(stack: Stack, x: Tensor, state: Tensor, active: Tensor) -> Tensor:
    """Step all rows, and put the state of those that are not active back."""
    before = state.clone()
    y = stack.step(x, state)
    state.copy_(torch.where(active[:, None], state, before))
    return y
