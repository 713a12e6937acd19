"""Discriminators of samples in a row: the whole waveform at a lower rate, or every n-th sample of it.

MelGAN (Kumar et al. 2019) and HiFi-GAN (Kong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional

from streamcodec.training.discriminators.config import Size
from streamcodec.training.discriminators.layers import Stack, normed

_KERNELS = (15, 41, 41, 41, 41, 5)
_STRIDES = (1, 4, 4, 4, 4, 1)
_RATE_WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "full": (1, 16, 64, 256, 1024, 1024, 1024),
        "half": (1, 8, 32, 128, 512, 512, 512),
        "slim": (1, 8, 16, 32, 64, 64, 64),
    }
)
_RATE_GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"full": (1, 4, 16, 64, 256, 1), "half": (1, 4, 16, 64, 128, 1), "slim": (1, 2, 4, 8, 8, 1)}
)
_PERIOD_WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"full": (1, 32, 128, 512, 1024, 1024), "half": (1, 16, 64, 256, 512, 512), "slim": (1, 8, 16, 32, 64, 64)}
)
_PERIOD_STRIDES = (3, 3, 3, 3, 1)


class RateDiscriminator(nn.Module):
    """Grouped convolutions over the waveform averaged down by `rate`."""

    def __init__(self, rate: int, size: Size) -> None:
        super().__init__()
        self.rate = rate
        widths = _RATE_WIDTHS[size]
        self.stack = Stack(
            nn.Conv1d(i, o, kernel, stride, kernel // 2, groups=groups)
            for i, o, kernel, stride, groups in zip(
                widths[:-1], widths[1:], _KERNELS, _STRIDES, _RATE_GROUPS[size], strict=True
            )
        )
        self.logits = normed(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """[B, T] to feature maps [B, C, rows], the last the logits."""
        x = wave[:, None]
        if self.rate > 1:
            x = functional.avg_pool1d(x, 2 * self.rate, self.rate, padding=self.rate)
        maps = self.stack(x)
        return [*maps, self.logits(maps[-1])]


class PeriodDiscriminator(nn.Module):
    """Convolutions over every n-th sample, the same for each of the n phases."""

    def __init__(self, period: int, size: Size) -> None:
        super().__init__()
        self.period = period
        widths = _PERIOD_WIDTHS[size]
        self.stack = Stack(
            nn.Conv1d(i, o, 5, stride, 2) for i, o, stride in zip(widths[:-1], widths[1:], _PERIOD_STRIDES, strict=True)
        )
        self.logits = normed(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """[B, T] to feature maps [B, period, C, rows], the last the logits."""
        missing = -wave.shape[-1] % self.period
        padded = functional.pad(wave[:, None], (0, missing), mode="reflect")
        phases = padded.reshape(len(wave), -1, self.period).transpose(1, 2)
        maps = self.stack(phases.reshape(len(wave) * self.period, 1, -1))
        return [each.view(len(wave), self.period, *each.shape[1:]) for each in (*maps, self.logits(maps[-1]))]
