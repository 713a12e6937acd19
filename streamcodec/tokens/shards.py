"""One shard: a Parquet or npz file with a row for each sound file, and what was skipped (docs/tokenize.md)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.engine import Int16
from streamcodec.errors import MissingExtraError, TokensError
from streamcodec.files import write_bytes
from streamcodec.tokens.job import TokenJob

FORMATS = ("parquet", "npz")
_METADATA_KEY = "streamcodec"
_ROW_GROUP_FILES = 64
_COLUMNS = ("path", "n_samples", "n_frames", "duration_s", "source_rate_hz", "source_sha256")


@dataclass(frozen=True)
class TokenFile:
    """The codes of one sound file.

    Parameters
    ----------
    path : str
        Of the sound file, below IN_DIR.
    n_samples : int
        At the model's rate.
    n_frames : int
        F; the last frame is filled up with silence.
    duration_s : float
        n_samples over the model's rate.
    source_rate_hz : int
        Of the sound file.
    source_sha256 : str
        Of the sound file's bytes, in hex.
    codes : array
        int16 [F, K].
    """

    path: str
    n_samples: int
    n_frames: int
    duration_s: float
    source_rate_hz: int
    source_sha256: str
    codes: Int16


@dataclass(frozen=True)
class Skipped:
    """A sound file without codes, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Incomplete:
    """The codes of a sound file that was not read whole or is not as its header says, and why."""

    file: TokenFile
    reason: str


@dataclass(frozen=True)
class ShardSummary:
    """What a shard holds; stored in it.

    Parameters
    ----------
    job_id : str
        Of the job that it belongs to.
    shard : int
        Its number.
    rows, frames, samples : int
        Sums over its rows.
    skipped : tuple of Skipped
        Files that could not be tokenised.
    incomplete : tuple of Skipped
        Files that have codes, but were not read whole or are not as their headers say.
    """

    job_id: str
    shard: int
    rows: int
    frames: int
    samples: int
    skipped: tuple[Skipped, ...]
    incomplete: tuple[Skipped, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardSummary:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        problems = {name: tuple(Skipped(**item) for item in data.get(name, ())) for name in ("skipped", "incomplete")}
        return cls(**data | problems)


Outcome = TokenFile | Incomplete | Skipped
"""What became of a sound file."""


def require(fmt: str) -> None:
    """Raise a MissingExtraError if what a format needs is not installed."""
    if fmt == "parquet":
        _parquet()


def write_shard(out_dir: Path, job: TokenJob, number: int, outcomes: Sequence[Outcome]) -> ShardSummary:
    """Write one shard beside its place and rename it there."""
    files = [item.file if isinstance(item, Incomplete) else item for item in outcomes if not isinstance(item, Skipped)]
    summary = ShardSummary(
        job_id=job.job_id,
        shard=number,
        rows=len(files),
        frames=sum(item.n_frames for item in files),
        samples=sum(item.n_samples for item in files),
        skipped=tuple(item for item in outcomes if isinstance(item, Skipped)),
        incomplete=tuple(Skipped(item.file.path, item.reason) for item in outcomes if isinstance(item, Incomplete)),
    )
    columns: dict[str, list[Any]] = {name: [getattr(item, name) for item in files] for name in _COLUMNS}
    codes = np.concatenate([np.zeros((0, job.n_codebooks), np.int16), *(item.codes for item in files)])
    metadata = json.dumps({"summary": asdict(summary), "job": job.to_dict()})
    content = io.BytesIO()
    if job.format == "parquet":
        arrow, parquet = _parquet()
        types = (
            *(arrow.string(), arrow.int64(), arrow.int64(), arrow.float64(), arrow.int32(), arrow.string()),
            arrow.list_(arrow.list_(arrow.int16(), job.n_codebooks)),
        )
        schema = arrow.schema(
            [arrow.field(name, kind, nullable=False) for name, kind in zip((*_COLUMNS, "codes"), types, strict=True)],
            {_METADATA_KEY: metadata},
        )
        offsets = np.concatenate([[0], np.cumsum(columns["n_frames"])]).astype(np.int32)
        frames = arrow.FixedSizeListArray.from_arrays(arrow.array(codes.reshape(-1)), job.n_codebooks)
        nested = arrow.ListArray.from_arrays(offsets, frames)
        arrays = [arrow.array(columns[name], kind) for name, kind in zip(_COLUMNS, types, strict=False)]
        table = arrow.Table.from_arrays([*arrays, nested], schema=schema)
        parquet.write_table(
            table, content, compression="zstd", row_group_size=_ROW_GROUP_FILES, write_page_checksum=True
        )
    else:
        text = {name: np.array(columns[name], np.str_) for name in ("path", "source_sha256")}
        numbers = {
            name: np.array(columns[name], np.float64 if name == "duration_s" else np.int64)
            for name in _COLUMNS
            if name not in text
        }
        stored: dict[str, Any] = text | numbers | {"codes": codes, _METADATA_KEY: np.array(metadata)}
        np.savez_compressed(content, **stored)
    write_bytes(out_dir / job.shard_name(number), content.getbuffer())
    return summary


def read_summary(path: Path) -> ShardSummary | None:
    """What a shard says of itself; None if it cannot be read."""
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                text = str(data[_METADATA_KEY])
        else:
            _, parquet = _parquet()
            text = (parquet.read_schema(path).metadata or {})[_METADATA_KEY.encode()]
        return ShardSummary.from_json(json.dumps(json.loads(text)["summary"]))
    except MissingExtraError:
        raise
    except Exception:  # damage shows in every way that zip, numpy and Parquet know
        return None


def read_shard(path: Path, n_codebooks: int) -> Iterator[TokenFile]:
    """Rows of a shard.

    Raises
    ------
    TokensError
        It is missing or damaged.
    """
    try:
        for columns, flat in _read_npz(path) if path.suffix == ".npz" else _read_parquet(path):
            codes = flat.reshape(-1, n_codebooks)
            ends = np.cumsum(columns["n_frames"])
            if len(codes) != (ends[-1] if len(ends) else 0):
                raise TokensError(f"{path} has {len(codes)} frames of codes where its rows count {ends[-1:]}")
            for i, end in enumerate(ends):
                row = {name: columns[name][i] for name in _COLUMNS}
                yield TokenFile(**row, codes=codes[end - row["n_frames"] : end])
    except (MissingExtraError, TokensError):
        raise
    except Exception as error:  # as above
        raise TokensError(f"{path} is damaged: {error}; delete it and run `streamcodec tokenize` again") from None


def _read_npz(path: Path) -> Iterator[tuple[dict[str, list[Any]], Int16]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        yield {name: data[name].tolist() for name in _COLUMNS}, data["codes"]


def _read_parquet(path: Path) -> Iterator[tuple[dict[str, list[Any]], Int16]]:
    _, parquet = _parquet()
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            flat = group.column("codes").combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
            yield {name: group.column(name).to_pylist() for name in _COLUMNS}, flat.astype(np.int16, copy=True)


def _parquet() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError("pyarrow", "tokenize") from None
    return pyarrow, pyarrow.parquet
