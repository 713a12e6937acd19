"""Read a corpus: its items, and their samples out of a decoded cache that costs no memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamcodec.errors import CorpusError
from streamcodec.training.corpus.index import Item

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]

FULL_BAND_HZ = 10_800.0
"""An item with at least this bandwidth fills the 12 kHz of a 24 kHz codec."""


_SCALE = np.float32(1 / 32768)


class Corpus:
    """Items of a corpus folder.

    Parameters
    ----------
    root : Path
        The folder that `streamcodec corpus build` or `pack` made.
    items : tuple of Item
        What lies in the shards.
    shard_samples : mapping
        Length of each shard.
    fingerprint : str
        Changes whenever the index changes: the same fingerprint, sampler, seed and step give the same crops.
    """

    def __init__(
        self, root: Path, items: tuple[Item, ...], shard_samples: Mapping[str, int], fingerprint: str = ""
    ) -> None:
        self.root = root
        self.fingerprint = fingerprint
        self.items = items
        self.shard_samples = MappingProxyType(dict(shard_samples))
        self._maps: dict[str, Int16] = {}

    @classmethod
    def open(cls, root: Path | str) -> Corpus:
        """Open the corpus in `root`.

        Raises
        ------
        CorpusError
            There is no index, it is damaged, or a shard is missing.
        """
        root = Path(root)
        try:
            text = (root / "index.json").read_bytes()
            data = json.loads(text)
            items = tuple(Item(**item) for item in data["items"])
            samples = {shard: int(entry["samples"]) for shard, entry in data["shards"].items()}
        except OSError:
            raise CorpusError(
                f"{root} holds no index.json; make it with: streamcodec corpus build --out {root}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{root / 'index.json'} is damaged ({error}); build the corpus again") from None
        for item in items:
            if item.start < 0 or item.length < 1 or item.start + item.length > samples.get(item.shard, 0):
                raise CorpusError(f"{root / 'index.json'} is damaged ({item.path} lies outside its shard); build again")
        for shard in samples:
            if Path(shard).name != shard or not (root / "shards" / shard).is_file():
                raise CorpusError(f"shard {shard} is missing from {root / 'shards'}; build or copy the corpus again")
        return cls(root, items, samples, hashlib.sha256(text).hexdigest()[:16])

    def select(self, split: str | None = None, category: str | None = None) -> tuple[Item, ...]:
        """Items of one split and one category; None takes all."""
        return tuple(
            item
            for item in self.items
            if (split is None or item.split == split) and (category is None or item.category == category)
        )

    def audio(self, item: Item, start: int = 0, length: int | None = None) -> Float32:
        """Samples float32 [length] of an item from `start`; to its end when length is None."""
        length = item.length - start if length is None else length
        if start < 0 or length < 0 or start + length > item.length:
            raise CorpusError(f"samples {start} to {start + length} are outside {item.path}, which has {item.length}")
        at = item.start + start
        samples: Float32 = np.multiply(self.shard(item.shard)[at : at + length], _SCALE, dtype=np.float32)
        return samples

    def shard(self, shard: str) -> Int16:
        """Samples int16 [T] of a shard, memory-mapped; decoded into the cache the first time."""
        mapped = self._maps.get(shard)
        if mapped is None:
            mapped = self._maps[shard] = np.memmap(self._cached(shard), dtype=np.int16, mode="r")
        return mapped

    def fill_cache(self, on_shard: Callable[[str], None] | None = None) -> None:
        """Decode every shard that is not in the cache yet, one a core at a time."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoding = {pool.submit(self._cached, shard): shard for shard in self.shard_samples}
            for done in as_completed(decoding):
                done.result()
                if on_shard is not None:
                    on_shard(decoding[done])

    def _cached(self, shard: str) -> Path:
        source = self.root / "shards" / shard
        path = self.root / "cache" / f"{Path(shard).stem}.i16"
        samples = self.shard_samples[shard]
        if path.is_file():
            there = path.stat()
            if there.st_size == 2 * samples and there.st_mtime >= source.stat().st_mtime:
                return path
        try:
            decoded, _ = soundfile.read(source, dtype="int16")
        except soundfile.LibsndfileError as error:
            raise CorpusError(f"shard {source} cannot be decoded ({error}); build or copy the corpus again") from None
        if decoded.shape != (samples,):
            raise CorpusError(f"shard {source} holds {len(decoded)} samples of {samples}; build or copy it again")
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        decoded.tofile(beside)
        os.replace(beside, path)
        return path
