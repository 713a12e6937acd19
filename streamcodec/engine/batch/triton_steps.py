"""Batched steps in Triton: one kernel a layer, history in rings, activations in two buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from streamcodec import architecture as arch
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError
from streamcodec_kernels.code_lookup import cuda as code_lookup
from streamcodec_kernels.conv import cuda as conv
from streamcodec_kernels.conv_transpose import cuda as conv_transpose
from streamcodec_kernels.nearest_code import cuda as nearest_code
from streamcodec_kernels.residual_unit import cuda as residual_unit
from streamcodec_kernels.ring import cuda as ring
from streamcodec_kernels.waveform_conv import cuda as waveform_conv

Run = Callable[[Tensor, Tensor, Tensor], None]
"""One layer: reads x [B, T, C], which of the streams are active [B], writes its output."""


class _Stack:
    """A chain of layers for steps of a fixed number of rows.

    Parameters
    ----------
    prefix : str
        "encoder" or "decoder": the names of its arrays begin so.
    layers : tuple of Layer
        What to run.
    rows : int
        Input rows of one step.
    tensors : mapping of str to Tensor
        Weights on the device, float32.
    streams : int
        B.
    precision : str
        Of matrix products.
    """

    def __init__(
        self,
        prefix: str,
        layers: tuple[arch.Layer, ...],
        rows: int,
        tensors: dict[str, Tensor],
        streams: int,
        precision: str,
    ) -> None:
        self.device = next(iter(tensors.values())).device
        self.streams, self.precision = streams, precision
        self.frame = torch.zeros(streams, dtype=torch.int32, device=self.device)
        self.states: list[Tensor] = []
        self.runs: list[tuple[Run, tuple[int, int]]] = []
        alpha: Tensor | None = None
        rest = list(enumerate(layers))
        while rest:
            i, layer = rest.pop(0)
            own = {key: tensors[key] for key in tensors if key.startswith(f"{prefix}.{i}.")}
            named = {key.removeprefix(f"{prefix}.{i}."): tensor for key, tensor in own.items()}
            match layer:
                case arch.Snake():
                    alpha = named["alpha"]
                    continue
                case arch.Residual():
                    self._add(self._residual(layer, rows, named), (rows, layer.body[0].channels))
                case arch.Conv():
                    bounded = bool(rest) and isinstance(rest[0][1], arch.Tanh)
                    if bounded:
                        rest.pop(0)
                    run = self._conv(layer, rows, alpha, named, bounded)
                    rows //= layer.stride
                    self._add(run, (rows, layer.out_channels))
                case arch.ConvTranspose():
                    run = self._conv_transpose(layer, alpha, named)
                    rows *= layer.stride
                    self._add(run, (rows, layer.out_channels))
                case _:
                    raise BackendError(f"{prefix} layer {i}, {layer}, has no kernel; choose backend='torch'")
            alpha = None
        size = streams * max(out_rows * channels for _, (out_rows, channels) in self.runs)
        halves = torch.zeros(2, size, device=self.device)
        self.outputs = [
            halves[i % 2, : streams * out_rows * channels].view(streams, out_rows, channels)
            for i, (_, (out_rows, channels)) in enumerate(self.runs)
        ]

    def step(self, x: Tensor, active: Tensor) -> Tensor:
        """Run one step on [B, T, C]; what is returned is overwritten by the next step."""
        for (run, _), out in zip(self.runs, self.outputs, strict=True):
            run(x, active, out)
            x = out
        ring.advance(self.frame, active)
        return x

    def reset(self, slot: int) -> None:
        """Zero the rows of one stream."""
        self.frame[slot].zero_()
        for state in self.states:
            state[slot].zero_()

    def _add(self, run: Run, out: tuple[int, int]) -> None:
        self.runs.append((run, out))

    def _state(self, shape: tuple[int, int]) -> Tensor:
        state = torch.zeros(self.streams, *shape, device=self.device)
        self.states.append(state)
        return state

    def _residual(self, layer: arch.Residual, rows: int, named: dict[str, Tensor]) -> Run:
        dilated = layer.body[1]
        if not dilated.depthwise:
            raise BackendError("residual units of dense convolutions have no kernel; choose backend='torch'")
        state = self._state(residual_unit.state_shape(dilated.in_channels, dilated.kernel, dilated.dilation, rows))
        constants = named["0.alpha"], named["1.weight"], named["1.bias"], dilated.dilation, named["2.alpha"]
        mix = named["3.weight"][0].contiguous(), named["3.bias"]
        return lambda x, active, out: residual_unit.residual_unit(
            x, *constants, *mix, state, self.frame, active, out, self.precision
        )

    def _conv(self, layer: arch.Conv, rows: int, alpha: Tensor | None, named: dict[str, Tensor], bounded: bool) -> Run:
        weight, bias = named["weight"], named["bias"]
        if bounded:
            if alpha is None or layer.out_channels != 1 or layer.stride != 1:
                raise BackendError(f"{layer} before a tanh has no kernel; choose backend='torch'")
            state, before = self._state(waveform_conv.state_shape(layer.in_channels, layer.kernel, rows)), alpha
            return lambda x, active, out: waveform_conv.waveform_conv(
                x, before, weight, bias, state, self.frame, active, out
            )
        if layer.depthwise or layer.dilation != 1 or layer.kernel < layer.stride:
            raise BackendError(f"{layer} has no kernel of its own; choose backend='torch'")
        state = self._state(conv.state_shape(layer.in_channels, layer.kernel, layer.stride, rows))
        return lambda x, active, out: conv.conv(
            x, alpha, weight, bias, layer.stride, state, self.frame, active, out, self.precision
        )

    def _conv_transpose(self, layer: arch.ConvTranspose, alpha: Tensor | None, named: dict[str, Tensor]) -> Run:
        weight, bias = conv_transpose.arrange(named["weight"], named["bias"], layer.stride)
        state = self._state(conv_transpose.state_shape(layer.in_channels))
        return lambda x, active, out: conv_transpose.conv_transpose(
            x, alpha, weight, bias, state, self.frame, active, out, self.precision
        )


class TritonSteps:
    """`StreamSteps` over the step kernels of `streamcodec_kernels`.

    Parameters
    ----------
    config : CodecConfig
        A causal model of depthwise residual units.
    arrays : mapping of str to array
        Weights by the names of `streamcodec.architecture`.
    streams : int
        B.
    device : torch.device
        Where state and weights are.
    precision : str
        Of matrix products: "ieee", "tf32x3" or "tf32".

    Raises
    ------
    BackendError
        A layer of this model has no kernel.
    """

    name = "triton"

    def __init__(
        self, config: CodecConfig, arrays: Arrays, streams: int, device: torch.device, precision: str = "ieee"
    ) -> None:
        tensors = {
            name: torch.tensor(arrays[name], dtype=torch.float32, device=device).contiguous()
            for name in arch.array_shapes(config)
        }
        books = range(config.n_codebooks)
        stacked = {
            key: torch.stack([tensors[f"quantizer.{k}.{key}"] for k in books]).contiguous()
            for key in ("in_weight", "in_bias", "codebook", "out_weight", "out_bias")
        }
        self._parts = code_lookup.project(stacked["codebook"], stacked["out_weight"], stacked["out_bias"])
        self._query = stacked["in_weight"], stacked["in_bias"], stacked["codebook"]
        self._encoder = _Stack("encoder", arch.encoder_layers(config), config.hop_samples, tensors, streams, precision)
        self._decoder = _Stack("decoder", arch.decoder_layers(config), 1, tensors, streams, precision)
        self._latent = torch.zeros(streams, config.latent_dim, device=device)

    def encode(self, frames: Tensor, books: Tensor, active: Tensor, codes: Tensor) -> None:
        """See `StreamSteps.encode`."""
        latent = self._encoder.step(frames.unsqueeze(-1), active).squeeze(1)
        nearest_code.nearest_code(latent, *self._query, self._parts, books, active, codes)

    def decode(self, codes: Tensor, books: Tensor, active: Tensor, frames: Tensor) -> None:
        """See `StreamSteps.decode`."""
        code_lookup.code_lookup(codes, books, self._parts, active, self._latent)
        frames.copy_(self._decoder.step(self._latent.unsqueeze(1), active).squeeze(-1))

    def reset(self, slot: int) -> None:
        """See `StreamSteps.reset`."""
        self._encoder.reset(slot)
        self._decoder.reset(slot)
