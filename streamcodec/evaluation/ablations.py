"""The ablation table: finished training runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamcodec.errors import CheckpointError
from streamcodec.evaluation.cache import Row
from streamcodec.evaluation.codecs import Spec
from streamcodec.evaluation.scoring import METRICS
from streamcodec.evaluation.table import ALL, markdown, summarise
from streamcodec.metrics.codebook import bitrate_efficiency

_WEIGHTS = ("best.safetensors", "model.safetensors", "last.safetensors")


@dataclass(frozen=True)
class Run:
    """One training run: the name of its folder, weights, and steps done, where its log says so."""

    name: str
    weights: Path
    steps: int | None

    def spec(self, kbps: float) -> Spec:
        """The codec to evaluate."""
        return Spec("ours", str(self.weights), kbps)


def find_runs(folder: Path) -> list[Run]:
    """Runs in the folders of `folder` that hold weights.

    Raises
    ------
    CheckpointError
        There is none.
    """
    runs = []
    for child in sorted(folder.iterdir()) if folder.is_dir() else []:
        candidates = [child / name for name in _WEIGHTS] + (
            sorted(child.glob("*.safetensors")) if child.is_dir() else []
        )
        weights = next((path for path in candidates if path.is_file()), None)
        if weights is not None:
            runs.append(Run(child.name, weights, _steps(child / "metrics.jsonl")))
    if not runs:
        raise CheckpointError(f"{folder} holds no run; give a folder whose folders have a {_WEIGHTS[0]}")
    return runs


def _steps(log: Path) -> int | None:
    """The last step that a log of JSON lines names; lines that are cut or not JSON are passed over."""
    steps = None
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        try:
            step = json.loads(line).get("step")
        except (ValueError, AttributeError):
            continue
        steps = int(step) if isinstance(step, int | float) else steps
    return steps


def ablation_table(runs: list[Run], kbps: float, rows: list[Row], metrics: Sequence[str]) -> str:
    """One line a run: steps, metrics, and bitrate efficiency (order-0 entropy of the codes over the bits sent)."""
    titles = [f"{METRICS[name].title} {'↑' if METRICS[name].higher_is_better else '↓'}" for name in metrics]
    lines = []
    for run in runs:
        mine = [row for row in rows if row.codec == str(run.spec(kbps))]
        streams = [row.codes for row in mine if row.codes is not None]
        size = mine[0].codebook_size if mine else None
        summary = next((line for line in summarise(mine, metrics) if line.category == ALL), None)
        cells = [run.name, "-" if run.steps is None else str(run.steps)]
        for name in metrics:
            estimate = summary.estimates[name] if summary else None
            cells.append("-" if estimate is None else estimate.text(METRICS[name].digits))
        cells += [f"{bitrate_efficiency(list(streams), size):.1%}" if size and streams else "-", str(len(mine))]
        lines.append(cells)
    return markdown(["ablation", "steps", *titles, "bitrate efficiency ↑", "clips"], lines)
