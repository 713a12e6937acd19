"""`streamcodec plot`: a picture of an original beside what a codec made of it."""

from __future__ import annotations

from pathlib import Path

import click

from streamcodec.cli._options import OUTPUT_FILE
from streamcodec.files import printable, write_bytes


@click.command("plot")
@click.argument("original", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("decoded", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=OUTPUT_FILE, help="PNG.  [default: DECODED.png]")
@click.option("--no-align", is_flag=True, help="Leave delay and level as they are.")
def command(original: Path, decoded: Path, output: Path | None, no_align: bool) -> None:
    """Draw waveforms, spectrograms and their difference of ORIGINAL and DECODED."""
    from streamcodec.evaluation.alignment import align, fit_length
    from streamcodec.evaluation.plots import comparison_plot
    from streamcodec.evaluation.sound_files import read_sound
    from streamcodec.metrics.waveforms import resampled

    notes: list[str] = []
    reference, rate_hz = read_sound(original, notes)
    degraded = resampled(*read_sound(decoded, notes), rate_hz)
    for note in notes:
        click.echo(printable(note), err=True)
    degraded = fit_length(degraded, len(reference)) if no_align else align(reference, degraded, rate_hz)
    target = output or decoded.with_suffix(".png")
    write_bytes(target, comparison_plot(reference, degraded, rate_hz, (original.name, decoded.name)))
    click.echo(f"drew {printable(target)}")
