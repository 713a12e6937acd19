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
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from streamcodec.errors import AudioError
from streamcodec.files import STDIN, STDOUT, descriptor, printable
from streamcodec_kernels.beam_search import MAX_BEAM

F = TypeVar("F", bound=Callable[..., Any])

INCOMPLETE_EXIT_CODE = 3
"""All is done but for what is named on stderr."""

INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class FileOrStream(click.Path):
    """A file, or `-` for a standard stream; a file of that name is `./-`."""

    def __init__(self, stream: Path) -> None:
        super().__init__(exists=stream == STDIN, dir_okay=False, path_type=Path)
        self._stream = stream

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn `-` into the path of the stream."""
        return self._stream if value == "-" else super().convert(value, param, ctx)


class ReportFile(click.Path):
    """A file for a table or a picture, which may replace an older one but no sound."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse a sound file that is there."""
        path: Any = super().convert(value, param, ctx)
        if path.is_file() and _is_sound(path):
            self.fail(f"{printable(path)} is a sound file, which this would replace; give another name.")
        return path


def _is_sound(path: Path) -> bool:
    """Whether a file is a `.scx` file or, by what is in it, sound."""
    from streamcodec.audio.contents import layout_of
    from streamcodec.bitstream import is_scx

    if is_scx(path):
        return True
    with path.open("rb") as file:
        try:
            return bool(layout_of(file).kind)
        except AudioError:
            return False


INPUT, OUTPUT, OUTPUT_FILE = FileOrStream(STDIN), FileOrStream(STDOUT), ReportFile()


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
beam_option = click.option(
    "--beam", type=click.IntRange(1, MAX_BEAM), default=1, show_default=True,
    help="Chains of codes to choose from: more take longer and sound closer to the original, at the same bitrate.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


force_option = click.option(
    "--force", is_flag=True, help="Replace OUTPUT also where it is a file that streamcodec did not make."
)


class ProgressBar:
    """A bar on stderr; `advance` and `start` are for the reports of what runs."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def start(self, total: float | None) -> None:
        """Say how much there is to do; None where that is not known."""
        self._progress.update(self._task, total=total)

    def advance(self, amount: float) -> None:
        """Say that so much more is done."""
        self._progress.advance(self._task, amount)


@contextmanager
def progress_bar(what: str) -> Iterator[ProgressBar]:
    """Show a bar on stderr where that is a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield ProgressBar(progress, progress.add_task(printable(what), total=None))


def say(text: str, target: Path | None = None) -> None:
    """Print a line of a report; on stderr where `target`, the result, is itself standard output."""
    to_stderr = target is not None and descriptor(target) == 1
    try:
        click.echo(text, err=to_stderr)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard error" if to_stderr else "standard output") from None


def print_json(report: dict[str, Any], target: Path | None = None) -> None:
    """Write a report as `say` does; what was never measured, NaN here, is null: JSON has no NaN."""
    say(json.dumps(_without_nan(report), indent=1, allow_nan=False), target)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
