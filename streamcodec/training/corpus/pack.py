"""Cut a subset of a corpus that fits a given size: whole shards, every split and category, every source first."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from streamcodec.errors import CorpusError
from streamcodec.files import atomic_output, write_text
from streamcodec.training.corpus.catalogue import CATEGORIES
from streamcodec.training.corpus.index import index_text, read_json
from streamcodec.training.corpus.prepare import RATE_HZ
from streamcodec.training.corpus.shards import write_opus
from streamcodec.training.corpus.split import unit_hash

HELD_OUT_SHARE = 1 / 3
"""At most this much of a pack is validation and test, unless told otherwise."""

_CODER_EXCESS = 1.15
"""What a shard coded anew is expected to take at most, over its bitrate."""

_WEIGHTS = {"speech": 0.5, "music": 0.3, "environment": 0.2}


@dataclass(frozen=True)
class _Shard:
    name: str
    category: str
    held_out: bool
    cost_bytes: int
    order: tuple[int, float]


def pack(
    corpus: Path, out: Path, megabytes: float, kbps: float | None = None, held_out_share: float = HELD_OUT_SHARE
) -> dict[str, Any]:
    """Copy shards of `corpus` to `out`, index included in at most `megabytes` * 1e6 bytes; returns the new index.

    With `kbps`, training shards are coded anew at that bitrate so that more hours fit; validation and test stay as
    they are, so that scores can be compared.

    Raises
    ------
    CorpusError
        `corpus` has no index, `out` is not empty, or not even one training shard fits.
    """
    index = read_json(corpus / "index.json")
    training = {item["shard"] for item in index["items"] if item["split"] == "train"} if kbps else set()
    for name in training:
        index["shards"][name]["bytes"] = int(index["shards"][name]["samples"] / RATE_HZ * kbps * 125 * _CODER_EXCESS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out} is not empty; choose another --out")
    names = choose_shards(index, megabytes * 1e6, held_out_share)
    items = [item for item in index["items"] if item["shard"] in names]
    groups = {item["group"] for item in items}
    packed = {
        "format": index["format"],
        "sample_rate_hz": index["sample_rate_hz"],
        "groups": {group: split for group, split in index["groups"].items() if group in groups},
        "shards": {name: entry for name, entry in index["shards"].items() if name in names},
        "items": items,
        "dropped": [],
    }
    (out / "shards").mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        place = out / "shards" / name
        try:
            if kbps and name in training:
                write_opus(place, soundfile.read(corpus / "shards" / name, dtype="float32")[0], kbps)
                index["shards"][name]["bytes"] = place.stat().st_size
            else:
                with (corpus / "shards" / name).open("rb") as source, atomic_output(place) as file:
                    shutil.copyfileobj(source, file)
        except (OSError, soundfile.LibsndfileError) as error:
            raise CorpusError(f"shard {name} cannot be copied: {error}") from None
    write_text(out / "index.json", index_text(packed))
    return packed


def choose_shards(index: dict[str, Any], budget_bytes: float, held_out_share: float = HELD_OUT_SHARE) -> set[str]:
    """Names of the shards to take: validation and test, then training by weight of category, then what else fits."""
    shards = _shards(index)
    budget = budget_bytes - 1000
    held = _fill([s for s in shards if s.held_out], budget * held_out_share, dict.fromkeys(CATEGORIES, 1.0))
    train = _fill([s for s in shards if not s.held_out], budget - sum(s.cost_bytes for s in held), _WEIGHTS)
    if not train:
        smallest = min((s.cost_bytes for s in shards if not s.held_out), default=0)
        raise CorpusError(
            f"{budget_bytes / 1e6:g} MB hold no training shard; the smallest has {smallest / 1e6:.1f} MB: "
            "ask for more --megabytes"
        )
    chosen = held + train
    late = [s for s in shards if s.held_out and s not in held]
    chosen += _fill(late, budget - sum(s.cost_bytes for s in chosen), dict.fromkeys(CATEGORIES, 1.0))
    return {shard.name for shard in chosen}


def _fill(shards: list[_Shard], budget: float, weights: dict[str, float]) -> list[_Shard]:
    """Take shards in order, each time of the category that is furthest behind its weight, while they fit."""
    waiting = {category: [s for s in shards if s.category == category] for category in CATEGORIES}
    used = dict.fromkeys(CATEGORIES, 0.0)
    chosen = []
    while any(waiting.values()):
        category = min((c for c in CATEGORIES if waiting[c]), key=lambda c: used[c] / weights[c])
        shard = waiting[category].pop(0)
        if shard.cost_bytes <= budget:
            budget -= shard.cost_bytes
            used[category] += shard.cost_bytes
            chosen.append(shard)
    return chosen


def _shards(index: dict[str, Any]) -> list[_Shard]:
    """Shards with the bytes that each adds to a pack, first shards of all sources before second ones."""
    items: dict[str, list[dict[str, Any]]] = {}
    for item in index["items"]:
        items.setdefault(item["shard"], []).append(item)
    result = []
    for name, mine in items.items():
        held = all(item["split"] != "train" for item in mine)
        text = sum(len(json.dumps(item, ensure_ascii=False).encode()) + 4 for item in mine)
        text += sum(len(group.encode()) + 24 for group in {item["group"] for item in mine}) + len(name) + 60
        number = int(name.rsplit("-", 1)[-1].split(".")[0])
        cost = index["shards"][name]["bytes"] + text
        result.append(_Shard(name, mine[0]["category"], held, cost, (number, unit_hash(name))))
    return sorted(result, key=lambda shard: shard.order)
