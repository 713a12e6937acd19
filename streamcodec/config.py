"""The numbers that define a codec: sample rate, widths, strides, codebooks; everything else is derived."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from types import MappingProxyType
from typing import Any

from streamcodec.errors import BitrateError, ConfigError

_MAX_ENTRIES = 16
_MAX_HOP_SAMPLES = 65_536

EDGES = ("conv", "strided")
"""How the waveform enters and leaves: see `CodecConfig.edge`."""


@dataclass(frozen=True)
class CodecConfig:
    """A validated description of one codec.

    Parameters
    ----------
    name : str
        What the model is called.
    sample_rate_hz : int
        Rate of the waveform.
    encoder_width : int or tuple of int
        Channels of the encoder's stages, from the waveform on: in full, or the first, doubled from stage to stage.
    decoder_width : int or tuple of int
        Channels of the decoder's stages, from the latent on: in full, or the first, halved from stage to stage.
    strides : tuple of int
        Down-sampling factors in the encoder's order; the decoder runs them backwards.  There is a stage after every
        stride and, with the edge "conv", one before the first.
    latent_dim : int
        Channels between encoder, quantiser and decoder.
    n_codebooks, codebook_size, code_dim : int
        Residual vector quantiser: K codebooks of N codes in D dimensions.
    causal : bool
        Whether every layer looks back only; a model that is not causal cannot stream.
    depthwise : bool
        Whether the dilated convolution of a residual unit is depthwise (ours) or dense (published DAC).
    dilations : tuple of int, or tuple of tuples of int
        One residual unit each, per stage; or for each stride its own, in the encoder's order.  The units of a stride
        stand on its side of the waveform with the edge "conv", on that of the latent with "strided".
    residual_kernel, edge_kernel, latent_kernel : int
        Kernel of the dilated convolutions, of the decoder's first convolution (with the edge "conv" also of the
        waveform's), and of the convolution that makes the latent.
    edge : str
        "conv": convolutions at the waveform's own rate come first and last.  "strided": the first stride reads the
        waveform and the last writes it, by kernels of twice the stride as everywhere.

    Raises
    ------
    ConfigError
        A field is of the wrong type or out of range.
    """

    name: str
    sample_rate_hz: int
    encoder_width: int | tuple[int, ...]
    decoder_width: int | tuple[int, ...]
    strides: tuple[int, ...]
    latent_dim: int
    n_codebooks: int
    codebook_size: int = 1024
    code_dim: int = 8
    causal: bool = True
    depthwise: bool = True
    dilations: tuple[int, ...] | tuple[tuple[int, ...], ...] = (1, 3, 9)
    residual_kernel: int = 7
    edge_kernel: int = 7
    latent_kernel: int = 3
    edge: str = "conv"

    def __post_init__(self) -> None:
        if self.edge not in EDGES:
            raise ConfigError(f"edge is {self.edge!r}; choose one of {', '.join(EDGES)}")
        object.__setattr__(self, "strides", self._whole_numbers("strides", self.strides, 64))
        object.__setattr__(self, "dilations", self._checked_dilations())
        for field, high in (("encoder_width", 4096), ("decoder_width", 8192)):
            object.__setattr__(self, field, self._checked_width(field, getattr(self, field), high))
        for field, low, high in (
            ("sample_rate_hz", 1000, 384_000),
            ("latent_dim", 1, 8192),
            ("n_codebooks", 1, 64),
            ("codebook_size", 2, 32_768),
            ("code_dim", 1, 1024),
            ("residual_kernel", 1, 63),
            ("edge_kernel", 1, 63),
            ("latent_kernel", 1, 63),
        ):
            self._check_range(field, getattr(self, field), low, high)
        for field in ("causal", "depthwise"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(f"{field} is {getattr(self, field)!r}; it must be true or false")
        if self.hop_samples > _MAX_HOP_SAMPLES:
            raise ConfigError(f"the hop is {self.hop_samples} samples; it must be at most {_MAX_HOP_SAMPLES}")
        if self.codebook_size & (self.codebook_size - 1):
            raise ConfigError(f"codebook_size is {self.codebook_size}; it must be a power of two")
        halvings = self.n_stages - 1
        if isinstance(self.decoder_width, int) and self.decoder_width % (1 << halvings):
            raise ConfigError(
                f"decoder_width is {self.decoder_width}; it must halve {halvings} times without a rest, or be given "
                "for every stage"
            )
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"name is {self.name!r}; give the model a name")

    def _whole_numbers(self, field: str, value: object, high: int) -> tuple[int, ...]:
        if not isinstance(value, tuple | list) or not value:
            raise ConfigError(f"{field} is {value!r}; give at least one whole number")
        if len(value) > _MAX_ENTRIES:
            raise ConfigError(f"{field} has {len(value)} values; give at most {_MAX_ENTRIES}")
        for item in value:
            self._check_range(field, item, 1, high)
        return tuple(value)

    def _checked_dilations(self) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
        given: object = self.dilations
        if not isinstance(given, tuple | list) or not any(isinstance(item, tuple | list) for item in given):
            return self._whole_numbers("dilations", given, 64)
        if len(given) != len(self.strides):
            raise ConfigError(
                f"dilations has lists for {len(given)} stages and there are {len(self.strides)} strides; give one list "
                "for each stride, or one for all"
            )
        return tuple(self._whole_numbers(f"dilations[{i}]", stage, 64) for i, stage in enumerate(given))

    def _checked_width(self, field: str, value: object, high: int) -> int | tuple[int, ...]:
        if not isinstance(value, tuple | list):
            self._check_range(field, value, 1, high)
            return value  # type: ignore[return-value]  # a whole number, as has just been checked
        if len(value) != self.n_stages:
            raise ConfigError(
                f"{field} has {len(value)} values; {len(self.strides)} strides with the edge {self.edge!r} make "
                f"{self.n_stages} stages: give a value for each, or one whole number"
            )
        return self._whole_numbers(field, value, high)

    @staticmethod
    def _check_range(field: str, value: object, low: int, high: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{field} is {value!r}; it must be a whole number from {low} to {high}")

    @property
    def n_stages(self) -> int:
        """Stages of the encoder, and of the decoder, each of its own rate and width."""
        return len(self.strides) + (self.edge == "conv")

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels of the encoder's stages, from the waveform to the latent."""
        if isinstance(self.encoder_width, tuple):
            return self.encoder_width
        return tuple(self.encoder_width << i for i in range(self.n_stages))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of the decoder's stages, from the latent to the waveform."""
        if isinstance(self.decoder_width, tuple):
            return self.decoder_width
        return tuple(self.decoder_width >> i for i in range(self.n_stages))

    @property
    def stage_dilations(self) -> tuple[tuple[int, ...], ...]:
        """Dilations of the residual units of each stage, from the waveform to the latent."""
        each = tuple(item for item in self.dilations if isinstance(item, tuple))
        shared = tuple(item for item in self.dilations if isinstance(item, int))
        units = each or (shared,) * len(self.strides)
        return units if self.edge == "strided" else (*units, ())

    @property
    def hop_samples(self) -> int:
        """Samples in one frame."""
        return prod(self.strides)

    @property
    def frame_rate_hz(self) -> float:
        """Frames in one second."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def bits_per_code(self) -> int:
        """Bits that index one codebook."""
        return self.codebook_size.bit_length() - 1

    @property
    def bitrate_step_bps(self) -> float:
        """Bitrate of one codebook."""
        return self.bits_per_code * self.frame_rate_hz

    @property
    def max_bitrate_bps(self) -> float:
        """Bitrate of all codebooks."""
        return self.bitrate_step_bps * self.n_codebooks

    @property
    def algorithmic_latency_ms(self) -> float:
        """Delay that no computer can shorten: one frame when causal, else nothing streams (infinite)."""
        return 1000 / self.frame_rate_hz if self.causal else float("inf")

    def codebooks_for(self, bitrate_bps: float) -> int:
        """Number of codebooks that `bitrate_bps` pays for.

        Raises
        ------
        BitrateError
            The bitrate is not a multiple of one codebook's, or out of range.

        Examples
        --------
        >>> PRESETS["base-24k"].codebooks_for(6000)
        8
        """
        step = self.bitrate_step_bps
        count = round(bitrate_bps / step) if 0 < bitrate_bps < 1e9 else 0
        if abs(bitrate_bps - count * step) > 1e-3 * step or not 1 <= count <= self.n_codebooks:
            between = 1 <= bitrate_bps / step <= self.n_codebooks
            what = "is between two steps of this model" if between else "is outside this model's range"
            raise BitrateError(
                f"{bitrate_bps:g} bps {what}; choose a multiple of {step:g} from {step:g} to {self.max_bitrate_bps:g}."
            )
        return count

    def packet_bytes(self, n_codebooks: int) -> int:
        """Bytes of one packet with `n_codebooks` codes, and with a bit that ends them if a code has less than 8."""
        return (self.bits_per_code * n_codebooks + (self.bits_per_code < 8) + 7) // 8

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back; the edge "conv" goes without saying, as in older files."""
        data = asdict(self)
        if self.edge == "conv":
            del data["edge"]
        return json.dumps(data, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CodecConfig:
        """Build from JSON.

        Raises
        ------
        ConfigError
            Not JSON, an unknown or a missing key, or a value out of range.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the model description is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"the model description is a {type(data).__name__}; it must be an object")
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CodecConfig:
        """Build from a mapping; an unknown or missing key is a ConfigError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]!r} in the model description; known: {', '.join(sorted(known))}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"the model description is incomplete: {error}") from None


