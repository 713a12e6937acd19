"""Screen listeners and summarise their ratings after ITU-R BS.1534-3."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from streamcodec.errors import AudioError
from streamcodec.evaluation.table import Estimate, markdown
from streamcodec.figures import new_figure, png
from streamcodec.listening.prepare import ANCHORS_HZ, REFERENCE
from streamcodec.listening.results import Key, Ratings

MID_ANCHOR = max(ANCHORS_HZ, key=lambda name: ANCHORS_HZ[name])
LIMIT_SCORE = 90.0
LIMIT_SHARE = 0.15


@dataclass(frozen=True)
class ConditionScore:
    """Ratings of one condition over listeners and clips: mean with its 95 % interval, median, quartiles."""

    condition: str
    estimate: Estimate
    median: float
    quartiles: tuple[float, float]


def screen(listeners: list[Ratings], key: Key) -> tuple[list[Ratings], list[str]]:
    """Listeners to keep, and a line for each that is left out.

    BS.1534-3, 4.1.2: left out is who rates the hidden reference below 90 in more than 15 % of the clips, or the
    7 kHz anchor above 90 in more than 15 % of them.
    """
    kept: list[Ratings] = []
    notes: list[str] = []
    for ratings in listeners:
        of = {
            condition: np.array([ratings.scores[n] for n, s in key.stimuli.items() if s.condition == condition])
            for condition in (REFERENCE, MID_ANCHOR)
        }
        low = float(np.mean(of[REFERENCE] < LIMIT_SCORE))
        high = float(np.mean(of[MID_ANCHOR] > LIMIT_SCORE)) if of[MID_ANCHOR].size else 0.0
        if low > LIMIT_SHARE:
            notes.append(
                f"{ratings.listener} left out: hidden reference below {LIMIT_SCORE:g} in {low:.0%} of the clips"
            )
        elif high > LIMIT_SHARE:
            notes.append(f"{ratings.listener} left out: {MID_ANCHOR} above {LIMIT_SCORE:g} in {high:.0%} of the clips")
        else:
            kept.append(ratings)
    return kept, notes


def summarise_ratings(listeners: list[Ratings], key: Key, category: str | None = None) -> list[ConditionScore]:
    """One line a condition, best first; every rating of a clip by a listener counts once.

    Raises
    ------
    AudioError
        No listener is left.
    """
    if not listeners:
        raise AudioError("there are no ratings to analyse, or none of a listener who passed the screening")
    summary = []
    for condition in dict.fromkeys(stimulus.condition for stimulus in key.stimuli.values()):
        names = [
            name
            for name, stimulus in key.stimuli.items()
            if stimulus.condition == condition and category in (None, stimulus.category)
        ]
        scores = [ratings.scores[name] for ratings in listeners for name in names]
        estimate = Estimate.of(scores)
        if estimate is not None:
            low, median, high = np.percentile(scores, (25, 50, 75))
            summary.append(ConditionScore(condition, estimate, float(median), (float(low), float(high))))
    return sorted(summary, key=lambda score: -score.estimate.mean)


def ratings_table(summary: list[ConditionScore]) -> str:
    """The table for people."""
    lines = []
    for score in summary:
        middle = f"{score.quartiles[0]:.0f} to {score.quartiles[1]:.0f}"
        estimate = score.estimate
        lines.append([score.condition, estimate.text(1), f"{score.median:.0f}", middle, str(estimate.count)])
    return markdown(["condition", "mean", "median", "middle half", "ratings"], lines)


def ratings_csv(listeners: list[Ratings], key: Key) -> str:
    """Every rating, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["listener", "condition", "category", "clip", "score"])
    for ratings in listeners:
        for name, stimulus in key.stimuli.items():
            writer.writerow(
                [ratings.listener, stimulus.condition, stimulus.category, stimulus.clip, ratings.scores[name]]
            )
    return out.getvalue()


def ratings_plot(summary: list[ConditionScore]) -> bytes:
    """PNG: means with 95 % intervals on the scale that listeners saw, best at the top."""
    figure = new_figure(8, 1.2 + 0.4 * len(summary))
    axes = figure.add_subplot()
    places = np.arange(len(summary))[::-1]
    axes.errorbar(
        [s.estimate.mean for s in summary], places, xerr=[s.estimate.half_width or 0 for s in summary],
        fmt="o", capsize=3,
    )  # fmt: skip
    axes.set_yticks(places, [s.condition for s in summary])
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    for x, label in zip(range(10, 100, 20), ("bad", "poor", "fair", "good", "excellent"), strict=True):
        axes.text(x, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
    axes.grid(axis="x", alpha=0.4)
    axes.set_xlabel("MUSHRA score, mean and 95 % interval")
    return png(figure)
