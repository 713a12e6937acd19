"""Shapes small enough to test with, and weights for them."""

from __future__ import annotations

from pathlib import Path

from network_reference import random_weights

from streamcodec.checkpoint import Checkpoint, save_checkpoint
from streamcodec.config import CodecConfig

SMALL = CodecConfig(
    name="small",
    sample_rate_hz=24_000,
    encoder_width=2,
    decoder_width=32,
    strides=(2, 4, 5, 8),
    latent_dim=8,
    n_codebooks=4,
    codebook_size=256,
    code_dim=4,
)

STRIDED = CodecConfig(
    name="strided",
    sample_rate_hz=24_000,
    encoder_width=(7, 12, 40),
    decoder_width=(44, 16, 9),
    strides=(5, 2, 4),
    latent_dim=12,
    n_codebooks=4,
    codebook_size=256,
    code_dim=5,
    dilations=((1, 3), (2,), (1, 1)),
    edge_kernel=3,
    latent_kernel=1,
    edge="strided",
)
"""Its first stride reads the waveform; widths and units stage by stage."""


def small_checkpoint(path: Path, seed: int = 0, config: CodecConfig = SMALL) -> Checkpoint:
    """Write drawn weights to `path`."""
    return save_checkpoint(path, config, random_weights(config, seed))
