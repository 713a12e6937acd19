"""Discriminator of the complex spectrum in bands (Kumar et al. 2023, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streamcodec.training.discriminators.config import Size
from streamcodec.training.discriminators.layers import Stack, normed
from streamcodec.training.spectrum import ShortTimeFourier


def _band_stack(size: Size) -> Stack:
    """Convolutions over [frames, bins]; the slim ones halve the bins from the first layer on."""
    if size != "slim":
        widths, reach, strides = (2, 32, 32, 32, 32), 9, (1, 2, 2, 2)
    else:
        widths, reach, strides = (2, 8, 16, 16, 16), 5, (2, 2, 2, 2)
    wide = [
        nn.Conv2d(i, o, (3, reach), (1, stride), (1, reach // 2))
        for i, o, stride in zip(widths[:-1], widths[1:], strides, strict=True)
    ]
    return Stack([*wide, nn.Conv2d(widths[-1], widths[-1], 3, padding=1)])


class SpectralDiscriminator(nn.Module):
    """Own convolutions for each band of real and imaginary parts, one common last layer.

    Parameters
    ----------
    window_samples : int
        Window of the transform; the hop is a quarter.
    bands : sequence of pair of float
        Fractions of the spectrum.
    size : {"full", "half", "slim"}
        Width; "half" is the full one here.
    """

    def __init__(self, window_samples: int, bands: Sequence[tuple[float, float]], size: Size) -> None:
        super().__init__()
        self.fourier = ShortTimeFourier(window_samples)
        self.edges = [(int(low * self.fourier.bins), int(high * self.fourier.bins)) for low, high in bands]
        self.bands = nn.ModuleList(_band_stack(size) for _ in bands)
        self.logits = normed(nn.Conv2d(16 if size == "slim" else 32, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """[B, T] to feature maps [B, C, frames, bins], band after band, the last the logits."""
        image = self.fourier.spectrum(wave).permute(0, 3, 1, 2)
        maps: list[Tensor] = []
        ends: list[Tensor] = []
        for (low, high), stack in zip(self.edges, self.bands, strict=True):
            band = stack(image[..., low:high].contiguous(memory_format=torch.channels_last))
            maps += band
            ends.append(band[-1])
        return [*maps, self.logits(torch.cat(ends, dim=-1))]
