"""The network in plain numpy over a whole clip, in float64: what every engine must agree with.

Built from `architecture.py` and the kernels' references, with nothing of any engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamcodec.architecture import (
    Conv,
    ConvTranspose,
    Layer,
    Residual,
    Snake,
    array_shapes,
    decoder_layers,
    encoder_layers,
)
from streamcodec.config import CodecConfig
from streamcodec_kernels.beam_search.reference import beam_search
from streamcodec_kernels.code_lookup.reference import code_lookup
from streamcodec_kernels.conv_transpose.reference import conv_transpose
from streamcodec_kernels.nearest_code.reference import nearest_code
from streamcodec_kernels.snake.reference import snake

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]
Weights = Mapping[str, Float32]

QUANTIZER = ("in_weight", "in_bias", "codebook", "out_weight", "out_bias")


def random_weights(config: CodecConfig, seed: int = 0) -> dict[str, Float32]:
    """Weights that keep activations of the order of one."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Float32] = {}
    for name, shape in array_shapes(config).items():
        kind = name.rsplit(".", 1)[1]
        values = rng.standard_normal(shape)
        if kind == "alpha":
            values = np.exp(0.3 * values)
        elif kind == "codebook":
            values /= np.linalg.norm(values, axis=-1, keepdims=True)
        elif kind == "weight":
            transposed = len(shape) == 3 and name.startswith("decoder") and _is_transposed(config, name)
            fan_in = shape[0] * 2 if transposed else int(np.prod(shape[:-1]))
            values *= 0.7 / np.sqrt(fan_in)
        elif kind in ("in_weight", "out_weight"):
            values /= np.sqrt(shape[0])
        else:
            values *= 0.05
        weights[name] = values.astype(np.float32)
    return weights


def _is_transposed(config: CodecConfig, name: str) -> bool:
    return isinstance(decoder_layers(config)[int(name.split(".")[1])], ConvTranspose)


def run_layers(prefix: str, layers: tuple[Layer, ...], weights: Weights, x: Float64) -> Float64:
    """A chain of layers over a whole clip with zero history, in float64.  x: [T, C]."""
    for i, layer in enumerate(layers):
        name = f"{prefix}.{i}"
        if isinstance(layer, Residual):
            x = x + run_layers(name, layer.body, weights, x)
        elif isinstance(layer, Snake):
            x = snake(x, weights[f"{name}.alpha"])
        elif isinstance(layer, ConvTranspose):
            history = np.zeros((0, layer.in_channels))
            x = conv_transpose(x, weights[f"{name}.weight"], weights[f"{name}.bias"], layer.stride, history)[0]
        elif isinstance(layer, Conv):
            x = _conv(layer, weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"], x)
        else:
            x = np.tanh(x)
    return x


def _conv(layer: Conv, weight: Float64, bias: Float32, x: Float64) -> Float64:
    padded = np.concatenate([np.zeros((layer.span - 1, x.shape[1])), x])
    out = np.zeros((len(x) // layer.stride, layer.out_channels)) + bias
    for tap in range(layer.kernel):
        first = layer.stride - 1 + tap * layer.dilation
        seen = padded[first : first + len(x) - layer.stride + 1 : layer.stride]
        out = out + (seen * weight[tap] if layer.depthwise else seen @ weight[tap])
    return out


def encode_clip(config: CodecConfig, weights: Weights, waveform: Float32, beam: int = 1) -> Int16:
    """Codes [K, F] of a waveform [F * hop]; beam as in `Engine.encode_step`."""
    latents = run_layers("encoder", encoder_layers(config), weights, waveform[:, None].astype(np.float64))
    books = [np.stack([weights[f"quantizer.{k}.{n}"] for k in range(config.n_codebooks)]) for n in QUANTIZER]
    if beam > 1:
        codebook, out_weight, out_bias = books[2:]
        return np.stack([beam_search(latent, codebook, out_weight, out_bias, beam) for latent in latents], axis=1)
    return np.stack([nearest_code(latent, *books) for latent in latents], axis=1)


def decode_clip(config: CodecConfig, weights: Weights, codes: Sequence[Int16]) -> Float64:
    """Waveform of frames of codes, each [K], K from 0."""
    names = ("codebook", "out_weight", "out_bias")
    books = [np.stack([weights[f"quantizer.{k}.{n}"] for k in range(config.n_codebooks)]) for n in names]
    latents = np.stack([code_lookup(frame, *books) for frame in codes])
    return run_layers("decoder", decoder_layers(config), weights, latents)[:, 0]
