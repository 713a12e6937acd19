"""`streamcodec corpus`: make the training corpus, look at it, cut a part of it for carrying elsewhere."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamcodec.errors import CorpusError
from streamcodec.locks import folder_in_use
from streamcodec.training.corpus.build import (
    Folder,
    OnFile,
    build_folder,
    build_package,
    is_finished,
    prepare_out,
)
from streamcodec.training.corpus.catalogue import CATEGORIES, Package, choose_packages
from streamcodec.training.corpus.download import fetch_package
from streamcodec.training.corpus.index import read_json, write_index
from streamcodec.training.corpus.pack import HELD_OUT_SHARE
from streamcodec.training.corpus.pack import pack as pack_corpus
from streamcodec.training.corpus.reader import Corpus
from streamcodec.training.corpus.report import COLUMNS, summarise

_DIR = click.Path(file_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Make the training corpus, look at it, pack a part of it."""


def _names(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@command.command()
@click.option("--out", type=_DIR, required=True, help="Folder of the corpus; an interrupted build goes on there.")
@click.option("--download-dir", type=_DIR, help="Packages are looked for and kept here [default: OUT/packages].")
@click.option("--packages", callback=_names, default="", metavar="A,B", help="Only these packages.")
@click.option("--exclude", callback=_names, default="", metavar="A,B", help="Not these (0ad-data is 1.3 GB).")
@click.option(
    "--from-folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Your own audio instead."
)
@click.option("--category", type=click.Choice(CATEGORIES), help="What --from-folder holds.")
@click.option("--licence", default="own audio, licence not stated", help="Licence of --from-folder.")
@click.option("--name", help="Name of --from-folder in the index [default: the folder's name].")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Packages built at a time.")
@click.option("--verbose", is_flag=True, help="Name every dropped file.")
def build(
    out: Path,
    download_dir: Path | None,
    packages: tuple[str, ...],
    exclude: tuple[str, ...],
    from_folder: Path | None,
    category: str | None,
    licence: str,
    name: str | None,
    jobs: int,
    verbose: bool,
) -> None:
    """Build a 24 kHz corpus from free Debian packages or from your own audio.

    The first folder below --from-folder names the speaker or album: nobody is in two splits.  With fewer than three
    such folders, as in a flat folder of recordings, the files themselves are split.

    A package that cannot be fetched or read is left out and named; the same command tries it again.
    """
    if (from_folder is None) != (category is None):
        raise click.UsageError("--from-folder and --category go together")
    if from_folder is not None and (packages or exclude):
        raise click.UsageError("--from-folder builds your own audio; run a second build for --packages")
    chosen = choose_packages(packages, exclude) if from_folder is None else ()
    prepare_out(out)
    failed: list[str] = []
    with folder_in_use(out):
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as progress:
            if from_folder is not None and category is not None:
                folder = Folder(from_folder, category, licence, name or "")
                build_folder(out, folder, _counter(progress, folder.name))
            else:
                failed = _build_packages(out, download_dir or out / "packages", chosen, jobs, progress)
        if failed and not any((out / "records").iterdir()):
            more = f" (and {len(failed) - 1} more like this)" if len(failed) > 1 else ""
            raise CorpusError(f"no package could be built: {failed[0]}{more}")
        write_index(out)
    _print_report(out, verbose)
    if failed:
        raise CorpusError("the corpus is ready without these; run the same command again: " + "; ".join(failed))


def _counter(progress: Progress, name: str) -> OnFile:
    task = progress.add_task(name, total=None, detail="")
    count = {"files": 0, "seconds": 0.0}

    def on_file(_path: str, _why: str, seconds: float) -> None:
        count["files"] += 1
        count["seconds"] += seconds
        progress.update(task, detail=f"{count['files']:.0f} files, {count['seconds'] / 60:.1f} min kept")

    return on_file


def _build_packages(
    out: Path, download_dir: Path, packages: tuple[Package, ...], jobs: int, progress: Progress
) -> list[str]:
    """Build what is not there yet; returns a line for each package that could not be built."""
    overall = progress.add_task("packages", total=len(packages), detail="")
    left = [package for package in packages if not is_finished(out, package.name)]
    progress.advance(overall, len(packages) - len(left))
    failed: list[str] = []

    def fetch(package: Package) -> Path | None:
        progress.update(overall, detail=f"fetching {package.name}")
        try:
            return fetch_package(package.name, download_dir)
        except CorpusError as error:
            failed.append(str(error))
            return None

    if jobs == 1:
        for package in left:
            deb = fetch(package)
            progress.update(overall, detail=package.name)
            try:
                if deb is not None:
                    build_package(out, package, deb, _counter(progress, package.name))
            except CorpusError as error:
                failed.append(str(error))
            progress.advance(overall)
        return failed
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        fetched = ((package, fetch(package)) for package in left)
        running = {pool.submit(build_package, out, package, deb): package.name for package, deb in fetched if deb}
        for done in as_completed(running):
            try:
                done.result()
            except CorpusError as error:
                failed.append(str(error))
            progress.advance(overall)
            progress.update(overall, detail=f"{running[done]} finished")
    return failed


@command.command()
@click.argument("corpus", type=_DIR)
@click.option("--verbose", is_flag=True, help="Name every dropped file.")
def info(corpus: Path, verbose: bool) -> None:
    """Print the hours of CORPUS by category, bandwidth and licence."""
    _print_report(corpus, verbose)


@command.command()
@click.argument("corpus", type=_DIR)
@click.option("--out", type=_DIR, required=True, help="A new folder for the pack.")
@click.option("--megabytes", type=click.FloatRange(min=0, min_open=True), required=True, help="Size of the pack.")
@click.option("--kbps", type=click.FloatRange(16, 256), help="Code training shards anew, so that more hours fit.")
@click.option(
    "--held-out", type=click.FloatRange(0, 1), default=HELD_OUT_SHARE, help="Most of it for validation and test."
)
def pack(corpus: Path, out: Path, megabytes: float, kbps: float | None, held_out: float) -> None:
    """Copy a balanced part of CORPUS, at most --megabytes large, for training elsewhere."""
    pack_corpus(corpus, out, megabytes, kbps, held_out)
    _print_report(out, False)


def _print_report(root: Path, verbose: bool) -> None:
    console = Console()
    corpus = Corpus.open(root)
    report = summarise(corpus.items)
    for attribute, title in (("by_split", "category"), ("by_bandwidth", "bandwidth"), ("by_licence", "licence")):
        columns = COLUMNS[attribute]
        table = Table(title, *(f"{column} h" for column in columns), "sum h")
        for row, hours in report.rows(getattr(report, attribute), columns):
            table.add_row(row, *(f"{value:.2f}" for value in (*hours, sum(hours))))
        console.print(table)
    dropped = read_json(root / "index.json")["dropped"]
    reasons = Counter(why.split(":")[0] for _, _, why in dropped)
    for category in sorted({item.category for item in corpus.items}):
        for split in ("validation", "test"):
            if (category, split) not in report.by_split:
                console.print(
                    f"note: {split} has no {category}; add recordings or, for each speaker or album, a folder"
                )
    if reasons:
        console.print("dropped files: " + ", ".join(f"{count} {why}" for why, count in reasons.most_common()))
    for source, path, why in dropped:
        if verbose or why.startswith("unreadable"):
            console.print(f"{source}: {path}: {why}", markup=False, highlight=False, soft_wrap=True)