def _dac(name: str, sample_rate_hz: int, strides: tuple[int, ...], n_codebooks: int) -> CodecConfig:
    """Shape of a published Descript Audio Codec (Kumar et al. 2023)."""
    return CodecConfig(
        name=name,
        sample_rate_hz=sample_rate_hz,
        encoder_width=64,
        decoder_width=1536,
        strides=strides,
        latent_dim=1024,
        n_codebooks=n_codebooks,
        causal=False,
        depthwise=False,
    )


def _ours(name: str, width: int) -> CodecConfig:
    return CodecConfig(
        name=name,
        sample_rate_hz=24_000,
        encoder_width=width,
        decoder_width=16 * width,
        strides=(2, 4, 5, 8),
        latent_dim=4 * width,
        n_codebooks=12,
    )


def _voice() -> CodecConfig:
    """Most of its work at low rates: the waveform is read 4,800 times a second, and units run at 50 Hz too."""
    return CodecConfig(
        name="voice-24k",
        sample_rate_hz=24_000,
        encoder_width=(64, 128, 256, 384),
        decoder_width=(384, 256, 128, 64),
        strides=(5, 4, 4, 6),
        latent_dim=64,
        n_codebooks=18,
        code_dim=33,
        dilations=((1, 3), (1, 3), (1, 3, 9), (1, 1, 1)),
        edge_kernel=3,
        latent_kernel=1,
        edge="strided",
    )


PRESETS: Mapping[str, CodecConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            _ours("base-24k", 32),
            _ours("tiny-24k", 16),
            _voice(),
            _dac("dac-16k", 16_000, (2, 4, 5, 8), 12),
            _dac("dac-24k", 24_000, (2, 4, 5, 8), 32),
            _dac("dac-44k", 44_100, (2, 4, 8, 8), 9),
        )
    }
)
"""The shapes that streamcodec knows by name."""
