"""What is known about the free packages: licence, category and speaker or album of each file, what is held out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from streamcodec.errors import CorpusError

CATEGORIES = ("speech", "music", "environment")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Label:
    """What a path says about the file: category, group (speaker, volunteers of a language, album) and licence."""

    category: str
    group: str
    licence: str


@dataclass(frozen=True)
class HeldOut:
    """A group that is kept for validation or test.

    Only a `share` of its files and the middle `excerpt_s` seconds of each are used, so that a few minutes show many
    files.  Zero seconds means whole files.
    """

    split: str
    share: float = 1.0
    excerpt_s: float = 0.0


class Source(Protocol):
    """Where files come from: a package or a folder."""

    @property
    def name(self) -> str:
        """Name in the index; part of every shard's name."""
        ...

    def label(self, path: str) -> Label | None:
        """What to do with `path`: its label, or None when it is left out."""
        ...


@dataclass(frozen=True)
class Rule:
    """The first rule whose pattern is found in a path labels it; category "exclude" leaves it out."""

    match: re.Pattern[str]
    category: str
    group: str
    licence: str


@dataclass(frozen=True)
class Package:
    """A Debian package and the rules for its files."""

    name: str
    licence: str
    rules: tuple[Rule, ...]

    def label(self, path: str) -> Label | None:
        """Label of `path`, or None when no rule wants it."""
        for rule in self.rules:
            found = rule.match.search(path)
            if found:
                if rule.category == "exclude":
                    return None
                return Label(rule.category, rule.group.format(**found.groupdict()), rule.licence)
        return None


@cache
def _data() -> dict[str, Any]:
    text = files(__package__).joinpath("packages.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@cache
def packages() -> tuple[Package, ...]:
    """All known packages, in the order in which they are built."""
    return tuple(
        Package(
            item["name"],
            item["licence"],
            tuple(
                Rule(
                    re.compile(rule["match"]),
                    rule["category"],
                    rule.get("group", ""),
                    rule.get("licence", item["licence"]),
                )
                for rule in item["rules"]
            ),
        )
        for item in _data()["packages"]
    )


def choose_packages(names: Sequence[str] = (), exclude: Sequence[str] = ()) -> tuple[Package, ...]:
    """Packages called `names` (all when empty) without those in `exclude`.

    Raises
    ------
    CorpusError
        A name is not in the catalogue, or nothing is left.
    """
    known = {package.name for package in packages()}
    for name in (*names, *exclude):
        if name not in known:
            raise CorpusError(f"package {name!r} is not in the catalogue; known: {', '.join(sorted(known))}")
    chosen = tuple(p for p in packages() if (not names or p.name in names) and p.name not in exclude)
    if not chosen:
        raise CorpusError("no package is left to build; name fewer with --exclude")
    return chosen


@cache
def held_out() -> dict[str, HeldOut]:
    """Held-out groups of the catalogue by name."""
    return {
        item["group"]: HeldOut(item["split"], item.get("share", 1.0), item.get("excerpt_s", 0.0))
        for item in _data()["held_out"]
    }
