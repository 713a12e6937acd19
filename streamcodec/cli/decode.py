"""`streamcodec decode`: a `.scx` file to a sound file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from streamcodec.audio.files import output_format
from streamcodec.audio.pcm import PCM_FORMATS, SOUND_FORMATS
from streamcodec.cli._options import (
    INCOMPLETE_EXIT_CODE,
    INPUT,
    OUTPUT,
    force_option,
    json_option,
    model_options,
    print_json,
    progress_bar,
    say,
)
from streamcodec.codec import Codec
from streamcodec.files import printable
from streamcodec.transcode import DecodeReport, decode_file

_FORMATS = (*SOUND_FORMATS, *PCM_FORMATS)


@click.command()
@click.argument("source", metavar="INPUT.scx", type=INPUT)
@click.argument("target", metavar="OUTPUT", type=OUTPUT)
@click.option(
    "--format", "fmt", type=click.Choice(_FORMATS), metavar="FORMAT",
    help=f"{', '.join(_FORMATS)}; those after ogg are bare samples.  [default: by OUTPUT's ending; wav for -]",
)  # fmt: skip
@click.option("--rate", "rate_hz", type=click.IntRange(1000, 768_000), metavar="HZ",
              help="Rate of OUTPUT.  [default: that of the original]")  # fmt: skip
@click.option("--strict", is_flag=True, help="Fail on a damaged or cut file instead of decoding what there is.")
@force_option
@model_options
@json_option
def command(
    source: Path,
    target: Path,
    fmt: str | None,
    rate_hz: int | None,
    strict: bool,
    force: bool,
    model: Path | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Decode to .wav, .flac or .ogg at the original rate and length.

    INPUT.scx and OUTPUT may be pipes, and - is standard input or output; what a pipe gets, it gets as it is decoded.

    \b
      streamcodec decode talk.scx - | aplay
      streamcodec decode --format s16le --rate 48000 - - < talk.scx | aplay -f S16_LE -r 48000

    OUTPUT takes its name when it is complete.  It may replace what an earlier decode made, but no other file without
    --force, and never INPUT.scx.

    Exit code: 0 all is decoded; 3 INPUT.scx is damaged, cut or followed by other bytes: what is lost is concealed or
    missing, and named here; 1 an error, nothing is written; 2 wrong usage.
    """  # noqa: D301 - click looks for the character itself
    output_format(target, fmt)
    codec = Codec.load(model, backend=backend, device=device)
    with progress_bar(f"decode {source.name}") as bar:
        report = decode_file(
            codec, source, target, strict=strict, progress=bar.advance, fmt=fmt, sample_rate_hz=rate_hz, force=force,
            on_start=bar.start,
        )  # fmt: skip
    if as_json:
        print_json(asdict(report), target)
    else:
        say(
            f"{printable(target)}: {report.n_samples / report.sample_rate_hz:.2f} s, "
            f"{report.channels} channel(s), {report.sample_rate_hz} Hz",
            target,
        )
    if report.clipped_samples:
        click.echo(f"{report.clipped_samples} sample(s) beyond full scale were clipped", err=True)
    if report.unread_bytes:
        click.echo(
            printable(
                f"{source}: {report.unread_bytes} bytes follow the end of the recording and were not decoded, as when "
                f"two files were joined; decode them apart. {target} holds what comes before."
            ),
            err=True,
        )
    if report.problem:
        click.echo(printable(_damage(report, source, target)), err=True)
    if report.problem or report.unread_bytes:
        sys.exit(INCOMPLETE_EXIT_CODE)


def _damage(report: DecodeReport, source: Path, target: Path) -> str:
    """What happened, and what to do."""
    text = (report.problem or "").rstrip(".").replace(": ", f": {source}: ", 1)
    if report.lost_frames:
        text += f"; {report.lost_frames} frame(s) of damaged blocks, {report.lost_s:.2f} s, were concealed"
    seconds = report.n_samples / report.sample_rate_hz
    return f"{text}. {target} was written, {seconds:.2f} s; to hear what is lost, get a whole copy of {source.name}."
