"""What networks a run's settings ask for."""

from __future__ import annotations

from dataclasses import replace

from streamcodec.config import PRESETS, CodecConfig
from streamcodec.errors import ConfigError
from streamcodec.training.discriminators import ONE_CORE, DiscriminatorConfig, Size
from streamcodec.training.settings import TrainSettings


def model_config(settings: TrainSettings) -> CodecConfig:
    """Shape of the model that `settings` train."""
    if settings.preset not in PRESETS:
        raise ConfigError(f"preset {settings.preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    config = PRESETS[settings.preset]
    if settings.quantizer == "ema":
        return replace(config, code_dim=(settings.ema_dim or config.latent_dim) + 1)
    return replace(config, code_dim=settings.code_dim)


def discriminator_config(settings: TrainSettings) -> DiscriminatorConfig:
    """Choice of discriminators that `settings` name."""
    if settings.discriminator_size == "one-core":
        return ONE_CORE
    chosen = settings.discriminators
    default = DiscriminatorConfig()
    size: Size = settings.discriminator_size  # type: ignore[assignment]  # settings take no other word
    return DiscriminatorConfig(
        rates=default.rates if "scale" in chosen else (),
        periods=default.periods if "period" in chosen else (),
        windows=default.windows if "stft" in chosen else (),
        size=size,
    )
