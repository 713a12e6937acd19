"""Build a corpus: every source into shards, then one index over all shards; stops and goes on at any point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamcodec.errors import AudioError, CorpusError
from streamcodec.training.corpus.archive import deb_members, folder_members
from streamcodec.training.corpus.catalogue import CATEGORIES, Label, Package, Source
from streamcodec.training.corpus.decode import AUDIO_SUFFIXES, decode
from streamcodec.training.corpus.prepare import RATE_HZ, DropItem, prepare
from streamcodec.training.corpus.shards import SHARD_S, Item, ShardRecord, ShardWriter, read_record, write_atomically
from streamcodec.training.corpus.split import OWN_PREFIX, assign, planned, unit_hash

FORMAT = 1

OnFile = Callable[[str, str, float], None]
"""Called after each file with its path, why it was dropped ("" if it was not) and the seconds that were kept."""


@dataclass(frozen=True)
class Folder:
    """A user's own audio: the first folder below `root` names the speaker or album."""

    root: Path
    category: str
    licence: str
    name: str

    def label(self, path: str) -> Label:
        """Every sound file is wanted."""
        group = path.split("/")[0] if "/" in path else "."
        return Label(self.category, f"{OWN_PREFIX}{self.name}/{group}", self.licence)


def prepare_out(out: Path) -> None:
    """Make the folders of a corpus, or check that `out` is one that this version can go on with.

    Raises
    ------
    CorpusError
        `out` holds something else.
    """
    marker = out / "corpus.json"
    if marker.exists():
        if _read_json(marker).get("format") != FORMAT:
            raise CorpusError(f"{out} was made by another version of streamcodec; choose another --out")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out} is not empty and not a corpus; choose another --out")
    for folder in ("shards", "records", "finished"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json.dumps({"format": FORMAT, "sample_rate_hz": RATE_HZ}))


def build_package(out: Path, package: Package, deb: Path, on_file: OnFile | None = None) -> None:
    """Write the shards of one package; what an interrupted run finished is not done again."""
    finished = out / "finished" / f"{package.name}.json"
    if not finished.exists():
        dropped = _build_source(out, package, lambda wanted: deb_members(deb, wanted), on_file, SHARD_S)
        write_atomically(finished, json.dumps({"dropped": dropped}, ensure_ascii=False))


def build_folder(out: Path, folder: Folder, on_file: OnFile | None = None) -> None:
    """Write the shards of a folder; files that an earlier run took are not read again, new ones are added."""
    if folder.category not in CATEGORIES:
        raise CorpusError(f"category {folder.category!r} is unknown; choose one of {', '.join(CATEGORIES)}")
    if not folder.root.is_dir():
        raise CorpusError(f"{folder.root} is not a folder; give the folder that holds your audio")
    finished = out / "finished" / f"{folder.name}.json"
    earlier = _read_json(finished)["dropped"] if finished.exists() else []
    skip = {path for path, _ in earlier}
    dropped = _build_source(
        out,
        folder,
        lambda wanted: folder_members(folder.root, lambda path: path not in skip and wanted(path)),
        on_file,
        SHARD_S,
    )
    write_atomically(finished, json.dumps({"dropped": [*earlier, *dropped]}, ensure_ascii=False))


def _build_source(
    out: Path,
    source: Source,
    members: Callable[[Callable[[str], bool]], Iterator[tuple[str, bytes]]],
    on_file: OnFile | None,
    shard_s: float,
) -> list[tuple[str, str]]:
    """Fill shards with all files of a source; returns the files dropped since the last shard was closed."""
    records = records_of(out, source.name)
    taken = {item.path for record in records for item in record.items}
    taken |= {path for record in records for path, _ in record.dropped}
    seen = {item.md5 for record in records for item in record.items}
    writers: dict[tuple[str, str], ShardWriter] = {}
    dropped: list[tuple[str, str]] = []

    def wanted(path: str) -> bool:
        suffix = "." + path.rsplit(".", 1)[-1].lower()
        return suffix in AUDIO_SUFFIXES and path not in taken and source.label(path) is not None

    for path, data in members(wanted):
        label = source.label(path)
        assert label is not None
        plan = planned(label.group)
        why, seconds = "", 0.0
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if unit_hash(path) >= plan.share:
            why = "held out: enough of this group"
        elif md5 in seen:
            why = "duplicate"
        else:
            try:
                item = prepare(*decode(data, path), label.category, plan.excerpt_s)
            except AudioError as error:
                why = f"unreadable: {error}"
            except DropItem as reason:
                why = str(reason)
            else:
                seen.add(md5)
                seconds = len(item.samples) / RATE_HZ
                key = (label.category, plan.split)
                if key not in writers:
                    prefix = f"{source.name}-{label.category}-{plan.split}"
                    number = sum(record.shard.startswith(prefix + "-") for record in records)
                    writers[key] = ShardWriter(out, prefix, label.category, number, shard_s)
                full = writers[key].add(
                    item.samples,
                    Item(
                        source.name,
                        path,
                        label.category,
                        label.group,
                        label.licence,
                        item.eff_bw_hz,
                        item.gain_db,
                        md5,
                        shard="",
                        start=0,
                        length=0,
                    ),
                )
                if full:
                    writers[key].close(dropped)
                    dropped = []
        if why:
            dropped.append((path, why))
        if on_file is not None:
            on_file(path, why, seconds)
    for writer in writers.values():
        if writer.close(dropped) is not None:
            dropped = []
    return dropped


def records_of(out: Path, source: str = "") -> list[ShardRecord]:
    """Records of the finished shards, of one source or of all, in order of their names."""
    records = [read_record(path) for path in sorted((out / "records").glob("*.json"))]
    return [record for record in records if not source or record.items[0].source == source]


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
                dropped.append((item.source, item.path, f"duplicate of a file in {seen[item.md5]}"))
    for finished in sorted((out / "finished").glob("*.json")):
        dropped += [(finished.stem, path, why) for path, why in _read_json(finished)["dropped"]]
    if not items:
        raise CorpusError(f"{out} holds no usable audio; see why files were dropped with --verbose")
    index = out / "index.json"
    fixed = _read_json(index)["groups"] if index.exists() else {}
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
    write_atomically(index, _index_text(data))
    return data


def _index_text(data: dict[str, Any]) -> str:
    """JSON with one item, shard or dropped file a line, so that people can read and compare indexes."""
    parts = [f' "{key}": {json.dumps(data[key])}' for key in ("format", "sample_rate_hz")]
    for key in ("groups", "shards"):
        lines = (f"  {json.dumps(k, ensure_ascii=False)}: {json.dumps(v)}" for k, v in data[key].items())
        parts.append(f' "{key}": {{\n' + ",\n".join(lines) + "\n }")
    for key in ("items", "dropped"):
        lines = (f"  {json.dumps(entry, ensure_ascii=False)}" for entry in data[key])
        parts.append(f' "{key}": [\n' + ",\n".join(lines) + "\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read ({error}); delete the folder and build it again") from None
    return data
