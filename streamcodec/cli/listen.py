"""`streamcodec listen`: a listening test, prepared, served and analysed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from streamcodec.cli._options import OUTPUT_FILE
from streamcodec.files import printable

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group("listen")
def command() -> None:
    """Compare codecs by ear (MUSHRA, ITU-R BS.1534-3)."""


@command.command("prepare")
@click.argument("folder", type=_FOLDER)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--codecs", default="ours@3,ours@6,opus@12", show_default=True, help="As in `evaluate`; at most 9.")
@click.option("--clips", "count", default=8, show_default=True, type=click.IntRange(1, 50), help="Clips to rate.")
@click.option(
    "--rate-hz", default=24_000, show_default=True, type=click.IntRange(8000, 48_000), help="Rate of the clips."
)
@click.option("--category", help="What sound files are.  [default: by folder name]")
@click.option("--split", default="test", show_default=True, help="Split of a corpus to use.")
@click.option("--seed", type=int, help="Make the same names and order again.")
def prepare(
    folder: Path, paths: tuple[Path, ...], codecs: str, count: int, rate_hz: int, category: str | None, split: str,
    seed: int | None,
) -> None:  # fmt: skip
    """Make a test in FOLDER from clips of PATHS (a corpus, folders, sound files)."""
    from rich.console import Console
    from rich.progress import Progress

    from streamcodec.evaluation.clips import collect_clips, items_of_paths
    from streamcodec.evaluation.codecs import Spec
    from streamcodec.listening.prepare import PAGE, write_test

    specs = [Spec.parse(text) for text in codecs.split(",") if text.strip()]
    clips, notes = collect_clips(items_of_paths(paths, category, split), rate_hz, count)
    for note in notes:
        click.echo(printable(note), err=True)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("coding", total=None)
        write_test(
            folder, clips, specs, seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    click.echo(printable(f"{len(clips)} clips in {folder / PAGE}; serve it with: streamcodec listen serve {folder}"))


@command.command("serve")
@click.argument("folder", type=_FOLDER)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65_535))
def serve(folder: Path, port: int) -> None:
    """Serve the test in FOLDER on this machine until Ctrl-C; keeps the ratings in FOLDER/results."""
    from streamcodec.listening.server import HOST, make_server

    with make_server(folder, port, lambda path: click.echo(f"kept {path.name}")) as server:
        click.echo(f"http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@command.command("analyse")
@click.argument("folder", type=_FOLDER)
@click.option("--by-category", is_flag=True, help="Add a table for each category.")
@click.option("--no-screening", is_flag=True, help="Keep listeners who miss the hidden reference.")
@click.option("--csv", "csv_path", type=OUTPUT_FILE, help="Write every rating as CSV.")
@click.option("--plot", "plot_path", type=OUTPUT_FILE, help="Draw the means (PNG).")
def analyse(folder: Path, by_category: bool, no_screening: bool, csv_path: Path | None, plot_path: Path | None) -> None:
    """Screen the listeners of the test in FOLDER and print means with 95 % intervals."""
    from streamcodec.files import atomic_output, write_text
    from streamcodec.listening.analyse import ratings_csv, ratings_plot, ratings_table, screen, summarise_ratings
    from streamcodec.listening.results import read_key, read_results

    key = read_key(folder)
    listeners, notes = read_results(folder, key)
    kept, left_out = (listeners, []) if no_screening else screen(listeners, key)
    for note in notes + left_out:
        click.echo(printable(note), err=True)
    summary = summarise_ratings(kept, key)
    click.echo(f"{len(kept)} of {len(listeners)} listeners\n\n{ratings_table(summary)}")
    for category in sorted({stimulus.category for stimulus in key.stimuli.values()}) if by_category else []:
        click.echo(f"\n{category}\n\n{ratings_table(summarise_ratings(kept, key, category))}")
    if csv_path:
        write_text(csv_path, ratings_csv(kept, key))
    if plot_path:
        with atomic_output(plot_path) as file:
            file.write(ratings_plot(summary))
