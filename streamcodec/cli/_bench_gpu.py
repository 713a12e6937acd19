"""`streamcodec bench --device cuda`: the batched engine on this machine's card."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import Progress

from streamcodec.bench.reference import Weights
from streamcodec.cli._options import print_json
from streamcodec.config import CodecConfig
from streamcodec.errors import MissingExtraError

DEFAULT_BASELINES = "torch,torch-graph"


def run(models: Sequence[tuple[CodecConfig, Weights]], names: Sequence[str], precision: str, as_json: bool) -> None:
    """Measure and print; `names` are of the baselines."""
    try:
        from streamcodec.bench.gpu import report
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "gpu") from None
    unknown = next((name for name in names if name not in report.BASELINES), None)
    if unknown:
        raise click.UsageError(f"--baselines {unknown}: on cuda choose from {', '.join(report.BASELINES)}")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("card", total=None)
        measured = report.measure(models, names, precision, lambda what: bar.update(task, description=what))
    if as_json:
        print_json(measured)
    else:
        click.echo(report.text(measured))
