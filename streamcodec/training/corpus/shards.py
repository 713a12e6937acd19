"""Write items into Ogg Opus shards; a shard counts once its record is written, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamcodec.files import write_bytes
from streamcodec.training.corpus.index import Item, ShardRecord
from streamcodec.training.corpus.prepare import RATE_HZ

Float32 = NDArray[np.float32]

SHARD_S = 300.0
"""A shard is closed when it is at least this long."""

GAP_SAMPLES = 480
"""Zeros between items, so that the lossy coder does not smear one into the next."""

BITRATE_KBPS = {"speech": 64, "music": 96, "environment": 96}
"""Aim of the variable bitrate per category; transparent for mono of 12 kHz bandwidth."""


def compression_level(bitrate_kbps: float) -> float:
    """The compression_level of libsndfile that makes Opus aim at `bitrate_kbps` in mono.

    libsndfile maps level 0 to 256 kbps and level 1 to 6 kbps, linearly.
    """
    return min(1.0, max(0.0, (256 - bitrate_kbps) / 250))


def write_opus(path: Path, samples: Float32, bitrate_kbps: float) -> None:
    """Write mono samples [T] at 24 kHz as Ogg Opus, whole or not at all."""
    level, coded = compression_level(bitrate_kbps), io.BytesIO()
    soundfile.write(coded, samples, RATE_HZ, format="OGG", subtype="OPUS", compression_level=level)
    write_bytes(path, coded.getbuffer())


class ShardWriter:
    """Fills the shards of one source, category and planned split, one after the other.

    Parameters
    ----------
    out : Path
        The corpus.
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
        self._pieces: list[Float32] = []
        self._samples = 0
        self._items: list[Item] = []

    def add(self, samples: Float32, item: Item) -> bool:
        """Append one item, whose shard, start and length are filled in; True when the shard is full."""
        item.shard = f"{self.prefix}{self.number:03d}.opus"
        item.start = self._samples
        item.length = len(samples)
        self._items.append(item)
        self._pieces += [samples, np.zeros(GAP_SAMPLES, np.float32)]
        self._samples += len(samples) + GAP_SAMPLES
        return self._samples >= self.shard_s * RATE_HZ

    def close(self, dropped: list[tuple[str, str]]) -> bool:
        """Write the shard, then its record with the files `dropped` meanwhile; False when there is nothing to write."""
        if not self._items:
            return False
        shard = self._items[0].shard
        path = self.out / "shards" / shard
        write_opus(path, np.concatenate(self._pieces), BITRATE_KBPS[self.category])
        ShardRecord(shard, self._samples, path.stat().st_size, self._items, dropped).write(self.out)
        self._pieces, self._samples, self._items = [], 0, []
        self.number += 1
        return True
