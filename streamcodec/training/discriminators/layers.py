"""Weight-normalised convolutions with leaky rectifiers, the common material of all discriminators."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

LEAK = 0.1


def normed(layer: nn.Module) -> nn.Module:
    """`layer` with its weight as direction times length (Salimans and Kingma 2016)."""
    parametrized: nn.Module = weight_norm(layer)
    return parametrized


class Stack(nn.Module):
    """Convolutions in a row, each followed by a leaky rectifier."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(normed(layer) for layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """What every layer makes."""
        maps = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), LEAK)
            maps.append(x)
        return maps
