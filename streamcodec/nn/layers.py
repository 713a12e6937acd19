"""The layer records of `streamcodec.architecture` as torch modules, channels-last: [B, T, C].

Every layer has `forward` (a whole clip, zero history) and, when causal, `step(x, state)`: any split of a
clip into steps gives what `forward` gives.  `state` is [B, *state_shape], advanced in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamcodec import architecture as arch
from streamcodec.errors import AudioError, ConfigError
from streamcodec_kernels.snake_depthwise_snake import autograd as fused

_TINY = 1e-24  # of a squared norm, so that it has a gradient everywhere
_RESIDUAL_GAIN = 0.2  # of a residual branch before training, so that a deep stack does not grow


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """Snake activation x + sin^2(alpha x) / alpha (Ziyin et al. 2020, eq. 3).  x: [..., C].  alpha: [C], > 0."""
    return x + torch.sin(alpha * x).square() / alpha


def depthwise_taps(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, rows: int) -> Tensor:
    """Depthwise convolution as shifted multiply-adds, which compilers fuse.

    x: [B, rows + (kernel - 1) * dilation, C].  weight: [kernel, C].  bias: [C].  Returns [B, rows, C].
    """
    y = bias + x[:, :rows] * weight[0]
    for j in range(1, weight.shape[0]):
        y = y + x[:, j * dilation : j * dilation + rows] * weight[j]
    return y


class Snake(nn.Module):
    """Snake with one alpha a channel, kept as its logarithm so that it stays positive in training."""

    state_shape = (0, 0)

    def __init__(self, layer: arch.Snake) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(layer.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to [B, T, C]."""
        alpha = self.log_alpha.exp()
        return fused.snake(x, alpha) if fused.fuses(x) else snake(x, alpha)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Apply to the next rows."""
        return self.forward(x)


class Tanh(nn.Module):
    """Hyperbolic tangent."""

    state_shape = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to [B, T, C]."""
        return torch.tanh(x)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Apply to the next rows."""
        return self.forward(x)


class _WeightNormed(nn.Module):
    """A weight stored as direction times length per output channel (Salimans and Kingma 2016), or plain.

    `gain` is a fixed factor of what is computed with: training keeps and moves the weight at a scale of its own.
    """

    def __init__(self, shape: tuple[int, ...], fan_in: int, out_dim: int, weight_norm: bool) -> None:
        super().__init__()
        self._dims = tuple(dim for dim in range(len(shape)) if dim != out_dim)
        self.direction = nn.Parameter(torch.empty(shape))
        nn.init.trunc_normal_(self.direction, std=fan_in**-0.5)
        length = self.direction.detach().square().sum(self._dims, keepdim=True).sqrt()
        self.length = nn.Parameter(length) if weight_norm else None
        self.gain = 1.0

    def forward(self) -> Tensor:
        """The weight to compute with."""
        return self._weight() if self.gain == 1 else self.gain * self._weight()

    def _weight(self) -> Tensor:
        if self.length is None:
            return self.direction
        if self.direction.is_cuda and self._dims == tuple(range(self.direction.dim() - 1)):
            return torch._weight_norm(self.direction, self.length, self.direction.dim() - 1)  # one launch, not six
        norm = (self.direction.square().sum(self._dims, keepdim=True) + _TINY).sqrt()
        return self.direction * (self.length / norm)

    @torch.no_grad()
    def scale(self, gain: float) -> None:
        """Multiply the weight by a number."""
        (self.direction if self.length is None else self.length).mul_(gain)

    @torch.no_grad()
    def load(self, weight: Tensor) -> None:
        """Take a plain weight; a channel of zeros gets a direction of no length, as a zero cannot be normalised."""
        weight = weight / self.gain
        if self.length is not None:
            self.length.copy_(weight.square().sum(self._dims, keepdim=True).sqrt())
            weight = torch.where(self.length > 0, weight, 1.0)
        self.direction.copy_(weight)


def _exact_beside_the_waveform(
    product: Callable[[Tensor], Tensor], x: Tensor, layer: arch.Conv | arch.ConvTranspose
) -> Tensor:
    """The product, in float32 also under autocast where it reads or writes the waveform."""
    kind = x.device.type
    if 1 not in (layer.in_channels, layer.out_channels) or not torch.is_autocast_enabled(kind):
        return product(x)
    with torch.autocast(kind, enabled=False):
        y = product(x.float())
    return y.to(torch.get_autocast_dtype(kind)) if layer.in_channels == 1 else y


class Conv(nn.Module):
    """Convolution over time, causal or (published DAC) padded on both sides."""

    def __init__(self, layer: arch.Conv, causal: bool, weight_norm: bool) -> None:
        super().__init__()
        if layer.depthwise and layer.in_channels != layer.out_channels:
            raise ConfigError(f"a depthwise Conv maps {layer.in_channels} to {layer.out_channels} channels")
        self.layer = layer
        self.causal = causal
        fan_in = layer.kernel * (1 if layer.depthwise else layer.in_channels)
        shape = layer.array_shapes["weight"]
        self.weight = _WeightNormed(shape, fan_in, len(shape) - 1, weight_norm)
        self.bias = nn.Parameter(torch.zeros(layer.out_channels))
        self.state_shape = (layer.history_rows, layer.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map a whole clip: [B, T, in] to [B, T / stride, out]."""
        layer = self.layer
        if self.causal:
            self._require_whole_blocks(x)
            past = layer.span - layer.stride
            return self._valid(F.pad(x, (0, 0, past, 0)) if past > 0 else x[:, -past:])
        pad = (layer.stride + 1) // 2 if layer.stride > 1 else (layer.span - 1) // 2
        return self._valid(F.pad(x, (0, 0, pad, pad)))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Map the next rows; their number is a multiple of the stride."""
        self._require_whole_blocks(x)
        history = self.layer.history_rows
        if not history:
            return self._valid(x[:, max(0, self.layer.stride - self.layer.span) :])
        rows = torch.cat([state, x], 1)
        state.copy_(rows[:, rows.shape[1] - history :])
        return self._valid(rows)

    def _require_whole_blocks(self, x: Tensor) -> None:
        if x.shape[1] % self.layer.stride:
            raise AudioError(f"{x.shape[1]} rows; give a multiple of the stride {self.layer.stride}")

    def _valid(self, x: Tensor) -> Tensor:
        """Convolve without padding."""
        return _exact_beside_the_waveform(self._product, x, self.layer)

    def _product(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight: Tensor = self.weight().to(x.dtype)
        bias = self.bias.to(x.dtype)
        stride, dilation = layer.stride, layer.dilation
        rows = (x.shape[1] - layer.span) // stride + 1
        if layer.depthwise:
            if stride > 1:
                return self._taps(x, rows).mul(weight[:, None, None]).sum(0) + bias
            return depthwise_taps(x, weight, bias, dilation, rows)
        if layer.kernel == 1 and stride == 1:
            return F.linear(x, weight[0].t(), bias)
        if layer.kernel == 2 * stride and dilation == 1:
            blocks = x[:, : (rows + 1) * stride].reshape(x.shape[0], rows + 1, stride * layer.in_channels)
            window = torch.cat([blocks[:, :-1], blocks[:, 1:]], 2)
            return F.linear(window, weight.flatten(0, 1).t(), bias)
        if layer.out_channels < layer.in_channels and stride == 1:
            product = F.linear(x, weight.permute(0, 2, 1).flatten(0, 1))
            product = product.view(*x.shape[:2], layer.kernel, layer.out_channels)
            y = bias + product[:, :rows, 0]
            for j in range(1, layer.kernel):
                y = y + product[:, j * dilation : j * dilation + rows, j]
            return y
        window = self._taps(x, rows).permute(1, 2, 0, 3).flatten(2)
        return F.linear(window, weight.flatten(0, 1).t(), bias)

    def _taps(self, x: Tensor, rows: int) -> Tensor:
        """What each tap sees: [kernel, B, rows, C]."""
        layer = self.layer
        reach = max(0, (rows - 1) * layer.stride + 1)
        starts = [j * layer.dilation for j in range(layer.kernel)]
        return torch.stack([x[:, start : start + reach : layer.stride] for start in starts])


class ConvTranspose(nn.Module):
    """Transposed convolution over time: one product, overlap-add, then bias."""

    def __init__(self, layer: arch.ConvTranspose, causal: bool, weight_norm: bool) -> None:
        super().__init__()
        self.layer = layer
        self.causal = causal
        fan_in = max(1, layer.in_channels * layer.kernel // layer.stride)
        self.weight = _WeightNormed(layer.array_shapes["weight"], fan_in, 2, weight_norm)
        self.bias = nn.Parameter(torch.zeros(layer.out_channels))
        self.state_shape = (layer.history_rows, layer.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map a whole clip: [B, T, in] to [B, T * stride, out]."""
        y = _exact_beside_the_waveform(self._overlap_add, x, self.layer)
        start = 0 if self.causal else (self.layer.stride + 1) // 2
        return y[:, start : start + x.shape[1] * self.layer.stride] + self.bias.to(y.dtype)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Map the next rows."""
        rows = x.shape[1] * self.layer.stride
        y = self._overlap_add(x)
        history = self.layer.history_rows
        if history:
            y[:, :history] += state
            state.copy_(y[:, rows : rows + history])
        return y[:, :rows] + self.bias.to(x.dtype)

    def _overlap_add(self, x: Tensor) -> Tensor:
        """Sum of shifted products, at least T * stride rows and all that reach past them."""
        layer = self.layer
        weight: Tensor = self.weight().to(x.dtype)
        blocks = -(-layer.kernel // layer.stride)
        padded = F.pad(weight, (0, 0, 0, blocks * layer.stride - layer.kernel))
        product = F.linear(x, padded.flatten(1).t()).view(*x.shape[:2], blocks, layer.stride * layer.out_channels)
        y = F.pad(product[:, :, 0], (0, 0, 0, blocks - 1))
        for j in range(1, blocks):
            y = y + F.pad(product[:, :, j], (0, 0, j, blocks - 1 - j))
        y = y.reshape(x.shape[0], y.shape[1] * layer.stride, layer.out_channels)
        return y[:, : x.shape[1] * layer.stride + layer.history_rows]


class Residual(nn.Module):
    """Snake, dilated convolution, Snake, 1x1 convolution, added to the input."""

    def __init__(self, layer: arch.Residual, causal: bool, weight_norm: bool) -> None:
        super().__init__()
        first, dilated, second, mix = layer.body
        self.snake_in = Snake(first)
        self.dilated = Conv(dilated, causal, weight_norm)
        self.snake_out = Snake(second)
        self.mix = Conv(mix, causal, weight_norm)
        self.mix.weight.scale(_RESIDUAL_GAIN)
        self.state_shape = self.dilated.state_shape

    def forward(self, x: Tensor) -> Tensor:
        """Map a whole clip, [B, T, C]."""
        conv = self.dilated
        if conv.layer.depthwise and conv.causal and fused.fuses(x, conv.layer.kernel):
            alphas = self.snake_in.log_alpha.exp(), self.snake_out.log_alpha.exp()
            constants = alphas[0], conv.weight(), conv.bias, alphas[1]
            inner = fused.snake_depthwise_snake(x, *constants, conv.layer.dilation)
        else:
            inner = self.snake_out(conv(self.snake_in(x)))
        mixed: Tensor = self.mix(inner)
        return x + mixed

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Map the next rows."""
        mixed: Tensor = self.mix(self.snake_out(self.dilated.step(self.snake_in(x), state)))
        return x + mixed


