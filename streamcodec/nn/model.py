"""Encoder, quantiser and decoder as one torch module, and its exchange with checkpoint arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from streamcodec import architecture as arch
from streamcodec.config import CodecConfig
from streamcodec.errors import CheckpointError
from streamcodec.nn.layers import Conv, ConvTranspose, Residual, Snake, Stack
from streamcodec.nn.quantizer import FactorizedCodebook, Quantized, ResidualVQ


class CodecModel(nn.Module):
    """The whole network on waveforms [B, T], T a multiple of the hop.

    Parameters
    ----------
    config : CodecConfig
        What to build.
    weight_norm : bool
        Keep weights as direction and length (for training) or plain (for running).
    """

    def __init__(self, config: CodecConfig, weight_norm: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stack(arch.encoder_layers(config), config.causal, weight_norm)
        self.quantizer = ResidualVQ(config)
        self.decoder = Stack(arch.decoder_layers(config), config.causal, weight_norm)

    def encode_latent(self, waveform: Tensor) -> Tensor:
        """Latent [B, F, latent] of a waveform [B, T]."""
        latent: Tensor = self.encoder(waveform.unsqueeze(-1))
        return latent

    def decode_latent(self, latent: Tensor) -> Tensor:
        """Waveform [B, T] of a latent [B, F, latent]."""
        waveform: Tensor = self.decoder(latent)
        return waveform.squeeze(-1)

    def forward(self, waveform: Tensor, used: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """Code and decode a clip; `used` [B] as in ResidualVQ."""
        quantized = self.quantizer(self.encode_latent(waveform), used)
        return self.decode_latent(quantized.latent), quantized

    @torch.no_grad()
    def export_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Plain weights by the names of `streamcodec.architecture`, weight norm folded, codes of unit length."""
        tensors: dict[str, Tensor] = {}
        for name, module in self._named_leaves():
            if isinstance(module, Snake):
                tensors[f"{name}.alpha"] = module.log_alpha.double().exp()
            elif isinstance(module, Conv | ConvTranspose):
                tensors[f"{name}.weight"] = module.weight()
                tensors[f"{name}.bias"] = module.bias
        for k, book in enumerate(self._books()):
            tensors[f"quantizer.{k}.in_weight"] = book.in_proj.weight.t()
            tensors[f"quantizer.{k}.in_bias"] = book.in_proj.bias
            tensors[f"quantizer.{k}.codebook"] = F.normalize(book.codebook.double(), dim=-1)
            tensors[f"quantizer.{k}.out_weight"] = book.out_proj.weight.t()
            tensors[f"quantizer.{k}.out_bias"] = book.out_proj.bias
        return {name: tensor.float().contiguous().cpu().numpy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_arrays(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take plain weights; with weight norm, lengths follow from them.

        Raises
        ------
        CheckpointError
            An array is missing or has another shape.
        """
        for name, shape in arch.array_shapes(self.config).items():
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "missing"
                raise CheckpointError(f"array {name} is {found}; this model needs {shape}")
        take = {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}
        for name, module in self._named_leaves():
            if isinstance(module, Snake):
                module.log_alpha.copy_(take[f"{name}.alpha"].double().log())
            elif isinstance(module, Conv | ConvTranspose):
                module.weight.load(take[f"{name}.weight"])
                module.bias.copy_(take[f"{name}.bias"])
        for k, book in enumerate(self._books()):
            book.in_proj.weight.copy_(take[f"quantizer.{k}.in_weight"].t())
            book.in_proj.bias.copy_(take[f"quantizer.{k}.in_bias"])
            book.codebook.copy_(take[f"quantizer.{k}.codebook"])
            book.out_proj.weight.copy_(take[f"quantizer.{k}.out_weight"].t())
            book.out_proj.bias.copy_(take[f"quantizer.{k}.out_bias"])

    def _books(self) -> Iterator[FactorizedCodebook]:
        for book in self.quantizer.books:
            assert isinstance(book, FactorizedCodebook)
            yield book

    def _named_leaves(self) -> Iterator[tuple[str, nn.Module]]:
        for prefix, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, module in enumerate(stack):
                if isinstance(module, Residual):
                    inner = (module.snake_in, module.dilated, module.snake_out, module.mix)
                    yield from ((f"{prefix}.{i}.{j}", leaf) for j, leaf in enumerate(inner))
                else:
                    yield f"{prefix}.{i}", module
