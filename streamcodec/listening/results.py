"""One listener's ratings: what the page sends, checked and kept."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamcodec.errors import AudioError
from streamcodec.files import printable, write_text
from streamcodec.listening.prepare import KEY, RESULTS

MOST_RESULTS = 10_000
"""Listeners of one test; further ratings are refused, so that nobody fills the disk."""

_LONGEST_NAME = 200


@dataclass(frozen=True)
class Stimulus:
    """What a name on the page stands for."""

    condition: str
    clip: str
    category: str


@dataclass(frozen=True)
class Key:
    """The test's identity and its stimuli by their names on the page."""

    test: str
    stimuli: dict[str, Stimulus]


@dataclass(frozen=True)
class Ratings:
    """One listener's scores, 0 to 100, by stimulus name."""

    listener: str
    scores: dict[str, float]


def read_key(folder: Path) -> Key:
    """Read the key of the test in `folder`.

    Raises
    ------
    AudioError
        There is no test.
    """
    try:
        data = json.loads((folder / KEY).read_text(encoding="utf-8"))
        return Key(data["test"], {name: Stimulus(**value) for name, value in data["stimuli"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise AudioError(f"{folder} holds no listening test; make one with: streamcodec listen prepare") from None


def parse_ratings(text: str, key: Key) -> Ratings:
    """Check what a page sent.

    Raises
    ------
    AudioError
        Not complete ratings of this test.
    """
    try:
        data: Any = json.loads(text)
        listener, scores, test = data["listener"], data["scores"], data["test"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AudioError("these are not ratings: JSON with test, listener and scores is needed") from None
    if test != key.test:
        raise AudioError("these ratings are of another listening test")
    if not isinstance(listener, str) or not 0 < len(listener.strip()) <= _LONGEST_NAME:
        raise AudioError(f"the listener's name must have 1 to {_LONGEST_NAME} characters")
    if printable(listener.strip()) != listener.strip():
        raise AudioError(f"the listener's name is {listener!a}; use printable characters alone")
    if not isinstance(scores, dict) or set(scores) != set(key.stimuli):
        raise AudioError(f"the ratings must cover all {len(key.stimuli)} stimuli of the test, and no others")
    for value in scores.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise AudioError(f"a rating is {ascii(value)[:40]}; it must be a number from 0 to 100")
    return Ratings(listener.strip(), {name: float(value) for name, value in scores.items()})


def store_ratings(folder: Path, text: str, key: Key) -> Path:
    """Check and keep what a page sent; every listener is a new file, whole or not there.

    Raises
    ------
    AudioError
        Not complete ratings of this test, or there are `MOST_RESULTS` already.
    OSError
        The folder cannot be written, or the disk is full.
    """
    parse_ratings(text, key)
    results = folder / RESULTS
    results.mkdir(exist_ok=True)
    if sum(1 for _ in results.glob("*.json")) >= MOST_RESULTS:
        raise AudioError(f"{MOST_RESULTS} listeners have rated already; prepare a new test in another folder")
    path = results / f"{secrets.token_hex(8)}.json"
    write_text(path, text)
    return path


def read_results(folder: Path, key: Key) -> tuple[list[Ratings], list[str]]:
    """All ratings in `folder`, and a line for each file that is none."""
    found: list[Ratings] = []
    notes: list[str] = []
    for path in sorted((folder / RESULTS).glob("*.json")):
        try:
            found.append(parse_ratings(path.read_text(encoding="utf-8"), key))
        except (AudioError, OSError, UnicodeDecodeError) as error:
            notes.append(f"{path.name} left out: {error}")
    return found, notes