Module = Snake | Tanh | Conv | ConvTranspose | Residual


def build_layer(layer: arch.Layer, causal: bool = True, weight_norm: bool = False) -> Module:
    """Make the module of one layer record."""
    match layer:
        case arch.Snake():
            return Snake(layer)
        case arch.Tanh():
            return Tanh()
        case arch.Conv():
            return Conv(layer, causal, weight_norm)
        case arch.ConvTranspose():
            return ConvTranspose(layer, causal, weight_norm)
        case arch.Residual():
            return Residual(layer, causal, weight_norm)


class Stack(nn.Sequential):
    """Layers in a row, with one state tensor for all: [B, values]."""

    def __init__(self, layers: tuple[arch.Layer, ...], causal: bool, weight_norm: bool) -> None:
        super().__init__(*(build_layer(layer, causal, weight_norm) for layer in layers))
        self.layers = layers

    @property
    def state_values(self) -> int:
        """Numbers that one stream keeps."""
        return sum(rows * channels for rows, channels in self._state_shapes())

    def _state_shapes(self) -> list[tuple[int, int]]:
        return [module.state_shape for module in self]  # type: ignore[misc]

    def init_state(self, streams: int) -> Tensor:
        """Zeroed state of `streams` streams, [B, values]."""
        parameter = next(self.parameters(), None)
        return torch.zeros(streams, self.state_values, device=None if parameter is None else parameter.device)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Map the next rows of B streams; `state` [B, values] is advanced."""
        at = 0
        for module, (rows, channels) in zip(self, self._state_shapes(), strict=True):
            size = rows * channels
            own = state[:, at : at + size].view(state.shape[0], rows, channels)
            x = module.step(x, own)  # type: ignore[operator]
            at += size
        return x
