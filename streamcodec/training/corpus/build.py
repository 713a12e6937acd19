"""Turn packages and folders into shards; stops at any point and goes on where it was."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamcodec.errors import AudioError, CorpusError
from streamcodec.files import write_text
from streamcodec.training.corpus.archive import deb_members, folder_members
from streamcodec.training.corpus.catalogue import CATEGORIES, Label, Package, Source
from streamcodec.training.corpus.decode import AUDIO_SUFFIXES, decode
from streamcodec.training.corpus.index import FORMAT, Item, read_json, records_of
from streamcodec.training.corpus.prepare import RATE_HZ, DropItem, prepare
from streamcodec.training.corpus.shards import SHARD_S, ShardWriter
from streamcodec.training.corpus.split import OWN_PREFIX, planned, unit_hash

OnFile = Callable[[str, str, float], None]
"""Called after each file with its path, why it was dropped ("" if it was not) and the seconds that were kept."""

_FEWEST_GROUPS = 3
"""Two groups for training and one for validation."""

Members = Callable[[Callable[[str], bool]], Iterator[tuple[str, bytes]]]
"""Yields path and content of the files that a predicate on paths wants."""


@dataclass(frozen=True)
class Folder:
    """A user's own audio.

    Parameters
    ----------
    root : Path
        The folder.  The first folder below it names the speaker or album of a file.
    category : str
        "speech", "music" or "environment".
    licence : str
        Goes into the index.
    title : str
        Tells this folder from others in the corpus; the folder's own name when empty.
    by_file : bool
        Every file is a group of its own.  `build_folder` sets it where fewer than three speakers or albums are told
        apart by folders, so that something is left for validation.
    """

    root: Path
    category: str
    licence: str
    title: str = ""
    by_file: bool = False

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise CorpusError(f"category {self.category!r} is unknown; choose one of {', '.join(CATEGORIES)}")
        if not self.root.is_dir():
            raise CorpusError(f"{self.root} is not a folder; give the folder that holds your audio")

    @property
    def name(self) -> str:
        """Name of the source: own-category-title."""
        title = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.title or self.root.resolve().name)
        return f"{OWN_PREFIX}{self.category}-{title}"

    def label(self, path: str) -> Label:
        """Every sound file is wanted."""
        group = path if self.by_file else path.split("/")[0]
        return Label(self.category, f"{self.name}/{group}", self.licence)


def prepare_out(out: Path) -> None:
    """Make the folders of a corpus, or check that `out` is one that this version can go on with.

    Raises
    ------
    CorpusError
        `out` holds something else.
    """
    marker = out / "corpus.json"
    if not marker.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CorpusError(f"{out} is not empty and not a corpus that can be built on; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_text(marker, json.dumps({"format": FORMAT, "sample_rate_hz": RATE_HZ}) + "\n")
    elif read_json(marker).get("format") != FORMAT:
        raise CorpusError(f"{out} was made by another version of streamcodec; choose another --out")
    for folder in ("shards", "records", "finished"):
        (out / folder).mkdir(exist_ok=True)


def is_finished(out: Path, name: str) -> bool:
    """Whether all of a package is in the corpus already."""
    return (out / "finished" / f"{name}.json").exists()


def build_package(
    out: Path, package: Package, deb: Path, on_file: OnFile | None = None, shard_s: float = SHARD_S
) -> None:
    """Write the shards of one package; what an interrupted run finished is not done again."""
    if not is_finished(out, package.name):
        build = _SourceBuild(out, package, shard_s, set())
        build.run(lambda wanted: deb_members(deb, wanted), on_file)
        write_text(
            out / "finished" / f"{package.name}.json", json.dumps({"dropped": build.dropped}, ensure_ascii=False)
        )


def build_folder(out: Path, folder: Folder, on_file: OnFile | None = None, shard_s: float = SHARD_S) -> None:
    """Write the shards of a folder; files that an earlier run took are not read again, new ones are added.

    Raises
    ------
    CorpusError
        Another folder of the same name is in the corpus.
    """
    note = out / "finished" / f"{folder.name}.json"
    fingerprint = hashlib.sha256(str(folder.root.resolve()).encode()).hexdigest()[:16]
    earlier: dict[str, Any] = read_json(note) if note.exists() else {"root": fingerprint, "dropped": []}
    if earlier["root"] != fingerprint:
        raise CorpusError(f"another folder called {folder.name} is in {out}; give this one its own --name")
    earlier.setdefault("by_file", _count_groups(folder.root) < _FEWEST_GROUPS)
    folder = replace(folder, by_file=earlier["by_file"])
    write_text(note, json.dumps(earlier, ensure_ascii=False))
    build = _SourceBuild(out, folder, shard_s, {path for path, _ in earlier["dropped"]})
    build.run(lambda wanted: folder_members(folder.root, wanted), on_file)
    earlier["dropped"] += build.dropped
    write_text(note, json.dumps(earlier, ensure_ascii=False))


def _count_groups(root: Path) -> int:
    """Speakers or albums in a folder: its folders with sound in them, and the sound files beside these."""
    names = {file.relative_to(root).parts[0] for file in root.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES}
    return len(names)


class _SourceBuild:
    """Fills the shards of one source.  `dropped` holds the files dropped since the last shard was closed."""

    def __init__(self, out: Path, source: Source, shard_s: float, known: set[str]) -> None:
        records = records_of(out, source.name)
        self.out = out
        self.source = source
        self.shard_s = shard_s
        self.dropped: list[tuple[str, str]] = []
        self._known = known | {item.path for record in records for item in record.items}
        self._known |= {path for record in records for path, _ in record.dropped}
        self._md5s = {item.md5 for record in records for item in record.items}
        self._shards = [record.shard for record in records]
        self._writers: dict[str, ShardWriter] = {}

    def run(self, members: Members, on_file: OnFile | None) -> None:
        for path, data in members(self._wanted):
            seconds, why = 0.0, ""
            try:
                if not data:
                    raise DropItem("unreadable: it is empty, too large or damaged")
                seconds = self._take(path, data)
            except AudioError as error:
                why = f"unreadable: {error}"
            except DropItem as reason:
                why = str(reason)
            if why and path not in self._known:  # an archive that cannot be opened is met again by every run
                self.dropped.append((path, why))
            if on_file is not None:
                on_file(path, why, seconds)
        for writer in self._writers.values():
            self._close(writer)

    def _wanted(self, path: str) -> bool:
        suffix = "." + path.rsplit(".", 1)[-1].lower()
        return suffix in AUDIO_SUFFIXES and path not in self._known and self.source.label(path) is not None

    def _take(self, path: str, data: bytes) -> float:
        """Put one file into its shard; returns the seconds that are kept."""
        label = self.source.label(path)
        assert label is not None
        plan = planned(label.group)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if unit_hash(path) >= plan.share:
            raise DropItem("held out: enough of this group")
        if md5 in self._md5s:
            raise DropItem("duplicate")
        prepared = prepare(*decode(data, path), label.category, plan.excerpt_s)
        self._md5s.add(md5)
        item = Item(
            source=self.source.name,
            path=path,
            category=label.category,
            group=label.group,
            licence=label.licence,
            eff_bw_hz=prepared.eff_bw_hz,
            gain_db=prepared.gain_db,
            md5=md5,
        )
        writer = self._writer(label.category, plan.split)
        if writer.add(prepared.samples, item):
            self._close(writer)
        return len(prepared.samples) / RATE_HZ

    def _writer(self, category: str, split: str) -> ShardWriter:
        prefix = f"{self.source.name}-{category}-{split}-"
        if prefix not in self._writers:
            number = sum(shard.startswith(prefix) for shard in self._shards)
            self._writers[prefix] = ShardWriter(self.out, prefix, category, number, self.shard_s)
        return self._writers[prefix]

    def _close(self, writer: ShardWriter) -> None:
        if writer.close(self.dropped):
            self.dropped = []
