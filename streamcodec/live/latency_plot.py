"""Latency by percentile, the tail drawn out: one line a part."""

from __future__ import annotations

from collections.abc import Mapping

from streamcodec.figures import new_figure, png
from streamcodec.live.latency import LatencyHistogram

_TICKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


def latency_plot(parts: Mapping[str, LatencyHistogram]) -> bytes:
    """PNG of latency against percentile, the axis stretched towards 100 %.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    for name, histogram in parts.items():
        if not histogram.count:
            continue
        rest, places, values = histogram.count, [], []
        for upper_ms, count in histogram.buckets():
            places.append(histogram.count / rest)
            rest -= count
            values.append(min(upper_ms, histogram.max_ms))
        places.append(float(histogram.count))
        values.append(histogram.max_ms)
        whole = name == "mouth to ear"
        axes.step(places, values, where="post", label=name, linewidth=2.2 if whole else 1.2)
    axes.set_xscale("log")
    axes.set_xticks([1 / (1 - percent / 100) for percent in _TICKS], [f"{percent:g} %" for percent in _TICKS])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)
