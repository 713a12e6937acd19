"""The network as data: the only place that knows the order of its layers.

Encoder and decoder are tuples of layer records.  `nn/`, every engine and every exporter build from them.
Activations are channels-last, [T, C].  Weights, by name (`encoder.3.weight`, inside a residual unit
`encoder.3.1.weight`):

=================  ======================================  ============================
record             arrays                                  output rows for T input rows
=================  ======================================  ============================
Conv               weight [kernel, in, out], bias [out]    T / stride
Conv, depthwise    weight [kernel, channels], bias [ch.]   T
ConvTranspose      weight [in, kernel, out], bias [out]    T * stride
Snake              alpha [channels], > 0                   T
Residual           those of its body                       T
Tanh               none                                    T
=================  ======================================  ============================

Causal with zero history: row i of a Conv sees input rows up to (i + 1) * stride - 1, its last tap there;
a ConvTranspose adds weight[:, j] of input row i to output row i * stride + j, and keeps what reaches past
the end for the next step.  So a row never waits for a later one, and history is `history_rows` long.

The quantiser's arrays, for each codebook k: `quantizer.{k}.in_weight` [latent, D], `quantizer.{k}.in_bias` [D],
`quantizer.{k}.codebook` [N, D] with rows of unit length, `quantizer.{k}.out_weight` [D, latent],
`quantizer.{k}.out_bias` [latent].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamcodec.config import CodecConfig


@dataclass(frozen=True)
class Conv:
    """Convolution over time; `depthwise` gives every channel its own taps."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False

    @property
    def span(self) -> int:
        """Input rows between the first and the last tap, both counted."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def history_rows(self) -> int:
        """Input rows of the past that a stream keeps."""
        return max(0, self.span - self.stride)

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of this layer, by name."""
        pair = (self.out_channels,) if self.depthwise else (self.in_channels, self.out_channels)
        return {"weight": (self.kernel, *pair), "bias": (self.out_channels,)}


@dataclass(frozen=True)
class ConvTranspose:
    """Transposed convolution over time (overlap-add)."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int

    @property
    def history_rows(self) -> int:
        """Output rows that reach past the end and that a stream keeps."""
        return max(0, self.kernel - self.stride)

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of this layer, by name."""
        return {"weight": (self.in_channels, self.kernel, self.out_channels), "bias": (self.out_channels,)}


@dataclass(frozen=True)
class Snake:
    """x + sin^2(alpha x) / alpha, per channel (Ziyin et al. 2020)."""

    channels: int

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of this layer, by name."""
        return {"alpha": (self.channels,)}


@dataclass(frozen=True)
class Tanh:
    """Bounds the waveform."""

    channels: int

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of this layer, by name."""
        return {}


@dataclass(frozen=True)
class Residual:
    """Adds what its body makes of the input to the input."""

    body: tuple[Snake, Conv, Snake, Conv]


Layer = Conv | ConvTranspose | Snake | Tanh | Residual
Leaf = Conv | ConvTranspose | Snake | Tanh


def _residual_units(config: CodecConfig, channels: int, dilations: tuple[int, ...]) -> list[Layer]:
    return [
        Residual(
            (
                Snake(channels),
                Conv(
                    channels,
                    channels,
                    config.residual_kernel,
                    dilation=dilation,
                    depthwise=config.depthwise,
                ),
                Snake(channels),
                Conv(channels, channels, 1),
            )
        )
        for dilation in dilations
    ]


def encoder_layers(config: CodecConfig) -> tuple[Layer, ...]:
    """Layers from waveform [T, 1] to latent [F, latent_dim]."""
    widths, dilations, strides = config.encoder_widths, config.stage_dilations, config.strides
    first = Conv(1, widths[0], config.edge_kernel)
    if config.edge == "strided":
        first, strides = Conv(1, widths[0], 2 * strides[0], stride=strides[0]), strides[1:]
    layers: list[Layer] = [first, *_residual_units(config, widths[0], dilations[0])]
    for i, stride in enumerate(strides):
        layers += [Snake(widths[i]), Conv(widths[i], widths[i + 1], 2 * stride, stride=stride)]
        layers += _residual_units(config, widths[i + 1], dilations[i + 1])
    layers += [Snake(widths[-1]), Conv(widths[-1], config.latent_dim, config.latent_kernel)]
    return tuple(layers)


def decoder_layers(config: CodecConfig) -> tuple[Layer, ...]:
    """Layers from latent [F, latent_dim] to waveform [T, 1]."""
    widths, dilations, strides = config.decoder_widths, config.stage_dilations[::-1], config.strides[::-1]
    last: Layer = Conv(widths[-1], 1, config.edge_kernel)
    if config.edge == "strided":
        last, strides = ConvTranspose(widths[-1], 1, 2 * strides[-1], strides[-1]), strides[:-1]
    layers: list[Layer] = [Conv(config.latent_dim, widths[0], config.edge_kernel)]
    layers += _residual_units(config, widths[0], dilations[0])
    for i, stride in enumerate(strides):
        layers += [Snake(widths[i]), ConvTranspose(widths[i], widths[i + 1], 2 * stride, stride)]
        layers += _residual_units(config, widths[i + 1], dilations[i + 1])
    layers += [Snake(widths[-1]), last, Tanh(1)]
    return tuple(layers)


