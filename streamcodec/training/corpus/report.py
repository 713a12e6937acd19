"""Hours of a corpus by category and split, by bandwidth and by licence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamcodec.training.corpus.catalogue import CATEGORIES, SPLITS
from streamcodec.training.corpus.index import Item
from streamcodec.training.corpus.prepare import RATE_HZ
from streamcodec.training.corpus.reader import FULL_BAND_HZ

WIDE_BAND_HZ = 6400.0


@dataclass(frozen=True)
class Report:
    """Hours of sound, each table as {(row, column): hours}."""

    by_split: dict[tuple[str, str], float]
    by_bandwidth: dict[tuple[str, str], float]
    by_licence: dict[tuple[str, str], float]

    def rows(self, table: dict[tuple[str, str], float], columns: Iterable[str]) -> list[tuple[str, list[float]]]:
        """Rows of `table` in the order of the categories (other rows by name), one number a column."""
        names = {row for row, _ in table}
        order = [c for c in CATEGORIES if c in names] + sorted(names - set(CATEGORIES))
        return [(row, [table.get((row, column), 0.0) for column in columns]) for row in order]


def band(eff_bw_hz: float) -> str:
    """Name of a bandwidth: full (10.8 kHz and more), wide (6.4 kHz and more) or narrow."""
    return "full" if eff_bw_hz >= FULL_BAND_HZ else "wide" if eff_bw_hz >= WIDE_BAND_HZ else "narrow"


def summarise(items: Iterable[Item]) -> Report:
    """Count the hours of `items`."""
    items = list(items)

    def count(key: Callable[[Item], tuple[str, str]]) -> dict[tuple[str, str], float]:
        hours: defaultdict[tuple[str, str], float] = defaultdict(float)
        for item in items:
            hours[key(item)] += item.length / RATE_HZ / 3600
        return dict(hours)

    return Report(
        by_split=count(lambda item: (item.category, item.split)),
        by_bandwidth=count(lambda item: (item.category, band(item.eff_bw_hz))),
        by_licence=count(lambda item: (item.licence, item.category)),
    )


COLUMNS = {"by_split": SPLITS, "by_bandwidth": ("full", "wide", "narrow"), "by_licence": CATEGORIES}
"""Columns of each table."""
