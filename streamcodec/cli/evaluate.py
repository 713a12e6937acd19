"""`streamcodec evaluate`: compare codecs on the same clips."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from streamcodec.cli._options import OUTPUT_FILE
from streamcodec.errors import StreamcodecError
from streamcodec.files import printable, write_bytes, write_text

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CODECS = "ours@3,ours@6,ours@9,opus@6,opus@12,opus@16,opus@24"
_RATE = click.IntRange(8000, 96_000)
_METRICS = "mel,stft,visqol,si_sdr,pesq,stoi"


def _default_cache() -> Path:
    """Where this user's caches belong on this system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "streamcodec" / "evaluate"


def _advance(bar: Any, task: Any, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _out(flag: str, name: str, text: str) -> Callable[[_Function], _Function]:
    return click.option(flag, name, type=OUTPUT_FILE, help=text)


@click.command("evaluate")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--corpus", multiple=True, type=click.Path(path_type=Path), help="The same as PATHS; may be repeated.")
@click.option("--codecs", default=_CODECS, show_default=True, help="NAME@KBPS or NAME:PATH@KBPS, comma-separated.")
@click.option("--ablations", type=click.Path(path_type=Path, file_okay=False), help="Compare the runs in this folder.")
@click.option("--ablation-kbps", default=6.0, show_default=True, help="Bitrate to compare the runs at.")
@click.option("--split", default="test", show_default=True, help="Split of a corpus to use.")
@click.option("--category", help="What sound files are: speech, music, environment.  [default: by folder name]")
@click.option("--clips", "count", default=60, show_default=True, type=click.IntRange(1), help="Most clips to use.")
@click.option(
    "--rate-hz", "rates_hz", type=_RATE, multiple=True, help="Rate to compare at; repeatable.  [default: 24000]"
)
@click.option("--metrics", "metric_names", default=_METRICS, show_default=True, help="Also there: visqol_speech.")
@click.option("--by-category", is_flag=True, help="Add lines for each category.")
@click.option("--jobs", type=click.IntRange(1), help="Worker processes.  [default: one a core]")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder that keeps scores.")
@click.option("--no-cache", is_flag=True, help="Compute everything anew and keep nothing.")
@_out("--csv", "csv_path", "Write the table as CSV.")
@_out("--json", "json_path", "Write the table and every clip's scores as JSON.")
@_out("--plot", "plot_path", "Draw quality against bitrate (PNG).")
@_out("--html", "html_path", "Write one page with table, plots and players.")
def command(
    paths: tuple[Path, ...],
    corpus: tuple[Path, ...],
    codecs: str,
    ablations: Path | None,
    ablation_kbps: float,
    split: str,
    category: str | None,
    count: int,
    rates_hz: tuple[int, ...],
    metric_names: str,
    by_category: bool,
    jobs: int | None,
    cache: Path | None,
    no_cache: bool,
    csv_path: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    html_path: Path | None,
) -> None:
    """Compare codecs on the same clips.

    PATHS are corpora, folders of sound files, or sound files.  Codecs are ours, opus, opus-cbr, encodec, dac, mimi
    and lyra; with ours:run/best.safetensors@3 any weights of ours, with dac:FOLDER@6 any of theirs.
    """
    from rich.console import Console
    from rich.progress import Progress

    from streamcodec.evaluation.ablations import ablation_table, find_runs
    from streamcodec.evaluation.cache import Row, ScoreCache
    from streamcodec.evaluation.clips import Clip, collect_clips, items_of_paths
    from streamcodec.evaluation.codecs import Spec
    from streamcodec.evaluation.entropy import code_statistics, entropy_text
    from streamcodec.evaluation.runner import evaluate
    from streamcodec.evaluation.scoring import choose_metrics
    from streamcodec.evaluation.table import as_csv, as_json, as_text, summarise

    places = [*corpus, *paths]
    if not places:
        raise click.UsageError("give something to evaluate on: a corpus, a folder or sound files")
    runs = find_runs(ablations) if ablations else []
    if runs:
        specs = [run.spec(ablation_kbps) for run in runs]
    else:
        specs = [Spec.parse(text) for text in codecs.split(",") if text.strip()]
    metrics, notes = choose_metrics(tuple(name.strip() for name in metric_names.split(",") if name.strip()))
    console = Console(stderr=True, highlight=False)
    items = items_of_paths(places, category, split)
    rows: list[Row] = []
    heard: list[Clip] = []
    for rate_hz in dict.fromkeys(rates_hz or (24_000,)):
        clips, left_out = collect_clips(items, rate_hz, count)
        heard = heard or clips
        console.print(f"{len(clips)} clips, {sum(clip.duration_s for clip in clips):.0f} s, at {rate_hz} Hz")
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("scoring", total=None)
            outcome = evaluate(
                clips,
                specs,
                metrics,
                jobs=jobs or os.cpu_count() or 1,
                cache=ScoreCache(None if no_cache else cache or _default_cache()),
                progress=partial(_advance, bar, task),
            )
        rows += outcome.rows
        notes += left_out + outcome.notes
    notes = list(dict.fromkeys(notes))
    for note in notes:
        click.echo(printable(note), err=True)
    if not rows:
        raise StreamcodecError("no codec could run; the lines above say why")
    summaries = summarise(rows, metrics, by_category)
    click.echo(ablation_table(runs, ablation_kbps, rows, metrics) if runs else as_text(summaries, metrics))
    first = [row for row in rows if row.sample_rate_hz == heard[0].sample_rate_hz]
    for statistics in [] if runs else code_statistics(first):
        click.echo("\n" + entropy_text(statistics))
    if csv_path:
        write_text(csv_path, as_csv(summaries, metrics))
    if json_path:
        settings = {"clips": len(heard), "metrics": list(metrics), "left_out": notes}
        write_text(json_path, as_json(summaries, rows, settings))
    if plot_path:
        from streamcodec.evaluation.plots import quality_plot

        write_bytes(plot_path, quality_plot(summaries, metrics))
    if html_path:
        from streamcodec.evaluation.report import html_report

        write_text(html_path, html_report(summaries, first, heard, specs, metrics, notes))


if __name__ == "__main__":
    command()
