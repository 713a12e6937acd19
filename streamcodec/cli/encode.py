"""`streamcodec encode`: a sound file to a `.scx` file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from streamcodec.audio.pcm import PCM_FORMATS, RawSound
from streamcodec.cli._options import (
    INCOMPLETE_EXIT_CODE,
    INPUT,
    OUTPUT,
    beam_option,
    bitrate_option,
    force_option,
    json_option,
    model_options,
    print_json,
    progress_bar,
    say,
)
from streamcodec.codec import Codec
from streamcodec.files import printable
from streamcodec.transcode import encode_file


@click.command()
@click.argument("source", metavar="INPUT", type=INPUT)
@click.argument("target", metavar="OUTPUT.scx", type=OUTPUT)
@click.option(
    "--format", "fmt", type=click.Choice(PCM_FORMATS), metavar="FORMAT",
    help=f"INPUT is bare samples: {', '.join(PCM_FORMATS)}.",
)  # fmt: skip
@click.option("--rate", "rate_hz", type=click.IntRange(1), metavar="HZ", help="Rate of bare samples.")
@click.option("--channels", type=click.IntRange(1), help="Channels of bare samples.  [default: 1]")
@force_option
@bitrate_option
@beam_option
@model_options
@json_option
def command(
    source: Path,
    target: Path,
    fmt: str | None,
    rate_hz: int | None,
    channels: int | None,
    force: bool,
    bitrate_kbps: float,
    beam: int,
    model: Path | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Encode a sound file; every channel is a stream of its own.

    INPUT and OUTPUT.scx may be pipes, and - is standard input or output.  A WAV, whose header may leave the length
    open, and bare samples (--format, --rate) are encoded as they come; other formats are taken whole from a pipe first.

    \b
      arecord -f S16_LE -r 48000 | streamcodec encode - talk.scx
      ffmpeg -i film.mkv -f s16le -ac 1 -ar 24000 - | streamcodec encode --format s16le --rate 24000 - - > film.scx

    OUTPUT.scx takes its name when it is complete.  It may replace an older .scx file, but no other file without
    --force, and never INPUT.

    Exit code: 0 all is encoded; 3 INPUT is damaged, cut or not as its header says: what is there is encoded, and the
    rest named here; 1 an error, nothing is written; 2 wrong usage.
    """  # noqa: D301 - click looks for the character itself
    if (fmt is None) != (rate_hz is None) or (fmt is None and channels is not None):
        raise click.UsageError(
            "--format, --rate and --channels are for bare samples: give --format and --rate, or none"
        )
    raw = None if fmt is None or rate_hz is None else RawSound(fmt, rate_hz, channels or 1)
    codec = Codec.load(model, backend=backend, device=device)
    codec.config.codebooks_for(1000 * bitrate_kbps)
    with progress_bar(f"encode {source.name}") as bar:
        report = encode_file(
            codec,
            source,
            target,
            1000 * bitrate_kbps,
            bar.advance,
            beam=beam,
            raw=raw,
            force=force,
            on_start=bar.start,
        )
    if as_json:
        print_json(asdict(report), target)
    else:
        say(
            f"{printable(target)}: {report.n_samples / report.sample_rate_hz:.2f} s, {report.channels} channel(s), "
            f"{report.n_bytes} bytes, {report.true_bps / 1000:.3f} kbps ({report.nominal_bps / 1000:g} nominal)",
            target,
        )
    if report.clamped_samples:
        click.echo(f"{report.clamped_samples} sample(s) beyond full scale were clamped", err=True)
    if report.problem:
        click.echo(printable(f"{source}: {report.problem}"), err=True)
        sys.exit(INCOMPLETE_EXIT_CODE)
