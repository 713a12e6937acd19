"""Pictures: quality against bitrate, and one waveform beside another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamcodec.evaluation.scoring import METRICS
from streamcodec.evaluation.table import ALL, Summary
from streamcodec.figures import new_figure, png
from streamcodec.metrics.spectra import magnitude
from streamcodec.metrics.waveforms import Float32, check_pair

_FLOOR_DB = -100.0
_DIFFERENCE_DB = 30.0


def quality_plot(summaries: list[Summary], metrics: Sequence[str]) -> bytes:
    """PNG: one panel a metric, one line a codec with 95 % intervals, against the measured bitrate."""
    summaries = [summary for summary in summaries if summary.category == ALL]
    columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // columns)
    figure = new_figure(4.2 * columns, 3.2 * n_rows + 0.5)
    several_rates = len({summary.sample_rate_hz for summary in summaries}) > 1

    def family_of(summary: Summary) -> str:
        name = summary.codec.rpartition("@")[0]
        return f"{name}, {summary.sample_rate_hz / 1000:g} kHz" if several_rates else name

    families = list(dict.fromkeys(map(family_of, summaries)))
    handles: dict[str, Any] = {}
    for position, name in enumerate(metrics, start=1):
        metric = METRICS[name]
        axes = figure.add_subplot(n_rows, columns, position)
        for index, family in enumerate(families):
            points = sorted(
                (summary.kbps, estimate.mean, estimate.half_width or 0.0)
                for summary in summaries
                if family_of(summary) == family and (estimate := summary.estimates[name]) is not None
            )
            if points:
                kbps, mean, half = zip(*points, strict=True)
                handles[family] = axes.errorbar(
                    kbps, mean, yerr=half, label=family, color=f"C{index % 10}", marker="osD^v"[index % 5],
                    markersize=5, capsize=2, linewidth=1.5,
                )  # fmt: skip
        axes.set_xlabel("kbps (measured)")
        axes.set_title(f"{metric.title} ({'higher' if metric.higher_is_better else 'lower'} is better)", fontsize=10)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(5, len(handles)))
    return png(figure)


def comparison_plot(original: Float32, decoded: Float32, sample_rate_hz: int, names: tuple[str, str]) -> bytes:
    """PNG: both waveforms [T] and their difference above, both spectrograms and their difference in dB below."""
    x, y = check_pair(original, decoded)
    figure = new_figure(13, 6)
    axes = figure.subplots(2, 3, sharex=True)
    window = 512 if sample_rate_hz <= 16_000 else 1024
    times_s = np.arange(len(x)) / sample_rate_hz
    limit = max(float(np.abs([x, y]).max()), 1e-3) * 1.05
    for axis, (title, wave) in zip(axes[0], ((names[0], x), (names[1], y), ("difference", y - x)), strict=True):
        axis.plot(times_s, wave, linewidth=0.4)
        axis.set_ylim(-limit, limit)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    in_db = [
        20 * np.log10(np.maximum(magnitude(wave, window).T / (window / 4), 10 ** (_FLOOR_DB / 20))) for wave in (x, y)
    ]
    extent = (0.0, len(x) / sample_rate_hz, 0.0, sample_rate_hz / 2000)
    top = max(float(spectrum.max()) for spectrum in in_db)
    style = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    for axis, spectrum in zip(axes[1], in_db, strict=False):
        image = axis.imshow(spectrum, vmin=max(top - 90, _FLOOR_DB), vmax=top, cmap="magma", **style)
    figure.colorbar(image, ax=axes[1, 1], label="dB")
    limits = {"vmin": -_DIFFERENCE_DB, "vmax": _DIFFERENCE_DB, "cmap": "RdBu_r"}
    image = axes[1, 2].imshow(in_db[1] - in_db[0], **limits, **style)
    figure.colorbar(image, ax=axes[1, 2], label="dB more than the original")
    axes[1, 0].set_ylabel("kHz")
    for axis in axes[1]:
        axis.set_xlabel("s")
    return png(figure)
