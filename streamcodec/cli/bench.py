"""`streamcodec bench`: how fast the codec runs on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from streamcodec.cli import _bench_peers
from streamcodec.cli._options import INPUT_FILE, OUTPUT_FILE, json_option, print_json

_PRESETS = ("tiny-24k", "base-24k")


@click.group("bench", invoke_without_command=True)
@click.option("--preset", "presets", multiple=True, help="Shape to time, with drawn weights.  [default: tiny, base]")
@click.option("--model", type=INPUT_FILE, help="Weights to time instead, .safetensors.")
@click.option("--frames", default=20_000, show_default=True, type=click.IntRange(100), help="Frames of each engine.")
@click.option(
    "--baselines",
    default="onnx,torch",
    show_default=True,
    help="Timed in turns with it, comma-separated, of onnx, torch, torch-compile (which compiles for minutes).",
)
@click.option("--start-up/--no-start-up", "start_up", default=True, help="Time fresh processes, too.")
@click.option("--plot", "plot_path", type=OUTPUT_FILE, help="Draw the latency histograms, PNG.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    presets: tuple[str, ...],
    model: Path | None,
    frames: int,
    baselines: str,
    start_up: bool,
    plot_path: Path | None,
    as_json: bool,
) -> None:
    """Measure the CPU engine on this machine: latency of a frame, streams per core, start-up.

    Refuses to report if the engine does not compute what the reference computes.
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.progress import Progress

    from streamcodec.bench import report, startup
    from streamcodec.checkpoint import load_checkpoint
    from streamcodec.config import PRESETS

    unknown = next((name for name in presets if name not in PRESETS), None)
    if unknown:
        raise click.UsageError(f"--preset {unknown}: choose from {', '.join(PRESETS)}")
    names = [name.strip() for name in baselines.split(",") if name.strip()]
    unknown = next((name for name in names if name not in report.BASELINES), None)
    if unknown:
        raise click.UsageError(f"--baselines {unknown}: choose from {', '.join(report.BASELINES)}")
    if model:
        checkpoint = load_checkpoint(model)
        models = [(checkpoint.config, checkpoint.arrays)]
    else:
        models = [(PRESETS[name], report.half_weights(PRESETS[name])) for name in presets or _PRESETS]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start-up", total=None)
        start = startup.start_up() if start_up else None
        reports = [
            report.measure_model(
                config,
                weights,
                frames,
                names,
                lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
            for config, weights in models
        ]
    measured = report.facts(reports, report.ceiling(), start)
    if plot_path:
        report.plot(reports, plot_path)
    if as_json:
        print_json(measured)
    else:
        click.echo(report.text(measured))


command.add_command(_bench_peers.command)
