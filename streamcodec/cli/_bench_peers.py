"""`streamcodec bench peers`: our speed beside that of other codecs."""

from __future__ import annotations

from pathlib import Path

import click

from streamcodec.cli._options import OUTPUT_FILE
from streamcodec.files import write_text

_DEFAULT = "tiny-24k,base-24k,opus,encodec,dac,mimi"


@click.command("peers")
@click.option("--codecs", default=_DEFAULT, show_default=True, help="Comma-separated; the first is the measure.")
@click.option("--seconds", default=4.0, show_default=True, type=click.FloatRange(0.5, 60), help="Sound in one round.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000), help="Turns that each codec has.")
@click.option("--json", "json_path", type=OUTPUT_FILE, help="Write everything as JSON.")
def command(codecs: str, seconds: float, rounds: int, json_path: Path | None) -> None:
    """Time codecs in turns on one thread: real-time factors (time over duration), latency, weights, MACs."""
    from rich.console import Console
    from rich.progress import Progress

    from streamcodec.evaluation.speed import CONTESTANTS, machine, measure, speed_json, speed_table

    names = [name.strip() for name in codecs.split(",") if name.strip()]
    unknown = next((name for name in names if name not in CONTESTANTS), None)
    if unknown or not names:
        raise click.UsageError(f"--codecs {unknown}: choose from {', '.join(CONTESTANTS)}")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("timing", total=None)
        speeds, notes = measure(
            names, seconds, rounds, lambda done, total: bar.update(task, completed=done, total=total)
        )
    for note in notes:
        click.echo(note, err=True)
    for fact, value in machine().items():
        click.echo(f"{fact}: {value}")
    click.echo(
        f"\n{speed_table(speeds)}\n\nencode, decode: median time over duration; below 1 is faster than real time."
    )
    if json_path:
        write_text(json_path, speed_json(speeds, notes))
