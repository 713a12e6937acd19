"""From rows to the table: mean, 95 % interval and clip count, as text (Markdown), CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from streamcodec.evaluation.cache import Row
from streamcodec.evaluation.scoring import METRICS

ALL = "all"


@dataclass(frozen=True)
class Estimate:
    """Mean over clips, half of the 95 % interval (Student's t; None for a single clip), and the number of clips."""

    mean: float
    half_width: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate | None:
        """Estimate from one value a clip; None when there is none."""
        if not values:
            return None
        count = len(values)
        half = float(student_t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else None
        return cls(float(np.mean(values)), half, count)

    def text(self, digits: int) -> str:
        """As shown, `3.10 ±0.07`."""
        interval = "" if self.half_width is None else f" ±{self.half_width:.{digits}f}"
        return f"{self.mean:.{digits}f}{interval}"


@dataclass(frozen=True)
class Summary:
    """One line of the table: a codec over the clips of one category, or over all, at one rate."""

    codec: str
    category: str
    sample_rate_hz: int
    clips: int
    kbps: float
    bandwidth_hz: float
    estimates: dict[str, Estimate | None]


def summarise(rows: list[Row], metrics: Sequence[str], by_category: bool = False) -> list[Summary]:
    """One line a codec and rate, in the order of the rows; `by_category` adds its lines for each category."""
    summaries = []
    categories = sorted({row.category for row in rows})
    for category in [ALL, *(categories if by_category and len(categories) > 1 else [])]:
        groups: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            if category in (ALL, row.category):
                groups.setdefault((row.codec, row.sample_rate_hz), []).append(row)
        summaries += [_summary(category, members, metrics) for members in groups.values()]
    return summaries


def _summary(category: str, rows: list[Row], metrics: Sequence[str]) -> Summary:
    seconds = sum(row.duration_s for row in rows)
    estimates = {
        name: Estimate.of([value for row in rows if (value := row.scores.get(name)) is not None]) for name in metrics
    }
    return Summary(
        codec=rows[0].codec,
        category=category,
        sample_rate_hz=rows[0].sample_rate_hz,
        clips=len(rows),
        kbps=sum(row.kbps * row.duration_s for row in rows) / seconds,
        bandwidth_hz=float(np.mean([row.bandwidth_hz for row in rows])),
        estimates=estimates,
    )


def markdown(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also readable as it stands; the first column is left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(headers, *lines, strict=True)]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for cells in (headers, rule, *lines)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def table_cells(summaries: list[Summary], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells as shown; arrows tell which way is better."""
    categories = any(summary.category != ALL for summary in summaries)
    rates = len({summary.sample_rate_hz for summary in summaries}) > 1
    headers = ["codec", *(["clips of"] if categories else []), *(["at kHz"] if rates else []), "kbps", "band kHz"]
    headers += [f"{METRICS[name].title} {'↑' if METRICS[name].higher_is_better else '↓'}" for name in metrics] + [
        "clips"
    ]
    lines = []
    for summary in summaries:
        cells = [summary.codec, *([summary.category] if categories else [])]
        cells += [f"{summary.sample_rate_hz / 1000:g}"] if rates else []
        cells += [f"{summary.kbps:.2f}", f"{summary.bandwidth_hz / 1000:.1f}"]
        for name in metrics:
            estimate = summary.estimates[name]
            cells.append("-" if estimate is None else estimate.text(METRICS[name].digits))
        lines.append([*cells, str(summary.clips)])
    return headers, lines


def as_text(summaries: list[Summary], metrics: Sequence[str]) -> str:
    """The table for a terminal or a README."""
    return markdown(*table_cells(summaries, metrics))


def as_csv(summaries: list[Summary], metrics: Sequence[str]) -> str:
    """One line a codec, category and rate, with columns NAME, NAME_ci95 (half of the interval) and NAME_clips."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [column for name in metrics for column in (name, f"{name}_ci95", f"{name}_clips")]
    writer.writerow(["codec", "category", "sample_rate_hz", "clips", "kbps", "bandwidth_hz", *columns])
    for summary in summaries:
        cells: list[Any] = [
            summary.codec,
            summary.category,
            summary.sample_rate_hz,
            summary.clips,
            f"{summary.kbps:.4f}",
            f"{summary.bandwidth_hz:.0f}",
        ]
        for name in metrics:
            e = summary.estimates[name]
            half = "" if e is None or e.half_width is None else f"{e.half_width:.5f}"
            cells += ["", "", 0] if e is None else [f"{e.mean:.5f}", half, e.count]
        writer.writerow(cells)
    return out.getvalue()


def as_json(summaries: list[Summary], rows: list[Row], settings: dict[str, Any]) -> str:
    """Everything: settings, the table, and every clip's scores."""
    table = [
        {**vars(summary), "estimates": {k: vars(e) if e else None for k, e in summary.estimates.items()}}
        for summary in summaries
    ]
    clips = [{k: v for k, v in vars(row).items() if k not in ("codes", "codebook_size")} for row in rows]
    return json.dumps({"settings": settings, "table": table, "clips": clips}, indent=1)
