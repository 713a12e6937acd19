"""Which side of the train / validation / test split a speaker or album is on; never decided by file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from streamcodec.training.corpus.catalogue import CATEGORIES, HeldOut, held_out

HASHED_SHARE = 0.04
"""Share of the groups of a user's own folder that goes to validation, and as much again to test."""

OWN_PREFIX = "own-"
"""Sources that are a user's own folders, and their groups, begin with this."""


def unit_hash(text: str) -> float:
    """Number in [0, 1) that depends on nothing but `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / (1 << 48)


def planned(group: str) -> HeldOut:
    """Split of a group by the catalogue or, for a user's own audio, by the hash of its name."""
    known = held_out().get(group)
    if known is not None:
        return known
    if group.startswith(OWN_PREFIX) and not group.endswith("/."):
        at = unit_hash(group)
        if at < 2 * HASHED_SHARE:
            return HeldOut("validation" if at < HASHED_SHARE else "test")
    return HeldOut("train")


def assign(groups: Iterable[tuple[str, str, float]], fixed: dict[str, str]) -> dict[str, str]:
    """Split of every group.

    Parameters
    ----------
    groups : iterable of (group, category, seconds)
        What the corpus holds.
    fixed : dict
        Decisions of an earlier build.  They stay, so that adding data never moves a speaker across.

    Notes
    -----
    A category that would miss from validation or test gets its smallest group of training there, as long as two
    are left for training; own audio whose groups are all held out gives its largest one back.
    """
    totals: dict[str, dict[str, float]] = {}
    for group, category, seconds in groups:
        of_group = totals.setdefault(group, {})
        of_group[category] = of_group.get(category, 0.0) + seconds
    splits = {group: fixed.get(group) or planned(group).split for group in sorted(totals)}
    for category in CATEGORIES:
        mine = [group for group in splits if category in totals[group]]
        if mine and all(splits[group] != "train" for group in mine):
            free = [group for group in mine if group.startswith(OWN_PREFIX) and group not in fixed]
            if free:
                splits[max(free, key=lambda group: (totals[group][category], group))] = "train"
        for wanted in ("validation", "test"):
            if not mine or any(splits[group] == wanted for group in mine):
                continue
            free = [group for group in mine if splits[group] == "train" and group not in fixed]
            if len([group for group in mine if splits[group] == "train"]) > 2 and free:
                splits[min(free, key=lambda group: (totals[group][category], group))] = wanted
    return splits
