"""Batched steps in Triton: one kernel a layer, history in rings, activations in two buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
"""One launch: reads x [B, T, C] and which of the streams are active [B], writes its output."""


@dataclass(frozen=True)
class LayerStep:
    """One launch for one step of the layers that it stands for.

    Parameters
    ----------
    kernel : str
        Operation of `streamcodec_kernels` that runs.
    name : str
        The first of its layers, such as "encoder.3".
    layers : tuple of Layer
        What it computes, in order.
    rows, out_rows, out_channels : int
        Input rows of one step, and the shape of one stream's output.
    run : callable
        Launches it.
    """

    kernel: str
    name: str
    layers: tuple[arch.Layer, ...]
    rows: int
    out_rows: int
    out_channels: int
    run: Run


class Chain:
    """Layers in a row, for steps of a fixed number of rows of B streams.

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

    Attributes
    ----------
    frame : Tensor
        int32 [B], frames that each stream has finished.
    states : list of Tensor
        [B, ...] each.
    steps : list of LayerStep
        The launches of a step, in order.

    Raises
    ------
    BackendError
        A layer has no kernel.
    """

    def __init__(
        self,
        prefix: str,
        layers: tuple[arch.Layer, ...],
        rows: int,
        tensors: Mapping[str, Tensor],
        streams: int,
        precision: str,
    ) -> None:
        self.device = next(iter(tensors.values())).device
        self.streams, self.precision = streams, precision
        self.frame = torch.zeros(streams, dtype=torch.int32, device=self.device)
        self.states: list[Tensor] = []
        self.steps: list[LayerStep] = []
        waiting: list[tuple[int, arch.Layer]] = []
        for i, layer in enumerate(layers):
            waiting.append((i, layer))
            bounds = i + 1 < len(layers) and isinstance(layers[i + 1], arch.Tanh)
            if not isinstance(layer, arch.Snake) and not bounds:
                self.steps.append(self._step(prefix, waiting, rows, tensors))
                rows, waiting = self.steps[-1].out_rows, []
        if waiting:
            raise BackendError(f"{prefix}.{waiting[0][0]}, {waiting[0][1]}, has no kernel; choose backend='torch'")
        largest = max(step.out_rows * step.out_channels for step in self.steps)
        halves = torch.zeros(2, streams * largest, device=self.device)
        self.outputs = [
            halves[i % 2, : streams * step.out_rows * step.out_channels].view(streams, step.out_rows, step.out_channels)
            for i, step in enumerate(self.steps)
        ]

    def run(self, x: Tensor, active: Tensor, last: Tensor | None = None) -> Tensor:
        """Run one step on [B, T, C] and write into `last`; when None, into what the next step overwrites."""
        outputs = self.outputs if last is None else [*self.outputs[:-1], last]
        for step, out in zip(self.steps, outputs, strict=True):
            step.run(x, active, out)
            x = out
        ring.advance(self.frame, active)
        return x

    def reset(self, slots: Tensor) -> None:
        """Zero the rows of some streams."""
        for state in (self.frame, *self.states):
            state.index_fill_(0, slots, 0)

    def _step(
        self, prefix: str, numbered: list[tuple[int, arch.Layer]], rows: int, tensors: Mapping[str, Tensor]
    ) -> LayerStep:
        """One launch for a residual unit, or for a convolution with its Snake before and its Tanh after."""
        name, layers = f"{prefix}.{numbered[0][0]}", tuple(layer for _, layer in numbered)
        alpha: Tensor | None = None
        if isinstance(layers[0], arch.Snake):
            alpha = tensors[f"{name}.alpha"]
            numbered = numbered[1:]
        i, middle = numbered[0]
        after = [layer for _, layer in numbered[1:]]
        own = f"{prefix}.{i}."
        given = {key.removeprefix(own): tensor for key, tensor in tensors.items() if key.startswith(own)}
        match middle, after, alpha:
            case arch.Residual(body=(_, arch.Conv(depthwise=True), _, _)), [], None:
                kernel, out = "residual_unit", (rows, middle.body[0].channels)
                run = self._residual(middle, rows, given)
            case arch.Conv(depthwise=False, dilation=1, out_channels=1, stride=1), [arch.Tanh()], Tensor():
                kernel, out = "waveform_conv", (rows, 1)
                run = self._waveform_conv(middle, rows, alpha, given)
            case arch.Conv(depthwise=False, dilation=1), [], _ if middle.kernel >= middle.stride:
                kernel, out = "conv", (rows // middle.stride, middle.out_channels)
                run = self._conv(middle, rows, alpha, given)
            case arch.ConvTranspose(), [] | [arch.Tanh()], _ if middle.kernel <= 2 * middle.stride:
                kernel, out = "conv_transpose", (rows * middle.stride, middle.out_channels)
                run = self._conv_transpose(middle, alpha, given, with_tanh=bool(after))
            case _:
                raise BackendError(f"{name}, {middle}, has no kernel; choose backend='torch'")
        return LayerStep(kernel, name, layers, rows, *out, run)

    def _state(self, shape: tuple[int, int]) -> Tensor:
        state = torch.zeros(self.streams, *shape, device=self.device)
        self.states.append(state)
        return state

    def _residual(self, layer: arch.Residual, rows: int, given: Mapping[str, Tensor]) -> Run:
        dilated = layer.body[1]
        state = self._state(residual_unit.state_shape(dilated.in_channels, dilated.kernel, dilated.dilation, rows))
        depthwise = given["0.alpha"], given["1.weight"], given["1.bias"], dilated.dilation
        mix = given["2.alpha"], given["3.weight"][0], given["3.bias"]
        return lambda x, active, out: residual_unit.residual_unit(
            x, *depthwise, *mix, state, self.frame, active, out, self.precision
        )

    def _waveform_conv(self, layer: arch.Conv, rows: int, alpha: Tensor, given: Mapping[str, Tensor]) -> Run:
        constants = alpha, given["weight"], given["bias"]
        state = self._state(waveform_conv.state_shape(layer.in_channels, layer.kernel, rows))
        return lambda x, active, out: waveform_conv.waveform_conv(x, *constants, state, self.frame, active, out)

    def _conv(self, layer: arch.Conv, rows: int, alpha: Tensor | None, given: Mapping[str, Tensor]) -> Run:
        constants = alpha, given["weight"], given["bias"], layer.stride
        state = self._state(conv.state_shape(layer.in_channels, layer.kernel, layer.stride, rows))
        return lambda x, active, out: conv.conv(x, *constants, state, self.frame, active, out, self.precision)

    def _conv_transpose(
        self, layer: arch.ConvTranspose, alpha: Tensor | None, given: Mapping[str, Tensor], with_tanh: bool
    ) -> Run:
        constants = alpha, *conv_transpose.arrange(given["weight"], given["bias"], layer.stride)
        state = self._state(conv_transpose.state_shape(layer.in_channels))
        precision = "ieee" if layer.out_channels == 1 else self.precision  # the waveform's products are float32
        return lambda x, active, out: conv_transpose.conv_transpose(
            x, *constants, state, self.frame, active, out, precision, with_tanh
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
        self.parts = code_lookup.project(stacked["codebook"], stacked["out_weight"], stacked["out_bias"])
        self.query = nearest_code.arrange(stacked["in_weight"], stacked["in_bias"], stacked["codebook"])
        self.encoder = Chain("encoder", arch.encoder_layers(config), config.hop_samples, tensors, streams, precision)
        self.decoder = Chain("decoder", arch.decoder_layers(config), 1, tensors, streams, precision)
        self._latent = torch.zeros(streams, config.latent_dim, device=device)

    def encode(self, frames: Tensor, books: Tensor, active: Tensor, codes: Tensor) -> None:
        """See `StreamSteps.encode`."""
        latent = self.encoder.run(frames.unsqueeze(-1), active).squeeze(1)
        nearest_code.nearest_code(latent, *self.query, self.parts, books, active, codes)

    def decode(self, codes: Tensor, books: Tensor, active: Tensor, frames: Tensor) -> None:
        """See `StreamSteps.decode`."""
        code_lookup.code_lookup(codes, books, self.parts, active, self._latent)
        self.decoder.run(self._latent.unsqueeze(1), active, frames.unsqueeze(-1))

    def reset(self, slots: Tensor) -> None:
        """See `StreamSteps.reset`."""
        self.encoder.reset(slots)
        self.decoder.reset(slots)
