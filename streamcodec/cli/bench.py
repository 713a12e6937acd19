"""`streamcodec bench`: how fast the codec runs on this machine."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from streamcodec.cli import _bench_gpu, _bench_peers
from streamcodec.cli._options import INPUT_FILE, OUTPUT_FILE, json_option, print_json

_DRAWN = ("tiny-24k",)
_CPU_BASELINES = "onnx,torch"
_CPU_ONLY = {"frames": "--frames", "start_up": "--start-up", "plot_path": "--plot"}


@click.group("bench", invoke_without_command=True)
@click.option("--preset", "presets", multiple=True, help="Shape to time, with drawn weights.  [default: tiny-24k]")
@click.option("--model", type=INPUT_FILE, help="Weights to time, .safetensors.  [default: the bundled ones]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--frames", default=20_000, show_default=True, type=click.IntRange(100), help="Frames of each engine.")
@click.option(
    "--baselines",
    help="Compared with it, comma-separated: onnx, torch, torch-compile (which compiles for minutes); on cuda torch, "
    "torch-graph, torch-compile, torch-compile-graph.  [default: onnx,torch; on cuda torch,torch-graph]",
)
@click.option(
    "--precision",
    type=click.Choice(["ieee", "tf32x3"]),
    default="ieee",
    show_default=True,
    help="Of matrix products on cuda; tf32x3 is on tensor cores, to nearly the same bits.",
)
@click.option("--start-up/--no-start-up", "start_up", default=True, help="Time fresh processes, too.")
@click.option("--plot", "plot_path", type=OUTPUT_FILE, help="Draw the latency histograms, PNG.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    presets: tuple[str, ...],
    model: Path | None,
    device: str,
    frames: int,
    baselines: str | None,
    precision: str,
    start_up: bool,
    plot_path: Path | None,
    as_json: bool,
) -> None:
    """Measure this machine: on the CPU latency of a frame, streams per core, start-up; on cuda streams per card.

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
    drawn = presets or (() if model else _DRAWN)
    models = [(PRESETS[name], report.half_weights(PRESETS[name])) for name in drawn]
    if model or not presets:
        checkpoint = load_checkpoint(model)
        models.append((checkpoint.config, dict(checkpoint.arrays)))
    if device == "cuda":
        for name, option in _CPU_ONLY.items():
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"{option} is for --device cpu")
        names = _split(_bench_gpu.DEFAULT_BASELINES if baselines is None else baselines)
        _bench_gpu.run(models, names, precision, as_json)
        return
    if context.get_parameter_source("precision") is not ParameterSource.DEFAULT:
        raise click.UsageError("--precision is for --device cuda")
    names = _split(_CPU_BASELINES if baselines is None else baselines)
    unknown = next((name for name in names if name not in report.BASELINES), None)
    if unknown:
        raise click.UsageError(f"--baselines {unknown}: choose from {', '.join(report.BASELINES)}")
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


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


command.add_command(_bench_peers.command)
