"""Everything that decides a training run, as frozen data; ablations are changes to it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from streamcodec.errors import ConfigError

QUANTIZERS = ("factorized", "ema")
PRECISIONS = ("float32", "bfloat16")

_KINDS = {int: "whole number", float: "finite number", bool: "true or false", str: "word", tuple: "list"}
_SHARES = ("quantizer_dropout", "lost_clips", "reseed_until", "final_learning_rate_share", "ema_decay", "phase_share")
_COUNTS_AND_WEIGHTS = (
    "seed",
    "warmup_steps",
    "unquantized_steps",
    "reseed_steps",
    "adversarial_from_step",
    "mel_weight",
    "spectral_weight",
    "waveform_weight",
    "compressed_weight",
    "mel_floor",
    "ema_dim",
    "codebook_weight",
    "commitment_weight",
    "adversarial_weight",
    "feature_weight",
)


@dataclass(frozen=True)
class TrainSettings:
    """One training run.

    Parameters
    ----------
    preset : str
        Name of the model's shape in `streamcodec.config.PRESETS`.
    steps : int
        Length of the whole schedule; the learning rate ends at `final_learning_rate_share` of its peak there.
    follow_clock : bool
        The schedule ends with the time limit where that comes first, for machines paid by the minute.  Such a run
        depends on the speed of the machine, and begins its clock anew where it is resumed.
    batch : int
        Crops a step, over all processes.
    crop_frames : int
        Frames in a crop.
    learning_rate, discriminator_learning_rate : float
        Peaks, after `warmup_steps`.
    snake_rate_share : float
        Learning rate of Snake's alphas over that of the other weights.  Initial weights that pass the waveform through
        leave a nearly linear network: alphas have far to go.
    gradient_clip : float
        Largest L2 norm of the generator's gradient, and of all discriminators' together.
    ema_decay : float
        Of the moving average of weights, which is what gets validated and shipped.
    precision : str
        "float32" or "bfloat16" (autocast).
    seed : int
        Decides initial weights, crops, augmentations and dropout.
    unquantized_steps : int
        First steps without the quantiser; then its codebooks are seeded from what they will see.  0: the quantiser
        takes part from the start, with the codebooks that it has.
    noisy_channel : bool
        In the steps without the quantiser, the latent passes a noisy channel of the rate of the codebooks in use;
        else it passes as it is.
    encoder_steps : int
        The encoder learns for so many steps and is then fixed at its moving average, and the codebooks stay as they
        are seeded; 0: it always learns.
    seed_rows : int
        Latents of the last steps that codebooks are seeded from.
    reseed_steps : int
        Unused codes are replaced this often, until `reseed_until` of the schedule; 0: never.
    quantizer, code_dim : str, int
        "factorized" (the talk's, of `code_dim` dimensions) or "ema" (k-means, moving average, restart).
    ema_dim : int
        Principal axes that each "ema" codebook codes; 0: the whole latent.
    quantizer_dropout : float
        Share of crops that use a drawn number of codebooks.
    lost_clips : float
        Share of crops of which some frames do not reach the decoder.
    mel_weight, spectral_weight, waveform_weight, compressed_weight, codebook_weight, commitment_weight : float
        Reconstruction and codebook terms; `compressed_weight` is that of the power-compressed spectral loss.
    mel_floor : float
        Mel magnitudes below it count as equal to it in training (validation keeps 1e-5).
    phase_share : float
        Share of the power-compressed loss that compares phases too.
    adversarial_weight, feature_weight : float
        Adversarial terms; discriminators run from `adversarial_from_step` on when the first is positive.
    discriminators : tuple of str
        Any of "scale", "period", "stft".
    discriminator_size : str
        "full", "half", "slim", or "one-core": the slim pair that pays most on one CPU core, whatever `discriminators`
        names.
    single_scale_mel : bool
        One mel scale of window 1024 and 80 bands, the ablation of the multi-scale loss.
    freeze_encoder : bool
        Stage two: only decoder and discriminators learn.
    balanced : bool
        Draw crops by category; else by hours.
    augment : bool
        Vary speed, level, tilt and background.
    validate_steps, log_steps : int
        How often to validate and to print.
    """

    preset: str = "tiny-24k"
    steps: int = 100_000
    follow_clock: bool = False
    batch: int = 8
    crop_frames: int = 40
    learning_rate: float = 5e-4
    discriminator_learning_rate: float = 3e-4
    warmup_steps: int = 200
    final_learning_rate_share: float = 0.02
    snake_rate_share: float = 1.0
    gradient_clip: float = 1000.0
    ema_decay: float = 0.999
    precision: str = "float32"
    seed: int = 0
    unquantized_steps: int = 200
    noisy_channel: bool = False
    encoder_steps: int = 0
    seed_rows: int = 4096
    reseed_steps: int = 250
    reseed_until: float = 0.5
    quantizer: str = "factorized"
    code_dim: int = 8
    ema_dim: int = 0
    quantizer_dropout: float = 0.5
    lost_clips: float = 0.1
    mel_weight: float = 15.0
    spectral_weight: float = 1.0
    waveform_weight: float = 0.0
    compressed_weight: float = 0.0
    phase_share: float = 0.5
    mel_floor: float = 1e-5
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    adversarial_from_step: int = 0
    discriminators: tuple[str, ...] = ("scale", "period", "stft")
    discriminator_size: str = "full"
    single_scale_mel: bool = False
    freeze_encoder: bool = False
    balanced: bool = True
    augment: bool = True
    validate_steps: int = 1000
    log_steps: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.discriminators, tuple | list):
            raise ConfigError(f"discriminators is {self.discriminators!r}; give a list of scale, period, stft")
        object.__setattr__(self, "discriminators", tuple(self.discriminators))
        self._check_kinds()
        for name, allowed in (
            ("quantizer", QUANTIZERS),
            ("precision", PRECISIONS),
            ("discriminator_size", ("full", "half", "slim", "one-core")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        for name in ("steps", "batch", "crop_frames", "code_dim", "validate_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "discriminator_learning_rate", "snake_rate_share", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        for name in _COUNTS_AND_WEIGHTS:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        unknown = sorted(str(kind) for kind in self.discriminators if kind not in ("scale", "period", "stft"))
        if unknown:
            raise ConfigError(f"discriminator {unknown[0]!r} is unknown; choose from scale, period, stft")

    def _check_kinds(self) -> None:
        """Each value is of the kind of its default; a whole number will do for a fraction."""
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            kind = type(default)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
                object.__setattr__(self, field.name, value)
            if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"{field.name} is {value!r}; give a {_KINDS[kind]}, such as {default!r}")

    @property
    def adversarial(self) -> bool:
        """Whether discriminators take part at all."""
        return self.adversarial_weight > 0 and bool(self.discriminators)

    def changed(self, changes: Mapping[str, Any]) -> TrainSettings:
        """Return these settings with some values replaced; an unknown name is a ConfigError."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a training setting; `streamcodec train --help` lists them")
        return replace(self, **changes)

    def to_json(self) -> str:
        """JSON that `from_json` reads back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainSettings:
        """Build from JSON that `to_json` wrote; a value that it lacks has its default."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the training settings are not JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"the training settings are a {type(data).__name__}; they must be an object")
        return cls().changed(data)


ABLATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "baseline": {},
        "no-discriminators": {"adversarial_weight": 0.0},
        "no-scale-discriminator": {"discriminators": ("period", "stft")},
        "no-period-discriminator": {"discriminators": ("scale", "stft")},
        "no-stft-discriminator": {"discriminators": ("scale", "period")},
        "single-scale-mel": {"single_scale_mel": True},
        "no-mel": {"mel_weight": 0.0, "spectral_weight": 1.0},
        "code-dim-2": {"code_dim": 2},
        "code-dim-4": {"code_dim": 4},
        "code-dim-32": {"code_dim": 32},
        "ema-quantizer": {"quantizer": "ema"},
        "quantizer-dropout-0": {"quantizer_dropout": 0.0},
        "quantizer-dropout-0.25": {"quantizer_dropout": 0.25},
        "quantizer-dropout-1": {"quantizer_dropout": 1.0},
        "unbalanced": {"balanced": False},
    }
)
"""The talk's ablations by name, each as its difference from the run's settings."""
