"""`streamcodec loopback`: sound through encoder and decoder in real time."""

from __future__ import annotations

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
from streamcodec.live.file_loopback import run_file_loopback


@click.command()
@click.option("--input", "source", type=INPUT_FILE, help="Sound file.  [default: the speech sample of the package]")
@click.option("--output", "target", type=OUTPUT_FILE, required=True, help="Where the decoded sound goes.")
@click.option("--fast", is_flag=True, help="As fast as it goes instead of at the pace of the clock.")
@bitrate_option
@model_options
@json_option
def command(
    source: Path | None,
    target: Path,
    fast: bool,
    bitrate_kbps: float,
    model: Path | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Play a file through the codec frame by frame and report latency, deadline misses and bitrate."""
    codec = Codec.load(model, backend=backend, device=device)
    source = source or sample_path()
    seconds = audio_info(source).duration_s
    with progress_bar(f"loopback {source.name}", seconds * codec.config.frame_rate_hz) as advance:
        report = run_file_loopback(codec, source, target, 1000 * bitrate_kbps, paced=not fast, progress=advance)
    if as_json:
        print_json(report.as_dict())
        return
    click.echo(f"{target}: {report.audio_s:.2f} s in {report.frames} frames, {codec.config.name}, {codec.engine.name}")
    if report.paced:
        click.echo(f"latency (first sample in to decoded): {report.latency}")
    click.echo(f"compute per frame: {report.compute}")
    click.echo(
        f"deadline misses {report.deadline_misses} of {report.frames}, "
        f"real-time factor {report.real_time_factor:.3f}, bitrate {report.bitrate_bps / 1000:.3f} kbps"
    )


def sample_path() -> Path:
    """The speech sample that comes with the package."""
    from importlib.resources import files

    return Path(str(files("streamcodec") / "assets" / "speech.flac"))
