"""Codecs ready to be timed: one call encodes a stretch of sound, one decodes it, the way each can run live.

Time does not depend on the values of weights, so networks whose weights are not at hand run with random ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from streamcodec import Codec
from streamcodec.architecture import array_shapes, footprint
from streamcodec.checkpoint import Checkpoint, model_id_of
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.engine.select import create_engine
from streamcodec.errors import MissingExtraError
from streamcodec.metrics.waveforms import Float32

OPUS_LOOK_AHEAD_MS = 6.5


@dataclass(frozen=True)
class Contestant:
    """One codec to time.

    encode: sound float32 [T] at `sample_rate_hz` to whatever `decode` takes.  decode: that to float32 [T].
    latency_ms: frame and look-ahead; None where the whole clip must be there first.
    weights, macs_per_s: numbers in the network and multiply-accumulates for one second both ways, where known.
    """

    name: str
    how: str
    sample_rate_hz: int
    encode: Callable[[Float32], Any]
    decode: Callable[[Any], Float32]
    latency_ms: float | None
    weights: int | None = None
    macs_per_s: float | None = None


def random_codec(config: CodecConfig, seed: int = 0) -> Codec:
    """Our codec with random weights that keep activations at a natural size."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in array_shapes(config).items():
        kind = name.rpartition(".")[2]
        if kind == "alpha":
            array = np.ones(shape)
        elif kind.endswith("bias"):
            array = np.zeros(shape)
        elif kind == "codebook":
            array = rng.standard_normal(shape)
            array /= np.linalg.norm(array, axis=1, keepdims=True)
        else:
            array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) or 1)
        arrays[name] = array.astype(np.float32)
    checkpoint = Checkpoint(config, arrays, model_id_of(config, arrays))
    return Codec(checkpoint, create_engine(checkpoint, "cpu"))


def ours(preset: str, kbps: float) -> Contestant:
    """Our codec on the CPU engine, packet by packet by the public API, with random weights."""
    codec = random_codec(PRESETS[preset])
    hop = codec.frame_samples

    def encode(sound: Float32) -> list[bytes]:
        encoder = codec.encoder(bitrate_bps=1000 * kbps)
        return [encoder.encode(frame) for frame in sound[: len(sound) // hop * hop].reshape(-1, hop)]

    def decode(packets: list[bytes]) -> Float32:
        decoder = codec.decoder()
        return np.concatenate([decoder.decode(packet) for packet in packets])

    costs = footprint(codec.config)
    macs = costs.encoder_macs_per_s + costs.decoder_macs_per_s
    latency_ms = codec.config.algorithmic_latency_ms
    name = f"{preset} @{kbps:g}"
    return Contestant(name, "frame by frame", codec.sample_rate_hz, encode, decode, latency_ms, costs.weights, macs)


def opus(kbps: float) -> Contestant:
    """Libopus by PyAV, packet by packet, 20 ms frames, highest complexity."""
    try:
        import av
    except ImportError:
        raise MissingExtraError("av", "eval") from None
    rate_hz, frame_samples = 24_000, 480

    def encode(sound: Float32) -> tuple[list[Any], bytes | None]:
        encoder = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.format, encoder.layout = rate_hz, "flt", "mono"
        encoder.bit_rate, encoder.time_base = round(1000 * kbps), Fraction(1, rate_hz)
        encoder.options = {"application": "voip", "compression_level": "10", "frame_duration": "20"}
        packets: list[Any] = []
        for i, samples in enumerate(sound[: len(sound) // frame_samples * frame_samples].reshape(-1, 1, frame_samples)):
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, i * frame_samples, encoder.time_base
            packets += encoder.encode(frame)
        return [bytes(packet) for packet in packets], encoder.extradata

    def decode(stream: tuple[list[Any], bytes | None]) -> Float32:
        decoder = av.CodecContext.create("libopus", "r")
        decoder.sample_rate, decoder.layout, decoder.extradata = 48_000, "mono", stream[1]
        blocks = [frame.to_ndarray().reshape(-1) for data in stream[0] for frame in decoder.decode(av.Packet(data))]
        return np.concatenate(blocks)[::2].astype(np.float32) / np.float32(32768)

    latency_ms = 1000 * frame_samples / rate_hz + OPUS_LOOK_AHEAD_MS
    return Contestant(f"opus @{kbps:g}", "frame by frame", rate_hz, encode, decode, latency_ms)


def published(name: str, kbps: float) -> Contestant:
    """EnCodec, DAC or Mimi in their published shapes at 24 kHz by transformers, random weights, a clip at a time."""
    from streamcodec.evaluation.codecs.transformers import TransformersCodec, random_model

    codec = TransformersCodec(name, None, kbps, model=random_model(name))
    rate_hz = codec.rate_hz
    weights = sum(parameter.numel() for parameter in codec.model.parameters())
    second = np.zeros(rate_hz, np.float32)
    with codec.counted_macs() as macs:
        codec.decode(codec.encode(second))
    # What each needs to hear before it can answer, as published; DAC's convolutions look ahead over the whole clip.
    latency_ms = {"encodec": 1000 / 75, "mimi": 80.0}.get(name)
    label = f"{name} @{kbps:g}"
    return Contestant(label, "whole clip", rate_hz, codec.encode, codec.decode, latency_ms, weights, macs())
