"""Options that several verbs share."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

F = TypeVar("F", bound=Callable[..., Any])

INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)


def model_options(function: F) -> F:
    """Add --model, --backend and --device."""
    for option in (
        click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
        click.option("--backend", type=click.Choice(["auto", "cpu", "torch"]), default="auto", show_default=True),
        click.option("--model", type=INPUT_FILE, help="Weights, .safetensors.  [default: those of the package]"),
    ):
        function = option(function)
    return function


bitrate_option = click.option(
    "--bitrate", "bitrate_kbps", type=float, default=6.0, show_default=True, metavar="KBPS", help="kbit/s per channel."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@contextmanager
def progress_bar(what: str, total: float | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr where that is a terminal; yields a function that advances it."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda amount: progress.advance(task, amount)


def print_json(report: dict[str, Any]) -> None:
    """Write a report to stdout; what was never measured, NaN here, is null: JSON has no NaN."""
    click.echo(json.dumps(_without_nan(report), indent=1, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
