"""The records of finished shards, and the one index that joins them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamcodec.errors import CorpusError
from streamcodec.files import write_text
from streamcodec.training.corpus.prepare import RATE_HZ
from streamcodec.training.corpus.split import assign

FORMAT = 1
"""Version of the folder, the records and the index."""


@dataclass
class Item:
    """One stretch of sound in a shard.

    `path` is the path inside the source.  `start` and `length` count 24 kHz samples.  `gain_db` was applied to bring
    the item to its level.
    """

    source: str
    path: str
    category: str
    group: str
    licence: str
    eff_bw_hz: float
    gain_db: float
    md5: str
    shard: str = ""
    start: int = 0
    length: int = 0
    split: str = ""


@dataclass
class ShardRecord:
    """What a finished shard holds, and which files were dropped while it filled."""

    shard: str
    samples: int = 0
    bytes: int = 0
    items: list[Item] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)

    def write(self, out: Path) -> None:
        """Write the record into the corpus `out`; from then on the shard counts."""
        write_text(out / "records" / f"{self.shard}.json", json.dumps(asdict(self), ensure_ascii=False))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    CorpusError
        It is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"it is a {type(data).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{path} cannot be read ({error}); delete it and run the build again") from None
    return data


def records_of(out: Path, source: str = "") -> list[ShardRecord]:
    """Records of the finished shards, of one source or of all, in order of their names."""
    records = []
    for path in sorted((out / "records").glob(f"{source}*.json")):
        data = read_json(path)
        try:
            data["items"] = [Item(**item) for item in data["items"]]
            data["dropped"] = [(dropped, why) for dropped, why in data["dropped"]]
            record = ShardRecord(**data)
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{path} is damaged ({error}); delete it and run the build again") from None
        if not source or record.items[0].source == source:
            records.append(record)
    return records


def write_index(out: Path) -> dict[str, Any]:
    """Join the records into out/index.json: duplicates between sources dropped, splits assigned.

    Raises
    ------
    CorpusError
        There is nothing to index.
    """
    seen: dict[str, str] = {}
    items: list[Item] = []
    dropped: list[tuple[str, str, str]] = []
    shards: dict[str, dict[str, int]] = {}
    for record in records_of(out):
        shards[record.shard] = {"samples": record.samples, "bytes": record.bytes}
        dropped += [(record.items[0].source, path, why) for path, why in record.dropped]
        for item in record.items:
            if seen.setdefault(item.md5, item.source) == item.source:
                items.append(item)
            else:
                dropped.append((item.source, item.path, f"duplicate: also in {seen[item.md5]}"))
    for finished in sorted((out / "finished").glob("*.json")):
        dropped += [(finished.stem, path, why) for path, why in read_json(finished)["dropped"]]
    if not items:
        reasons = sorted({why for _, _, why in dropped})
        raise CorpusError(f"no usable audio was found ({reasons[0] if reasons else 'no sound files'})")
    path = out / "index.json"
    fixed = read_json(path)["groups"] if path.exists() else {}
    groups = assign(((item.group, item.category, item.length / RATE_HZ) for item in items), fixed)
    for item in items:
        item.split = groups[item.group]
    data = {
        "format": FORMAT,
        "sample_rate_hz": RATE_HZ,
        "groups": groups,
        "shards": shards,
        "items": [asdict(item) for item in items],
        "dropped": sorted(dropped),
    }
    write_text(path, index_text(data))
    return data


def index_text(data: dict[str, Any]) -> str:
    """JSON with one group, shard, item or dropped file a line, so that people can read and compare indexes."""
    parts = [f' "{key}": {json.dumps(data[key])}' for key in ("format", "sample_rate_hz")]
    for key in ("groups", "shards"):
        parts.append(f' "{key}": {{\n{_lines(f"{_line(k)}: {_line(v)}" for k, v in data[key].items())}\n }}')
    for key in ("items", "dropped"):
        parts.append(f' "{key}": [\n{_lines(_line(entry) for entry in data[key])}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(lines: Iterable[str]) -> str:
    return ",\n".join("  " + line for line in lines)
