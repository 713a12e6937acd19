"""`streamcodec decode`: a `.scx` file to a sound file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from streamcodec.cli._options import INPUT_FILE, OUTPUT_FILE, json_option, model_options, print_json, progress_bar
from streamcodec.codec import Codec
from streamcodec.transcode import decode_file, open_scx_header


@click.command()
@click.argument("source", metavar="INPUT.scx", type=INPUT_FILE)
@click.argument("target", metavar="OUTPUT", type=OUTPUT_FILE)
@click.option("--strict", is_flag=True, help="Fail on a damaged or cut file instead of decoding what there is.")
@model_options
@json_option
def command(
    source: Path, target: Path, strict: bool, model: Path | None, backend: str, device: str, as_json: bool
) -> None:
    """Decode to .wav, .flac or .ogg at the original rate and length."""
    with source.open("rb") as file:
        total = open_scx_header(file).n_samples
    codec = Codec.load(model, backend=backend, device=device)
    with progress_bar(f"decode {source.name}", total) as advance:
        report = decode_file(codec, source, target, strict=strict, progress=advance)
    if as_json:
        print_json(asdict(report))
    else:
        click.echo(
            f"{target}: {report.n_samples / report.sample_rate_hz:.2f} s, "
            f"{report.channels} channel(s), {report.sample_rate_hz} Hz"
        )
    if report.problem:
        click.echo(f"TruncatedStream: {report.problem}", err=True)
    if report.lost_frames:
        click.echo(f"{report.lost_frames} frame(s) of damaged blocks were concealed", err=True)
    if report.clipped_samples:
        click.echo(f"{report.clipped_samples} sample(s) beyond full scale were clipped", err=True)
