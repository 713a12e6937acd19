"""All discriminators of one training run."""

from __future__ import annotations

from torch import Tensor, nn

from streamcodec.training.discriminators.config import DiscriminatorConfig
from streamcodec.training.discriminators.spectral import SpectralDiscriminator
from streamcodec.training.discriminators.waveform import PeriodDiscriminator, RateDiscriminator

_PEAK = 0.8
_QUIET_PEAK = 1e-3  # of clips under it the level is kept, so that silence gets no huge gradient


def level(wave: Tensor) -> Tensor:
    """Each clip [T] of [B, T] without its mean and with a peak of 0.8, in float32."""
    centred = wave.float() - wave.float().mean(-1, keepdim=True)
    return centred * (_PEAK / centred.abs().amax(-1, keepdim=True).clamp_min(_QUIET_PEAK))


class Discriminators(nn.Module):
    """The discriminators that a config switches on.

    Parameters
    ----------
    config : DiscriminatorConfig
        Kinds and size.

    Attributes
    ----------
    names : list of str
        One for each discriminator, in the order of `forward`'s result.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        members: dict[str, nn.Module] = {}
        members |= {f"rate_{rate}": RateDiscriminator(rate, config.size) for rate in config.rates}
        members |= {f"period_{period}": PeriodDiscriminator(period, config.size) for period in config.periods}
        if config.bands:
            members |= {
                f"stft_{window}": SpectralDiscriminator(window, config.bands, config.size) for window in config.windows
            }
        self.members = nn.ModuleDict(members)
        self.names = list(members)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """Feature maps [B, ...] that each discriminator makes of [B, T], the last of them its logits."""
        levelled = level(wave)
        return [member(levelled) for member in self.members.values()]

    def parameter_count(self) -> dict[str, int]:
        """Trained numbers in each discriminator, by name."""
        return {name: sum(p.numel() for p in member.parameters()) for name, member in self.members.items()}
