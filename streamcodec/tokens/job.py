"""What decides the content of a folder of tokens, as data: two runs with equal jobs write equal shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.checkpoint import Checkpoint
from streamcodec.config import CodecConfig
from streamcodec.errors import ConfigError, TokensError
from streamcodec.files import write_text
from streamcodec.tokens.sources import Shard, Source, digest_of

FORMAT_VERSION = 1
JOB_NAME, INDEX_NAME = "job.json", "index.json"


@dataclass(frozen=True)
class TokenJob:
    """Model, bitrate, layout and files of one folder of tokens.

    Parameters
    ----------
    format_version : int
        Of the layout in docs/tokenize.md.
    format : str
        "parquet" or "npz".
    model_id, weights_sha256 : str
        Hex; the first is that of `streamcodec.checkpoint` (what decodes), the second covers the encoder too.
    config : dict
        Of the model, as `CodecConfig`.
    n_codebooks : int
        K of the codes.
    bitrate_bps : float
        What K codebooks take.
    engine : str
        "cpu", "torch-cpu" or "torch-cuda": engines round differently, so codes that are nearly as good may differ.
    batch_files : int
        Files side by side in a torch engine; 1 for "cpu".
    n_files, n_shards : int
        Sound files found, and shards that they are dealt into.
    sources_sha256, shards_sha256 : str
        Of their paths and sizes, and of the numbers of files in the shards, in hex.
    beam : int
        As in `Codec.encoder`.
    """

    format_version: int
    format: str
    model_id: str
    weights_sha256: str
    config: dict[str, Any]
    n_codebooks: int
    bitrate_bps: float
    engine: str
    batch_files: int
    n_files: int
    n_shards: int
    sources_sha256: str
    shards_sha256: str
    beam: int = 1

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        n_codebooks: int,
        fmt: str,
        engine: str,
        batch_files: int,
        shards: Sequence[Shard],
        beam: int = 1,
    ) -> TokenJob:
        """Describe what is to be done."""
        config = checkpoint.config
        sources = [source for shard in shards for source in shard]
        return cls(
            format_version=FORMAT_VERSION,
            format=fmt,
            model_id=checkpoint.model_id.hex(),
            weights_sha256=weights_sha256(checkpoint),
            config=json.loads(config.to_json()),
            n_codebooks=n_codebooks,
            bitrate_bps=n_codebooks * config.bitrate_step_bps,
            engine=engine,
            batch_files=batch_files,
            n_files=len(sources),
            n_shards=len(shards),
            sources_sha256=digest_of(sources),
            shards_sha256=digest_of([Source("", len(shard)) for shard in shards]),
            beam=beam,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields for JSON; a beam of 1 is left out, so that folders without a beam are the same in any version."""
        data = asdict(self)
        if self.beam == 1:
            del data["beam"]
        return data

    @property
    def codec_config(self) -> CodecConfig:
        """Of the model."""
        return CodecConfig.from_dict(self.config)

    @property
    def job_id(self) -> str:
        """SHA-256 of what `to_dict` returns, in hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def shard_name(self, number: int) -> str:
        """File name of a shard."""
        return f"shard-{number:06d}.{self.format}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], place: Path) -> TokenJob:
        """Build from what `job.json` or `index.json` holds; more keys do no harm.

        Raises
        ------
        TokensError
            Another version, or a key is missing.
        """
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise TokensError(f"{place} has format version {version}; this streamcodec has {FORMAT_VERSION}")
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in data]
        if missing:
            raise TokensError(f"{place} has no {missing[0]}; it is no folder of tokens, or damaged")
        job = cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})
        try:
            job.codec_config  # noqa: B018
        except ConfigError as error:
            raise TokensError(f"{place}: {error}") from None
        return job


def weights_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 of all weights as float32, by sorted name, in hex."""
    digest = hashlib.sha256()
    for name in sorted(checkpoint.arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(checkpoint.arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    TokensError
        It is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokensError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise TokensError(f"{path} is not a JSON object")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def claim_folder(out_dir: Path, job: TokenJob) -> None:
    """Begin this job in its folder, or go on in it; what an interrupted run left half written is removed.

    Raises
    ------
    TokensError
        It was begun with another model, bitrate, beam, format, engine, sharding, or other files.
    """
    place = out_dir / JOB_NAME
    if not place.exists():
        write_json(place, job.to_dict())
    there = TokenJob.from_dict(read_json(place), place)
    for field in fields(TokenJob):
        before, now = getattr(there, field.name), getattr(job, field.name)
        if before != now:
            raise TokensError(f"{out_dir} was begun with {_difference(field.name, there, job)}; choose another OUT_DIR")
    for name in ("shard-*", JOB_NAME, INDEX_NAME):
        for part in out_dir.glob(f".{name}.*.part"):
            part.unlink(missing_ok=True)


def _difference(name: str, before: TokenJob, now: TokenJob) -> str:
    if name == "n_files":
        return f"{before.n_files} sound files where IN_DIR now has {now.n_files}"
    if name == "sources_sha256":
        return "other sound files (a path or a size has changed)"
    if name in ("n_shards", "shards_sha256"):
        return "another --shard-files or --shard-mb"
    if name == "n_codebooks":
        return f"--bitrate {before.bitrate_bps / 1000:g}, not {now.bitrate_bps / 1000:g}"
    if name == "beam":
        return f"--beam {before.beam}, not {now.beam}"
    if name == "config":
        return f"a model of another shape, {before.config.get('name')}, not {now.config['name']}"
    return f"{name} = {getattr(before, name)}, not {getattr(now, name)}"
