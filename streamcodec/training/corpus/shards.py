"""Write items into Ogg Opus shards, each with a record of what lies where; a shard is there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamcodec.training.corpus.prepare import RATE_HZ

SHARD_S = 300.0
"""A shard is closed when it is at least this long."""

GAP_SAMPLES = 480
"""Zeros between items, so that the lossy coder does not smear one into the next."""

BITRATE_KBPS = {"speech": 64, "music": 96, "environment": 96}
"""Aim of the variable bitrate per category; transparent for mono of 12 kHz bandwidth."""


@dataclass
class Item:
    """One stretch of sound in a shard.

    `start` and `length` count 24 kHz samples.  `path` is the path inside the source.
    """

    source: str
    path: str
    category: str
    group: str
    licence: str
    eff_bw_hz: float
    gain_db: float
    md5: str
    shard: str
    start: int
    length: int
    split: str = ""


@dataclass
class ShardRecord:
    """What a finished shard holds, and which files were dropped while it filled."""

    shard: str
    samples: int = 0
    bytes: int = 0
    items: list[Item] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """JSON that `read_record` reads back."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_record(path: Path) -> ShardRecord:
    """Read a record that `ShardWriter` wrote."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    data["items"] = [Item(**item) for item in data["items"]]
    data["dropped"] = [(path, why) for path, why in data["dropped"]]
    return ShardRecord(**data)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it there."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def compression_level(bitrate_kbps: float) -> float:
    """Libsndfile's compression_level that makes Opus aim at `bitrate_kbps` in mono (6 at level 1, 256 at level 0)."""
    return min(1.0, max(0.0, (256 - bitrate_kbps) / 250))


def write_opus(path: Path, samples: NDArray[np.float32], bitrate_kbps: float) -> None:
    """Write mono samples [T] at 24 kHz as Ogg Opus, beside `path` first, then renamed."""
    beside = path.with_name(path.name + ".part")
    soundfile.write(
        beside, samples, RATE_HZ, format="OGG", subtype="OPUS", compression_level=compression_level(bitrate_kbps)
    )
    os.replace(beside, path)


class ShardWriter:
    """Fills the shards of one source, category and planned split.

    Parameters
    ----------
    out : Path
        The corpus: shards go to out/shards, their records to out/records.
    prefix : str
        Begin of the shards' names.
    category : str
        Decides the bitrate.
    next_number : int
        Number of the first shard to write.
    shard_s : float
        Length at which a shard is closed, in seconds.
    """

    def __init__(self, out: Path, prefix: str, category: str, next_number: int, shard_s: float) -> None:
        self.out = out
        self.prefix = prefix
        self.category = category
        self.number = next_number
        self.shard_s = shard_s
        self._pieces: list[NDArray[np.float32]] = []
        self._samples = 0
        self._items: list[Item] = []

    def add(self, samples: NDArray[np.float32], item: Item) -> bool:
        """Append one item, whose shard, start and length are filled in; True when the shard is full."""
        item.shard = f"{self.prefix}-{self.number:03d}.opus"
        item.start = self._samples
        item.length = len(samples)
        self._items.append(item)
        self._pieces += [samples, np.zeros(GAP_SAMPLES, np.float32)]
        self._samples += len(samples) + GAP_SAMPLES
        return self._samples >= self.shard_s * RATE_HZ

    def close(self, dropped: list[tuple[str, str]]) -> ShardRecord | None:
        """Write the shard, then its record with the files `dropped` meanwhile; None when nothing was added."""
        if not self._items:
            return None
        shard = self._items[0].shard
        path = self.out / "shards" / shard
        write_opus(path, np.concatenate(self._pieces), BITRATE_KBPS[self.category])
        record = ShardRecord(shard, self._samples, path.stat().st_size, self._items, list(dropped))
        write_atomically(self.out / "records" / f"{shard}.json", record.to_json())
        self._pieces, self._samples, self._items = [], 0, []
        self.number += 1
        return record
