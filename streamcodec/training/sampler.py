"""Draw training crops from a corpus: balanced, augmented, and a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from streamcodec.errors import CorpusError
from streamcodec.training.augment import change_speed, mix, source_samples, speed_factor, tilt
from streamcodec.training.corpus.catalogue import CATEGORIES
from streamcodec.training.corpus.index import Item
from streamcodec.training.corpus.reader import FULL_BAND_HZ, Corpus

Float32 = NDArray[np.float32]

CATEGORY_WEIGHTS: Mapping[str, float] = MappingProxyType({"speech": 0.5, "music": 0.3, "environment": 0.2})
"""Share of the crops of each category unless told otherwise."""

_GAP_SAMPLES = (1200, 7200)
_FADE_SAMPLES = 120
_PEAK = 0.98


@dataclass(frozen=True)
class _Stratum:
    """Items that one kind of crop is drawn from: indices, and the running sum of their weights."""

    category: str
    items: NDArray[np.int64]
    cumulative: NDArray[np.float64]

    def draw(self, rng: np.random.Generator) -> int:
        at = int(np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1], side="right"))
        return int(self.items[min(at, len(self.items) - 1)])


class CropSampler:
    """Batches of crops.

    Parameters
    ----------
    corpus : Corpus
        Where the crops come from.
    split : str
        "train", "validation" or "test".
    crop_samples, batch : int
        T and B of the batches.
    seed : int
        Same seed and step, same batch.
    category_weights : mapping, optional
        Share of each category; a category that the split lacks gives its share to the others.
    full_band_share : float
        In each category at least this share of crops is drawn from items with 10.8 kHz of measured bandwidth, if
        there are any.
    augment : bool
        Mix speech with environment or music, change pitch and speed, tilt the spectrum, change the gain.
    balanced : bool
        False draws uniformly over the hours of the split and ignores the two shares (an ablation).

    Raises
    ------
    CorpusError
        The split is empty or a number is out of range.

    Notes
    -----
    A balanced draw takes a group (speaker, album) in proportion to the square root of its hours, so that one long
    album or talkative speaker does not crowd out the rest.  Items shorter than a crop are joined with others of their
    group, full-band ones with full-band ones, with short gaps.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        crop_samples: int,
        batch: int,
        seed: int,
        category_weights: Mapping[str, float] | None = None,
        full_band_share: float = 0.5,
        augment: bool = True,
        balanced: bool = True,
    ) -> None:
        if crop_samples < 1 or batch < 1 or seed < 0:
            raise CorpusError(f"crop_samples {crop_samples}, batch {batch}: give at least 1; seed {seed}: at least 0")
        if not 0 <= full_band_share <= 1:
            raise CorpusError(f"full_band_share is {full_band_share}; it must be from 0 to 1")
        self.corpus = corpus
        self.items = corpus.select(split)
        if not self.items:
            raise CorpusError(
                f"split {split!r} of {corpus.root} is empty; add recordings, at least three in all, with: "
                f"streamcodec corpus build --out {corpus.root} --from-folder DIR --category speech"
            )
        self.crop_samples = crop_samples
        self.batch_size = batch
        self.seed = seed
        self.augment = augment
        self._lengths = np.array([item.length for item in self.items], np.int64)
        self._members: dict[tuple[str, str, bool], list[int]] = {}
        for index, item in enumerate(self.items):
            self._members.setdefault(_kin(item), []).append(index)
        weights = self._item_weights()
        if balanced:
            self._strata, shares = self._balanced(weights, category_weights or CATEGORY_WEIGHTS, full_band_share)
        else:
            every = np.arange(len(self.items))
            self._strata, shares = [_Stratum("", every, np.cumsum(self._lengths.astype(np.float64)))], [1.0]
        self._shares = np.cumsum(shares)
        self._background = [
            self._stratum(category, np.flatnonzero(self._is(category)), weights)
            for category in ("environment", "music")
            if self._is(category).any()
        ]

    def batch(self, step: int, rows: range | None = None) -> Float32:
        """Crops float32 [B, T] of a step; `rows` asks for some of the B only, as one of several workers does."""
        rng = np.random.default_rng((self.seed, step))
        places = (rng.permutation(self.batch_size) + rng.random(self.batch_size)) / self.batch_size
        rows = range(self.batch_size) if rows is None else rows
        out = np.empty((len(rows), self.crop_samples), np.float32)
        for at, row in enumerate(rows):
            kind = min(
                int(np.searchsorted(self._shares, places[row] * self._shares[-1], side="right")), len(self._strata) - 1
            )
            out[at] = self._crop(self._strata[kind], np.random.default_rng((self.seed, step, row + 1)))
        return out

    def _crop(self, stratum: _Stratum, rng: np.random.Generator) -> Float32:
        index = stratum.draw(rng)
        if not self.augment:
            return self._read(index, self.crop_samples, rng)
        factor = speed_factor(rng)
        crop = change_speed(
            self._read(index, source_samples(self.crop_samples, factor), rng), factor, self.crop_samples
        )
        if self.items[index].category == "speech" and self._background and rng.random() < 0.3:
            other = self._background[int(rng.integers(len(self._background)))].draw(rng)
            crop = mix(crop, self._read(other, self.crop_samples, rng), snr_db=rng.uniform(0, 30))
        if rng.random() < 0.4:
            crop = tilt(crop, rng.uniform(-4, 4))
        crop = crop * np.float32(10 ** (rng.uniform(-15, 9) / 20))
        peak = float(np.abs(crop).max())
        return crop * np.float32(_PEAK / peak) if peak > _PEAK else crop

    def _read(self, index: int, samples: int, rng: np.random.Generator) -> Float32:
        """A random stretch of an item, or several of its group joined, float32 [samples]."""
        item = self.items[index]
        if item.length >= samples:
            return self.corpus.audio(item, int(rng.integers(item.length - samples + 1)), samples)
        out = np.zeros(samples, np.float32)
        members = self._members[_kin(item)]
        start = int(rng.integers(item.length // 2 + 1))
        at = int(rng.integers(_GAP_SAMPLES[0])) if rng.random() < 0.5 else 0
        while at < samples:
            count = min(item.length - start, samples - at)
            out[at : at + count] = self.corpus.audio(item, start, count)
            _fade(out[at : at + count])
            at += count + int(rng.integers(*_GAP_SAMPLES))
            item, start = self.items[members[int(rng.integers(len(members)))]], 0
        return out

    def _is(self, category: str) -> NDArray[np.bool_]:
        return np.array([item.category == category for item in self.items])

    def _item_weights(self) -> NDArray[np.float64]:
        """Length of each item over the root of the length of its group."""
        groups = np.unique([f"{item.category} {item.group}" for item in self.items], return_inverse=True)[1]
        weights: NDArray[np.float64] = self._lengths / np.sqrt(np.bincount(groups, self._lengths))[groups]
        return weights

    def _stratum(self, category: str, items: NDArray[np.int64], weights: NDArray[np.float64]) -> _Stratum:
        return _Stratum(category, items, np.cumsum(weights[items]))

    def _balanced(
        self, weights: NDArray[np.float64], category_weights: Mapping[str, float], full_band_share: float
    ) -> tuple[list[_Stratum], list[float]]:
        for category, weight in category_weights.items():
            if category not in CATEGORIES or not 0 <= weight < float("inf"):
                raise CorpusError(
                    f"category weight {category}={weight} is not valid; give {', '.join(CATEGORIES)}, each 0 or more"
                )
        full = np.array([item.eff_bw_hz >= FULL_BAND_HZ for item in self.items])
        strata, shares = [], []
        for category in CATEGORIES:
            share = category_weights.get(category, 0.0)
            mine = self._is(category)
            if share <= 0 or not mine.any():
                continue
            wide = full_band_share if (mine & full).any() else 0.0
            for chosen, part in ((mine & full, wide), (mine, 1 - wide)):
                if part > 0:
                    strata.append(self._stratum(category, np.flatnonzero(chosen), weights))
                    shares.append(share * part)
        if not strata:
            raise CorpusError(f"no item of {self.corpus.root} has a category of positive weight; change the weights")
        return strata, shares


def _kin(item: Item) -> tuple[str, str, bool]:
    """What items must share to be joined in one crop."""
    return item.group, item.category, item.eff_bw_hz >= FULL_BAND_HZ


def _fade(piece: Float32) -> None:
    """Fade both ends of a joined piece in place, so that joints do not click."""
    count = min(_FADE_SAMPLES, len(piece) // 2)
    if count:
        ramp = np.linspace(0, 1, count, dtype=np.float32)
        piece[:count] *= ramp
        piece[-count:] *= ramp[::-1]
