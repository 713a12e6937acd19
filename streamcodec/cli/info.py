"""`streamcodec info`: what a preset, a weights file or a coded file is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from streamcodec.architecture import footprint
from streamcodec.cli._options import json_option, print_json, say
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.errors import ConfigError


@click.command()
@click.argument("what", required=False, metavar="[PRESET|FILE]")
@click.option("--warmup", is_flag=True, help="Compile the CPU engine's kernels ahead, for a quick start later.")
@json_option
def command(what: str | None, warmup: bool, as_json: bool) -> None:
    """Describe a preset, a .safetensors or .scx file, or the default model; without torch."""
    if what is not None and what.endswith(".scx"):
        facts = _scx_facts(Path(what))
    elif what is not None and what in PRESETS:
        facts = _config_facts(PRESETS[what])
    elif what is None or Path(what).is_file():
        facts = _checkpoint_facts(None if what is None else Path(what))
    else:
        raise ConfigError(f"{what!r} is no preset ({', '.join(PRESETS)}) and no file")
    if warmup:
        facts |= _warm_up()
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        plain = isinstance(value, bool) or not isinstance(value, int)
        table.add_row(name, str(value) if plain else f"{value:,}")
    printed = io.StringIO()
    Console(file=printed, soft_wrap=True).print(table)
    say(printed.getvalue().rstrip("\n"))


def _config_facts(config: CodecConfig) -> dict[str, Any]:
    cost = footprint(config)
    return {
        "name": config.name,
        "sample_rate_hz": config.sample_rate_hz,
        "hop_samples": config.hop_samples,
        "frame_rate_hz": round(config.frame_rate_hz, 4),
        "n_codebooks": config.n_codebooks,
        "codebook_size": config.codebook_size,
        "bitrate_step_bps": round(config.bitrate_step_bps, 2),
        "max_bitrate_bps": round(config.max_bitrate_bps, 2),
        "packet_bytes": f"{config.packet_bytes(1)} to {config.packet_bytes(config.n_codebooks)}",
        "can_stream": config.causal,
        "algorithmic_latency_ms": round(config.algorithmic_latency_ms, 3) if config.causal else "whole file",
        "weights": cost.weights,
        "encoder_gmac_per_s": round(cost.encoder_macs_per_s / 1e9, 3),
        "decoder_gmac_per_s": round(cost.decoder_macs_per_s / 1e9, 3),
        "encoder_state_bytes": cost.encoder_state_bytes,
        "decoder_state_bytes": cost.decoder_state_bytes,
        "encoder_receptive_field_samples": cost.encoder_field_samples,
        "decoder_receptive_field_samples": cost.decoder_field_samples,
    }


def _checkpoint_facts(path: Path | None) -> dict[str, Any]:
    from streamcodec.checkpoint import load_checkpoint
    from streamcodec.engine.select import create_engine

    checkpoint = load_checkpoint(path)
    facts = {"model_id": checkpoint.model_id.hex()} | _config_facts(checkpoint.config)
    if checkpoint.config.causal:
        facts["engine"] = create_engine(checkpoint).name
    return facts


def _scx_facts(path: Path) -> dict[str, Any]:
    from streamcodec.transcode import scx_header

    header = scx_header(path)
    seconds = None if header.n_samples is None else header.n_samples / header.sample_rate_hz
    return {
        "model_id": header.model_id.hex(),
        "sample_rate_hz": header.sample_rate_hz,
        "codec_rate_hz": header.codec_rate_hz,
        "hop_samples": header.hop_samples,
        "channels": header.channels,
        "n_codebooks": header.n_codebooks,
        "bits_per_code": header.bits_per_code,
        "bitrate_bps": header.bitrate_bps,
        "n_samples": header.n_samples,
        "duration_s": seconds,
        "block_frames": header.block_frames,
        "file_bytes": path.stat().st_size,
    }


def _warm_up() -> dict[str, Any]:
    import time

    from streamcodec.codec import Codec

    begun = time.perf_counter()
    codec = Codec.load()
    import numpy as np

    codec.detokenize(codec.tokenize(np.zeros(codec.frame_samples, np.float32)))
    return {"warm_up_s": round(time.perf_counter() - begun, 3)}