def named_leaves(prefix: str, layers: tuple[Layer, ...]) -> Iterator[tuple[str, Leaf]]:
    """Every layer that holds arrays or computes, with its name, in order of execution."""
    for i, layer in enumerate(layers):
        if isinstance(layer, Residual):
            body: tuple[Leaf, ...] = layer.body
            for j, inner in enumerate(body):
                yield f"{prefix}.{i}.{j}", inner
        else:
            yield f"{prefix}.{i}", layer


def array_shapes(config: CodecConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a checkpoint, by name, in a fixed order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, layers in (("encoder", encoder_layers(config)), ("decoder", decoder_layers(config))):
        for name, leaf in named_leaves(prefix, layers):
            shapes |= {f"{name}.{key}": shape for key, shape in leaf.array_shapes.items()}
    latent, dim = config.latent_dim, config.code_dim
    for k in range(config.n_codebooks):
        shapes |= {
            f"quantizer.{k}.in_weight": (latent, dim),
            f"quantizer.{k}.in_bias": (dim,),
            f"quantizer.{k}.codebook": (config.codebook_size, dim),
            f"quantizer.{k}.out_weight": (dim, latent),
            f"quantizer.{k}.out_bias": (latent,),
        }
    return shapes


@dataclass(frozen=True)
class Footprint:
    """What running one stream of a model costs.

    Parameters
    ----------
    weights : int
        Numbers in the checkpoint.
    encoder_macs_per_s, decoder_macs_per_s : float
        Multiply-accumulates for one second of audio, the quantiser's search counted with the encoder.
    encoder_state_bytes, decoder_state_bytes : int
        float32 history that one stream keeps.
    encoder_field_samples, decoder_field_samples : int
        Receptive field: samples (encoder: of input per latent frame; decoder: of output that one latent frame touches).
    """

    weights: int
    encoder_macs_per_s: float
    decoder_macs_per_s: float
    encoder_state_bytes: int
    decoder_state_bytes: int
    encoder_field_samples: int
    decoder_field_samples: int


def footprint(config: CodecConfig) -> Footprint:
    """Derive a model's costs from its layers."""
    encoder = [leaf for _, leaf in named_leaves("encoder", encoder_layers(config))]
    decoder = [leaf for _, leaf in named_leaves("decoder", decoder_layers(config))]
    encoder_field = _field(list(reversed(encoder)))
    search = config.n_codebooks * config.code_dim * (2 * config.latent_dim + config.codebook_size)
    weights = 0
    for shape in array_shapes(config).values():
        size = 1
        for extent in shape:
            size *= extent
        weights += size
    lookup = config.n_codebooks * config.code_dim * config.latent_dim
    return Footprint(
        weights=weights,
        encoder_macs_per_s=_macs_per_s(encoder, config.sample_rate_hz) + search * config.frame_rate_hz,
        decoder_macs_per_s=_macs_per_s(decoder, config.frame_rate_hz) + lookup * config.frame_rate_hz,
        encoder_state_bytes=4 * _state_values(encoder),
        decoder_state_bytes=4 * _state_values(decoder),
        encoder_field_samples=encoder_field,
        decoder_field_samples=_field(decoder),
    )


def _state_values(leaves: list[Leaf]) -> int:
    total = 0
    for leaf in leaves:
        if isinstance(leaf, Conv):
            total += leaf.history_rows * leaf.in_channels
        elif isinstance(leaf, ConvTranspose):
            total += leaf.history_rows * leaf.out_channels
    return total


def _macs_per_s(leaves: list[Leaf], rate_hz: float) -> float:
    total = 0.0
    for leaf in leaves:
        if isinstance(leaf, Conv):
            rate_hz /= leaf.stride
            total += rate_hz * leaf.kernel * leaf.out_channels * (1 if leaf.depthwise else leaf.in_channels)
        elif isinstance(leaf, ConvTranspose):
            total += rate_hz * leaf.in_channels * leaf.kernel * leaf.out_channels
            rate_hz *= leaf.stride
    return total


def _field(leaves: list[Leaf]) -> int:
    """Samples that one latent row reaches, walking from the latent towards the waveform."""
    rows = 1
    for leaf in leaves:
        if isinstance(leaf, Conv):
            rows = (rows - 1) * leaf.stride + leaf.span
        elif isinstance(leaf, ConvTranspose):
            rows = (rows - 1) * leaf.stride + leaf.kernel
    return rows
