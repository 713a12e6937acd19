"""Which discriminators there are, and their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from streamcodec.errors import ConfigError

Size = Literal["full", "half", "slim"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A validated choice of discriminators; an empty tuple switches a kind off.

    Parameters
    ----------
    rates : tuple of int
        Multi-scale waveform (Kumar et al. 2019, MelGAN): one each, on the waveform averaged down by this factor.
    periods : tuple of int
        Multi-period (Kong et al. 2020, HiFi-GAN): one each, on every n-th sample.
    windows : tuple of int
        Multi-band complex STFT (Kumar et al. 2023): one each, with this window in samples.
    bands : tuple of pair of float
        Fractions of the spectrum that get convolutions of their own in every STFT discriminator.
    size : {"full", "half", "slim"}
        The published widths, half of those of the waveform's, or about an eighth of all.

    Raises
    ------
    ConfigError
        A field out of range, or nothing switched on.
    """

    rates: tuple[int, ...] = (1, 2, 4)
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    size: Size = "full"

    def __post_init__(self) -> None:
        for field in ("rates", "periods", "windows", "bands"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "bands", tuple((float(low), float(high)) for low, high in self.bands))
        if self.size not in get_args(Size):
            raise ConfigError(f"the discriminators' size is {self.size!r}; choose one of {', '.join(get_args(Size))}")
        for field, low, high in (("rates", 1, 64), ("periods", 1, 1024), ("windows", 64, 65_536)):
            for value in getattr(self, field):
                if not isinstance(value, int) or not low <= value <= high:
                    raise ConfigError(f"{field} has {value!r}; each must be a whole number from {low} to {high}")
        for window in self.windows:
            if window % 4:
                raise ConfigError(f"windows has {window}; each must be a multiple of 4")
            for low_edge, high_edge in self.bands:
                if not 0 <= low_edge < high_edge <= 1 or (high_edge - low_edge) * (window // 2) < 1:
                    raise ConfigError(
                        f"bands has ({low_edge}, {high_edge}); each must rise, within 0 and 1, over a bin"
                    )
        if not (self.rates or self.periods or (self.windows and self.bands)):
            raise ConfigError("no discriminator is switched on; give rates, periods or windows")


ONE_CORE = DiscriminatorConfig(rates=(2,), periods=(), windows=(2048,), bands=((0.0, 1.0),), size="slim")
"""For training on a CPU: of the slim ones, those that told a young model's output from speech in the least CPU time."""
