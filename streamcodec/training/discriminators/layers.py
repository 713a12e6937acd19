"""Weight-normalised convolutions with leaky rectifiers, the common material of all discriminators."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

LEAK = 0.1


def normed(layer: nn.Module) -> nn.Module:
    """`layer` with its weight as direction times length (Salimans and Kingma 2016)."""
    parametrized: nn.Module = weight_norm(layer)
    return parametrized


def convolve_as_image(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """`layer(x)` of rows [B, C, rows] as an image of height 1, channels-last, as tensor cores take it."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    wide = functional.conv2d(
        image, layer.weight.unsqueeze(2), layer.bias, (1, stride), (0, padding), groups=layer.groups
    )
    return wide.squeeze(2)


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    if x.is_cuda and isinstance(layer, nn.Conv1d):
        return convolve_as_image(layer, x)
    convolved: Tensor = layer(x)
    return convolved


class Stack(nn.Module):
    """Convolutions in a row, each followed by a leaky rectifier."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(normed(layer) for layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """What every layer makes."""
        maps = []
        for layer in self.layers:
            x = functional.leaky_relu(_convolve(layer, x), LEAK)
            maps.append(x)
        return maps
