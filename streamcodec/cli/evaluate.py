"""`streamcodec evaluate`: compare codecs on the same clips."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

_CODECS = "ours@3,ours@6,ours@9,opus@6,opus@12,opus@16,opus@24"


def _default_cache() -> Path:
    """Where this user's caches belong on this system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "streamcodec" / "evaluate"


@click.command("evaluate")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--corpus", multiple=True, type=click.Path(path_type=Path), help="Corpus, folder or file; may be repeated."
)
@click.option("--codecs", default=_CODECS, show_default=True, help="NAME@KBPS or NAME:PATH@KBPS, comma-separated.")
@click.option("--category", help="What the clips are: speech, music, environment.  [default: by folder name]")
@click.option("--clips", "count", default=60, show_default=True, type=click.IntRange(1), help="Most clips to use.")
@click.option(
    "--rate-hz", default=24_000, show_default=True, type=click.IntRange(8000, 96_000), help="Rate of the clips."
)
@click.option("--metrics", "metric_names", default="mel,stft,visqol,si_sdr,pesq,stoi", show_default=True)
@click.option("--by-category", is_flag=True, help="Add lines for each category.")
@click.option("--jobs", default=0, help="Worker processes.  [default: one a core]", type=click.IntRange(0))
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder to keep scores in.")
@click.option("--no-cache", is_flag=True, help="Compute everything anew and keep nothing.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as CSV.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write table and clips as JSON."
)
@click.option(
    "--plot", "plot_path", type=click.Path(path_type=Path, dir_okay=False), help="Draw quality against bitrate (PNG)."
)
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), help="Write one page with all of it."
)
def command(
    paths: tuple[Path, ...],
    corpus: tuple[Path, ...],
    codecs: str,
    category: str | None,
    count: int,
    rate_hz: int,
    metric_names: str,
    by_category: bool,
    jobs: int,
    cache: Path | None,
    no_cache: bool,
    csv_path: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    html_path: Path | None,
) -> None:
    """Compare codecs on the same clips: PATHS are corpora, folders or sound files."""
    from rich.console import Console
    from rich.progress import Progress

    from streamcodec.evaluation.cache import ScoreCache
    from streamcodec.evaluation.clips import collect_clips, items_of_paths
    from streamcodec.evaluation.codecs import Spec
    from streamcodec.evaluation.runner import evaluate
    from streamcodec.evaluation.scoring import choose_metrics
    from streamcodec.evaluation.table import as_csv, as_json, as_text, summarise

    places = [*corpus, *paths]
    if not places:
        raise click.UsageError("give something to evaluate on: --corpus DIR, or sound files")
    specs = [Spec.parse(text) for text in codecs.split(",") if text.strip()]
    metrics, notes = choose_metrics(tuple(name.strip() for name in metric_names.split(",")))
    err = Console(stderr=True)
    clips, left_out = collect_clips(items_of_paths(places, category), rate_hz, count)
    notes += left_out
    seconds = sum(clip.duration_s for clip in clips)
    err.print(f"{len(clips)} clips, {seconds:.0f} s, at {rate_hz} Hz", highlight=False)
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("scoring")
        outcome = evaluate(
            clips,
            specs,
            metrics,
            jobs=jobs or os.cpu_count() or 1,
            cache=ScoreCache(None if no_cache else cache or _default_cache()),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for note in [*notes, *outcome.notes]:
        click.echo(note, err=True)
    summaries = summarise(outcome.rows, metrics, by_category)
    click.echo(as_text(summaries, metrics))
    if csv_path:
        csv_path.write_text(as_csv(summaries, metrics), encoding="utf-8")
    if json_path:
        json_path.write_text(as_json(summaries, outcome.rows, {"sample_rate_hz": rate_hz}), encoding="utf-8")


if __name__ == "__main__":
    command()
