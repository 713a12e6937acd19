"""`streamcodec encode`: a sound file to a `.scx` file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from streamcodec.audio.files import audio_info
from streamcodec.cli._options import (
    INPUT_FILE,
    OUTPUT_FILE,
    bitrate_option,
    json_option,
    model_options,
    print_json,
    progress_bar,
)
from streamcodec.codec import Codec
from streamcodec.transcode import encode_file


@click.command()
@click.argument("source", metavar="INPUT", type=INPUT_FILE)
@click.argument("target", metavar="OUTPUT.scx", type=OUTPUT_FILE)
@bitrate_option
@model_options
@json_option
def command(
    source: Path, target: Path, bitrate_kbps: float, model: Path | None, backend: str, device: str, as_json: bool
) -> None:
    """Encode a sound file; every channel is a stream of its own."""
    codec = Codec.load(model, backend=backend, device=device)
    codec.config.codebooks_for(1000 * bitrate_kbps)
    with progress_bar(f"encode {source.name}", audio_info(source).n_samples) as advance:
        report = encode_file(codec, source, target, 1000 * bitrate_kbps, advance)
    if as_json:
        print_json(asdict(report))
        return
    click.echo(
        f"{target}: {report.n_samples / report.sample_rate_hz:.2f} s, {report.channels} channel(s), "
        f"{report.n_bytes} bytes, {report.true_bps / 1000:.3f} kbps ({report.nominal_bps / 1000:g} nominal)"
    )
    if report.clamped_samples:
        click.echo(f"{report.clamped_samples} sample(s) beyond full scale were clamped", err=True)
    if report.problem:
        click.echo(f"{source}: {report.problem}", err=True)
