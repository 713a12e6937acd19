"""`streamcodec tokenize`: a folder of sound to shards of codes."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from streamcodec.cli._options import (
    INCOMPLETE_EXIT_CODE,
    beam_option,
    bitrate_option,
    json_option,
    model_options,
    print_json,
)
from streamcodec.files import printable
from streamcodec.tokens.run import TokenOptions, TokenReport, tokenize_folder
from streamcodec.tokens.shards import FORMATS


@click.command()
@click.argument("in_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@bitrate_option
@beam_option
@model_options
@click.option("--jobs", type=click.IntRange(1), help="Threads; with --ray, workers.  [default: one per CPU core]")
@click.option("--batch", "batch_files", type=click.IntRange(1), default=16, show_default=True, help="Files on the GPU.")
@click.option("--format", "fmt", type=click.Choice(FORMATS), default="parquet", show_default=True)
@click.option("--shard-files", type=click.IntRange(1), default=256, show_default=True, help="Most files in a shard.")
@click.option("--shard-mb", type=click.IntRange(1), default=256, show_default=True, help="Most MB of their source.")
@click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster; `local` starts one, `auto` finds one.")
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be tokenised whole.")
@json_option
def command(
    in_dir: Path,
    out_dir: Path,
    bitrate_kbps: float,
    beam: int,
    model: Path | None,
    backend: str,
    device: str,
    jobs: int | None,
    batch_files: int,
    fmt: str,
    shard_files: int,
    shard_mb: int,
    ray: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Turn all sound below IN_DIR, mixed to mono, into shards of codes in OUT_DIR.

    Run it again after an interruption: finished shards stay, and the result is the same.  With --ray, every machine
    must find IN_DIR, OUT_DIR and --model under the same absolute path.

    Exit code: 0 all files are tokenised; 3 some could not be read, or not whole, are named here and in
    OUT_DIR/index.json, and all others are tokenised; 1 an error, also what --strict found; 2 wrong usage.
    """
    options = TokenOptions(
        model=model and model.resolve(),
        bitrate_bps=1000 * bitrate_kbps,
        beam=beam,
        backend=backend,
        device=device,
        format=fmt,
        jobs=jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)),
        batch_files=batch_files,
        shard_files=shard_files,
        shard_mb=shard_mb,
        ray=ray,
        strict=strict,
    )
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(f"tokenize {printable(in_dir.name)}", total=None)
        try:
            report = tokenize_folder(
                in_dir.resolve(),
                out_dir.resolve(),
                options,
                on_start=lambda n_bytes: progress.update(task, total=n_bytes),
                on_done=lambda n_bytes: progress.advance(task, n_bytes),
            )
        except KeyboardInterrupt as stopped:
            stopped.args = (f"{str(stopped) or 'stopped'}; the same command goes on after the last whole shard",)
            raise
    for problem in report.skipped:
        click.echo(printable(f"skipped {problem.path}: {problem.reason}"), err=True)
    for problem in report.incomplete:
        click.echo(printable(f"incomplete {problem.path}: {problem.reason}"), err=True)
    if as_json:
        print_json(asdict(report) | {"real_time_multiple": report.real_time_multiple})
    else:
        _print(out_dir, report)
    if report.skipped or report.incomplete:
        sys.exit(INCOMPLETE_EXIT_CODE)


def _print(out_dir: Path, report: TokenReport) -> None:
    click.echo(
        f"{printable(out_dir)}: {report.n_files} files, {report.duration_s / 3600:.3f} h, {report.n_tokens} tokens in "
        f"{report.n_frames} frames, {report.n_shards} shards, {report.n_bytes / 1e6:.1f} MB; "
        f"{len(report.skipped)} files skipped, {len(report.incomplete)} incomplete"
    )
    click.echo(
        f"made {report.shards_made} shards now: {report.made_s / 3600:.3f} h of sound in {report.wall_s:.1f} s, "
        f"{report.real_time_multiple:.1f} x real time"
    )
