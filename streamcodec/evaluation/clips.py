"""The clips that codecs are compared on: pieces of 5 to 10 s, balanced over categories and sources.

Short items of one source (a speaker, an album, a folder) are joined with short gaps, because the metrics need some
seconds; long ones are cut.  The choice depends on the names only, so every codec and every run sees the same clips.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.audio.sound import SUFFIXES
from streamcodec.errors import AudioError, MissingExtraError
from streamcodec.evaluation.sound_files import read_sound
from streamcodec.metrics.waveforms import Float32, resampled

CATEGORIES = ("speech", "music", "environment")
CLIP_S = 8.0
SHORTEST_CLIP_S = 5.0
LONGEST_CLIP_S = 10.0
SHORTEST_ALONE_S = 1.5
GAP_S = 0.15
SILENCE_RMS = 1e-3
CORPUS_INDEX = "index.json"


@dataclass(frozen=True)
class Clip:
    """One piece of sound to code: float32 [T] at `sample_rate_hz`."""

    name: str
    category: str
    source: str
    samples: Float32 = field(repr=False)
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def digest(self) -> str:
        """Hash of everything that a codec and a metric see."""
        content = hashlib.sha256(np.ascontiguousarray(self.samples, np.float32).tobytes())
        content.update(f"{self.sample_rate_hz} {self.category}".encode())
        return content.hexdigest()


@dataclass(frozen=True)
class Item:
    """Something that can be read: one file, or one entry of a corpus; `read` adds notes on what it could not read."""

    name: str
    category: str
    source: str
    read: Callable[[list[str]], tuple[Float32, int]]


def items_of_paths(paths: Iterable[Path], category: str | None = None, split: str = "test") -> list[Item]:
    """What there is to evaluate on in `paths`: corpora (their `split`), folders of sound files, sound files.

    The category of a file is `category`, or else the folder above it that is called speech, music or environment,
    or else "other".  Its source is its folder.

    Raises
    ------
    AudioError
        A path does not exist, or there is no sound file.
    """
    files: list[Path] = []
    items: list[Item] = []
    for path in paths:
        if (path / CORPUS_INDEX).is_file():
            items += _items_of_corpus(path, split)
        elif path.is_dir():
            files += sorted(
                child for child in path.rglob("*") if child.suffix.lower() in SUFFIXES and not child.is_dir()
            )
        elif path.exists():
            files.append(path)
        else:
            raise AudioError(f"{path} does not exist; give a sound file, a folder of them or a corpus")
    if not files and not items:
        raise AudioError("there is nothing to evaluate on; give a sound file, a folder of them or a corpus")
    return items + [
        Item(str(path), category or _category_of(path), str(path.parent), partial(read_sound, path))
        for path in dict.fromkeys(files)
    ]


def _items_of_corpus(root: Path, split: str) -> list[Item]:
    """Items of one split of a corpus; their source is the group (speaker, album) that was kept on one side."""
    from streamcodec.training.corpus.prepare import RATE_HZ
    from streamcodec.training.corpus.reader import Corpus

    corpus = Corpus.open(root)
    chosen = corpus.select(split=split)
    if not chosen:
        raise AudioError(f"the corpus {root} has nothing in its {split!r} split; choose train, validation or test")

    def read(entry: Any, notes: list[str]) -> tuple[Float32, int]:
        return corpus.audio(entry), RATE_HZ

    return [Item(f"{entry.source}/{entry.path}", entry.category, entry.group, partial(read, entry)) for entry in chosen]


def _category_of(path: Path) -> str:
    above = (part.lower() for part in reversed(path.parts[:-1]))
    return next((part for part in above if part in CATEGORIES), "other")


def collect_clips(items: list[Item], sample_rate_hz: int, count: int) -> tuple[list[Clip], list[str]]:
    """At most `count` clips at `sample_rate_hz`, in turns over categories and sources, and notes on what was left out.

    Raises
    ------
    AudioError
        Nothing that can be read is long or loud enough.
    """
    by_category: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        by_category[item.category][item.source].append(item)
    notes: list[str] = []
    queues = {
        category: _in_turns(
            [_clips_of_source(members, sample_rate_hz, ceil(count / len(items)), notes) for members in sources.values()]
        )
        for category, sources in sorted(by_category.items())
    }
    clips: list[Clip] = []
    seen: Counter[str] = Counter()
    for clip in _in_turns(list(queues.values())):
        if len(clips) == count:
            break
        seen[clip.name] += 1
        clips.append(clip if seen[clip.name] == 1 else replace(clip, name=f"{clip.name} ({seen[clip.name]})"))
    if not clips:
        raise AudioError(
            f"none of {len(items)} sound files gives {SHORTEST_ALONE_S:g} s that are not silent"
            + (f" ({notes[0]})" if notes else "")
        )
    return sorted(clips, key=lambda clip: (clip.category, clip.name)), notes


def _in_turns(iterators: list[Iterator[Clip]]) -> Iterator[Clip]:
    while iterators:
        left = []
        for iterator in iterators:
            clip = next(iterator, None)
            if clip is not None:
                yield clip
                left.append(iterator)
        iterators = left


def _clips_of_source(items: list[Item], rate_hz: int, per_item: int, notes: list[str]) -> Iterator[Clip]:
    """Clips of one source: long items cut, short ones joined in order; a source of little sound is one short clip."""
    waiting: list[Float32] = []
    first = ""
    fruitless = True
    for item in _spread(items):
        try:
            samples = resampled(*item.read(notes), rate_hz)
        except (AudioError, MissingExtraError) as error:
            notes.append(str(error))
            continue
        if len(samples) > LONGEST_CLIP_S * rate_hz:
            for start in _piece_starts(len(samples), rate_hz, per_item):
                piece = samples[start : start + int(CLIP_S * rate_hz)]
                if _audible(piece):
                    fruitless = False
                    yield Clip(f"{item.name}+{start / rate_hz:.1f}s", item.category, item.source, piece, rate_hz)
        elif _audible(samples):
            first = first if waiting else item.name
            waiting += [samples, np.zeros(int(GAP_S * rate_hz), np.float32)]
            if sum(map(len, waiting)) >= SHORTEST_CLIP_S * rate_hz:
                joined = np.concatenate(waiting[:-1])[: int(LONGEST_CLIP_S * rate_hz)]
                fruitless = False
                yield Clip(first, item.category, item.source, joined, rate_hz)
                waiting = []
    if fruitless and sum(map(len, waiting)) >= SHORTEST_ALONE_S * rate_hz:
        yield Clip(first, items[0].category, items[0].source, np.concatenate(waiting[:-1]), rate_hz)


def _spread(items: list[Item]) -> list[Item]:
    """The items in an order that depends on their names only and mixes neighbours."""
    return sorted(items, key=lambda item: hashlib.sha256(Path(item.name).name.encode()).digest())


def _piece_starts(length: int, rate_hz: int, count: int) -> list[int]:
    """Starts of at most `count` pieces that do not overlap, spread evenly over a long item."""
    piece = int(CLIP_S * rate_hz)
    count = min(count, length // piece)
    return [(2 * i + 1) * length // (2 * count) - piece // 2 for i in range(count)]


def _audible(samples: Float32) -> bool:
    return len(samples) > 0 and float(np.sqrt(np.mean(np.square(samples)))) > SILENCE_RMS
