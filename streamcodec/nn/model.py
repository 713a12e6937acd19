"""Encoder, quantiser and decoder as one torch module, and its exchange with checkpoint arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamcodec import architecture as arch
from streamcodec.config import CodecConfig
from streamcodec.errors import CheckpointError
from streamcodec.nn.clean_start import start_clean
from streamcodec.nn.ema_quantizer import EmaCodebook
from streamcodec.nn.layers import Conv, ConvTranspose, Residual, Snake, Stack
from streamcodec.nn.passthrough import pass_through
from streamcodec.nn.quantizer import FactorizedCodebook, Quantized, ResidualVQ


class CodecModel(nn.Module):
    """The whole network on waveforms [B, T], T a multiple of the hop.

    Parameters
    ----------
    config : CodecConfig
        What to build.
    trainable : bool
        Codes are normalised on use; weights are kept as direction and length, or as the clean start wants them.  Else
        everything is plain, for running.
    quantizer : str
        "factorized" or, for training only, "ema".
    """

    def __init__(self, config: CodecConfig, trainable: bool = False, quantizer: str = "factorized") -> None:
        super().__init__()
        self.config = config
        widths = zip(config.encoder_widths, config.decoder_widths[::-1], strict=True)
        passes = trainable and config.causal and all(there >= here for here, there in widths)
        clean = passes and config.edge == "strided"
        weight_norm = trainable and not clean
        self.encoder = Stack(arch.encoder_layers(config), config.causal, weight_norm)
        self.quantizer = ResidualVQ(
            [
                EmaCodebook(config) if quantizer == "ema" else FactorizedCodebook(config, trainable)
                for _ in range(config.n_codebooks)
            ]
        )
        self.decoder = Stack(arch.decoder_layers(config), config.causal, weight_norm)
        if passes:
            (start_clean if clean else pass_through)(self.encoder, self.quantizer, self.decoder)

    def encode_latent(self, waveform: Tensor) -> Tensor:
        """Latent [B, F, latent] of a waveform [B, T]."""
        latent: Tensor = self.encoder(waveform.unsqueeze(-1))
        return latent

    def decode_latent(self, latent: Tensor) -> Tensor:
        """Waveform [B, T] of a latent [B, F, latent]."""
        waveform: Tensor = self.decoder(latent)
        return waveform.squeeze(-1)

    def forward(
        self,
        waveform: Tensor,
        used: Tensor | None = None,
        heard: Tensor | None = None,
        *,
        channel: Callable[[Tensor], Tensor] | None = None,
        learn_encoder: bool = True,
    ) -> tuple[Tensor, Tensor, Quantized | None]:
        """Code and decode a clip.

        Parameters
        ----------
        waveform : Tensor
            [B, T].
        used : Tensor, optional
            Codebooks that each clip uses, [B].
        heard : Tensor, optional
            1 for a frame that reaches the decoder, 0 for one that is lost, [B, F].
        channel : callable, optional
            Takes the quantiser's place: maps latents to what the decoder gets.
        learn_encoder : bool
            Whether encoder and quantiser get a gradient.

        Returns
        -------
        tuple
            Waveform [B, T], the encoder's latent [B, F, latent], and what the quantiser returned or None.
        """
        latent = self.encode_latent(waveform)
        if not learn_encoder:
            latent = latent.detach()
        quantized = None
        if channel is not None:
            passed = channel(latent)
        else:
            quantized = self.quantizer(latent, used)
            passed = quantized.latent if learn_encoder else quantized.latent.detach()
        if heard is not None:
            passed = passed * heard.unsqueeze(-1).to(passed.dtype)
        return self.decode_latent(passed), latent, quantized

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
        for k, book in enumerate(self.quantizer.books):
            tensors |= {f"quantizer.{k}.{key}": tensor for key, tensor in book.export().items()}  # type: ignore[operator]
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
        for k, book in enumerate(self.quantizer.books):
            start = f"quantizer.{k}."
            book.load({name.removeprefix(start): array for name, array in take.items() if name.startswith(start)})  # type: ignore[operator]

    def _named_leaves(self) -> Iterator[tuple[str, nn.Module]]:
        for prefix, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, module in enumerate(stack):
                if isinstance(module, Residual):
                    inner = (module.snake_in, module.dilated, module.snake_out, module.mix)
                    yield from ((f"{prefix}.{i}.{j}", leaf) for j, leaf in enumerate(inner))
                else:
                    yield f"{prefix}.{i}", module
