"""Layers of a stream step on drawn arrays, each beside its reference; shared by the tests of the step's kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamcodec_kernels.conv import cuda as conv_step
from streamcodec_kernels.conv.reference import conv as conv_reference
from streamcodec_kernels.conv_transpose import cuda as conv_transpose_step
from streamcodec_kernels.conv_transpose.reference import conv_transpose as conv_transpose_reference
from streamcodec_kernels.residual_unit import cuda as residual_step
from streamcodec_kernels.residual_unit.reference import residual_unit as residual_reference
from streamcodec_kernels.snake.reference import snake
from streamcodec_kernels.waveform_conv import cuda as waveform_step
from streamcodec_kernels.waveform_conv.reference import waveform_conv as waveform_reference

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StreamLayer:
    """One layer: shapes of a stream, how to step all streams, and the reference of one of them.

    `step(x, state, frame, active, out)`; `reference(x, state)` gives output and new state.  `history` rows of the
    state matter between two frames, `kept` rows a frame are new among them.
    """

    in_shape: tuple[int, int]
    out_shape: tuple[int, int]
    state_shape: tuple[int, int]
    history: int
    step: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
    reference: Callable[[Array, Array], tuple[Array, Array]]

    @property
    def kept(self) -> int:
        return self.state_shape[0] - self.history


class Drawn:
    """Random weights: as tensors for the step, and as the reference sees what is left of them in their type."""

    def __init__(self, seed: int, dtype: torch.dtype, device: str) -> None:
        self.source = torch.Generator().manual_seed(seed)
        self.dtype, self.device = dtype, device

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=self.source)).to(self.device, self.dtype)

    def alpha(self, channels: int) -> Tensor:
        return (torch.rand(channels, generator=self.source) * 2 + 0.1).to(self.device)


def plain(tensor: Tensor) -> Array:
    return np.asarray(tensor.float().cpu().numpy())


def residual(
    rows: int, channels: int, kernel: int, dilation: int, dtype: torch.dtype, device: str = "cpu"
) -> StreamLayer:
    draw = Drawn(rows + channels + dilation, dtype, device)
    alpha1, alpha2 = draw.alpha(channels), draw.alpha(channels)
    taps, taps_bias = draw.normal(kernel, channels, scale=0.4), draw.normal(channels, scale=0.1)
    mix, mix_bias = draw.normal(channels, channels, scale=channels**-0.5), draw.normal(channels, scale=0.1)
    arrays = alpha1, taps, taps_bias, dilation, alpha2, mix, mix_bias
    known = [plain(array) if isinstance(array, Tensor) else array for array in arrays]
    return StreamLayer(
        (rows, channels),
        (rows, channels),
        residual_step.state_shape(channels, kernel, dilation, rows),
        (kernel - 1) * dilation,
        lambda x, state, frame, active, out: residual_step.residual_unit(x, *arrays, state, frame, active, out),
        lambda x, state: residual_reference(x, *known, state),
    )


def conv(
    rows: int, inputs: int, outputs: int, kernel: int, stride: int, activated: bool, dtype: torch.dtype,
    device: str = "cpu",
) -> StreamLayer:  # fmt: skip
    draw = Drawn(rows + inputs + outputs + kernel, dtype, device)
    alpha = draw.alpha(inputs) if activated else None
    weight, bias = draw.normal(kernel, inputs, outputs, scale=(kernel * inputs) ** -0.5), draw.normal(outputs)

    def reference(x: Array, state: Array) -> tuple[Array, Array]:
        seen = x if alpha is None else snake(x, plain(alpha))
        return conv_reference(seen, plain(weight), plain(bias), stride, 1, state)

    return StreamLayer(
        (rows, inputs),
        (rows // stride, outputs),
        conv_step.state_shape(inputs, kernel, stride, rows),
        kernel - stride,
        lambda x, state, frame, active, out: conv_step.conv(
            x, alpha, weight, bias, stride, state, frame, active, out
        ),
        reference,
    )  # fmt: skip


def conv_transpose(
    rows: int, inputs: int, outputs: int, kernel: int, stride: int, activated: bool, dtype: torch.dtype,
    device: str = "cpu", with_tanh: bool = False,
) -> StreamLayer:  # fmt: skip
    draw = Drawn(rows + inputs + outputs + kernel, dtype, device)
    alpha = draw.alpha(inputs) if activated else None
    weight, bias = draw.normal(inputs, kernel, outputs, scale=(2 * inputs) ** -0.5), draw.normal(outputs)
    arranged = conv_transpose_step.arrange(weight, bias, stride)

    def reference(x: Array, state: Array) -> tuple[Array, Array]:
        seen = x if alpha is None else snake(x, plain(alpha))
        reaching = state if kernel > stride else state[:0]
        out, after = conv_transpose_reference(seen, plain(weight), plain(bias), stride, reaching)
        return np.tanh(out) if with_tanh else out, after if kernel > stride else seen[-1:]

    return StreamLayer(
        (rows, inputs),
        (rows * stride, outputs),
        conv_transpose_step.state_shape(inputs),
        1,
        lambda x, state, frame, active, out: conv_transpose_step.conv_transpose(
            x, alpha, *arranged, state, frame, active, out, with_tanh=with_tanh
        ),
        reference,
    )


def waveform(rows: int, channels: int, kernel: int, dtype: torch.dtype, device: str = "cpu") -> StreamLayer:
    draw = Drawn(rows + channels, dtype, device)
    alpha, weight = draw.alpha(channels), draw.normal(kernel, channels, 1, scale=(kernel * channels) ** -0.5)
    arrays = alpha, weight, draw.normal(1, scale=0.1)
    known = [plain(array) for array in arrays]
    return StreamLayer(
        (rows, channels),
        (rows, 1),
        waveform_step.state_shape(channels, kernel, rows),
        kernel - 1,
        lambda x, state, frame, active, out: waveform_step.waveform_conv(x, *arrays, state, frame, active, out),
        lambda x, state: waveform_reference(x, *known, state),
    )


class Streams:
    """Some streams of one layer: state and counters, and what the reference has kept of each."""

    def __init__(self, layer: StreamLayer, batch: int, dtype: torch.dtype, seed: int, device: str = "cpu") -> None:
        self.layer, self.dtype, self.device = layer, dtype, device
        self.source = torch.Generator().manual_seed(seed)
        self.frame = torch.randint(0, 100_000, (batch,), generator=self.source, dtype=torch.int32).to(device)
        self.state = torch.full((batch, *layer.state_shape), float("nan"), dtype=dtype, device=device)
        for stream in range(batch):  # silence where the past stands, no number elsewhere
            self.state[stream, self._past(stream)] = 0
        self.known = [np.zeros((layer.history, layer.state_shape[1])) for _ in range(batch)]

    def _past(self, stream: int) -> Tensor:
        layer = self.layer
        capacity = max(1, layer.state_shape[0])
        start = int(self.frame[stream]) * layer.kept
        return torch.tensor([(start - layer.history + i) % capacity for i in range(layer.history)], dtype=torch.long)

    def past(self, stream: int) -> Array:
        """The rows that the next step of a stream looks back to."""
        return plain(self.state[stream, self._past(stream)])

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Input rows, not a number where the stream takes no part, and the streams that do."""
        active = torch.rand(len(self.frame), generator=self.source) < 0.7
        x = torch.randn(len(self.frame), *self.layer.in_shape, generator=self.source)
        x[~active] = float("nan")
        return x.to(self.device, self.dtype), active.to(self.device)

    def step(self, x: Tensor, active: Tensor) -> Tensor:
        """Output rows, not a number where nothing was written; counts the frame."""
        out = torch.full((len(x), *self.layer.out_shape), float("nan"), dtype=self.dtype, device=self.device)
        self.layer.step(x, self.state, self.frame, active, out)
        self.frame += active
        return out

    def check(self, x: Tensor, active: Tensor, tolerance: float) -> None:
        """One step, against the reference; streams that take no part stay as they are."""
        before = self.state.clone()
        out = self.step(x, active)
        for stream, on in enumerate(active.tolist()):
            if not on:
                assert torch.isnan(out[stream]).all()
                assert torch.equal(self.state[stream].nan_to_num(7), before[stream].nan_to_num(7))
                continue
            expected, self.known[stream] = self.layer.reference(plain(x[stream]), self.known[stream])
            assert close(plain(out[stream]), expected, tolerance)
            assert close(self.past(stream), self.known[stream], tolerance)


def close(got: Array, expected: Array, tolerance: float) -> bool:
    """Whether all numbers agree, in proportion to the largest; not a number never does."""
    return bool((np.abs(got - expected) <= tolerance * max(1.0, np.abs(expected).max(initial=0.0))).all())
