"""A folder of sound to a folder of tokens; interrupted at any point, the same call makes the shards that lack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from streamcodec.checkpoint import load_checkpoint
from streamcodec.engine.beam import checked_beam
from streamcodec.engine.select import BACKENDS, DEVICES
from streamcodec.errors import AudioError, BackendError, TokensError
from streamcodec.locks import folder_in_use
from streamcodec.tokens.encoders import create_encoder
from streamcodec.tokens.job import INDEX_NAME, TokenJob, claim_folder, write_json
from streamcodec.tokens.shards import (
    FORMATS,
    Incomplete,
    Outcome,
    ShardSummary,
    Skipped,
    read_summary,
    require,
    write_shard,
)
from streamcodec.tokens.sources import Shard, Source, find_sources, plan_shards

Advance = Callable[[int], None]
"""Called with the number of bytes of source that are done since the last call."""


@dataclass(frozen=True)
class TokenOptions:
    """How to tokenise a folder.

    Parameters
    ----------
    model : Path, optional
        Weights; those of the package when None.
    bitrate_bps : float
        Decides the number of codebooks.
    beam : int
        As in `Codec.encoder`.
    backend, device : str
        As in `Codec.load`.
    format : str
        "parquet" or "npz".
    jobs : int
        Threads that encode (CPU engine) or read (torch); on Ray, workers.
    batch_files : int
        Files side by side in a torch engine.
    shard_files, shard_mb : int
        Largest shard: files, and megabytes of their source.
    ray : str, optional
        Address of a cluster, or "local".
    strict : bool
        Stop at the first file that cannot be tokenised, or not whole.
    """

    model: Path | None = None
    bitrate_bps: float = 6000
    beam: int = 1
    backend: str = "auto"
    device: str = "cpu"
    format: str = "parquet"
    jobs: int = 1
    batch_files: int = 16
    shard_files: int = 256
    shard_mb: int = 256
    ray: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        checked_beam(self.beam)
        if self.format not in FORMATS:
            raise TokensError(f"format {self.format!r} is unknown; choose one of {', '.join(FORMATS)}")
        if self.backend not in BACKENDS or self.device not in DEVICES or (self.backend, self.device) == ("cpu", "cuda"):
            raise BackendError(f"backend {self.backend!r} does not run on device {self.device!r}; choose another pair")
        for name in ("jobs", "batch_files", "shard_files", "shard_mb"):
            if getattr(self, name) < 1:
                raise TokensError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def engine(self) -> str:
        """What runs, as `TokenJob.engine`."""
        if self.backend == "torch" or (self.backend == "auto" and self.device != "cpu"):
            return f"torch-{self.device}"
        return "cpu"


@dataclass(frozen=True)
class TokenReport:
    """What a folder of tokens holds, and what this call did for it.

    Parameters
    ----------
    n_files : int
        With codes.
    n_shards, n_frames, n_tokens : int
        In all shards; a token is one code.
    duration_s : float
        Of the sound in all shards.
    n_bytes : int
        Of all shards.
    skipped : tuple of Skipped
        Files without codes.
    incomplete : tuple of Skipped
        Files with codes that were not read whole or are not as their headers say.
    shards_made : int
        By this call.
    made_s, wall_s : float
        Sound in them, and the time that this call took, from loading the model to the index.
    """

    n_files: int
    n_shards: int
    n_frames: int
    n_tokens: int
    duration_s: float
    n_bytes: int
    skipped: tuple[Skipped, ...]
    incomplete: tuple[Skipped, ...]
    shards_made: int
    made_s: float
    wall_s: float

    @property
    def real_time_multiple(self) -> float:
        """Seconds of sound tokenised in a second."""
        return self.made_s / self.wall_s


def tokenize_folder(
    in_dir: Path, out_dir: Path, options: TokenOptions, on_start: Advance | None = None, on_done: Advance | None = None
) -> TokenReport:
    """Tokenise all sound below `in_dir`.

    Parameters
    ----------
    in_dir, out_dir : Path
        Sound, and shards; on Ray, every machine must find both under these paths.
    options : TokenOptions
        Model, bitrate, layout, engine.
    on_start, on_done : callable, optional
        Told the bytes of all sound files, then the bytes that are done.

    Raises
    ------
    TokensError
        Nothing to tokenise, or `out_dir` was begun with other options or files.
    AudioError
        When strict: a file cannot be tokenised, or not whole; finished shards stay.
    MissingExtraError
        pyarrow, torch or ray is asked for and not installed.
    BackendError
        The engine cannot run here, or the cluster cannot be reached or failed.
    FolderInUseError
        Another run is working in `out_dir`.
    """
    began = time.perf_counter()
    require(options.format)
    checkpoint = load_checkpoint(options.model)
    n_codebooks = checkpoint.config.codebooks_for(options.bitrate_bps)
    shards = plan_shards(find_sources(in_dir), options.shard_files, options.shard_mb * 1_000_000)
    batch_files = 1 if options.engine == "cpu" else options.batch_files
    job = TokenJob.of(checkpoint, n_codebooks, options.format, options.engine, batch_files, shards, options.beam)
    with ExitStack() as stack:
        if options.ray is None:
            encoder = create_encoder(
                checkpoint, in_dir, n_codebooks, options.beam, options.engine, batch_files, options.jobs
            )
        else:
            from streamcodec.tokens.on_ray import connected, tokenize_on_ray

            stack.enter_context(connected(options.ray, options.jobs, options.engine))
        out_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(folder_in_use(out_dir))
        claim_folder(out_dir, job)
        summaries = dict(_finished(out_dir, job))
        todo = {number: shard for number, shard in enumerate(shards) if number not in summaries}

        def check(*problems: Skipped) -> None:
            if options.strict and problems:
                raise AudioError(f"{problems[0].path}: {problems[0].reason}")

        def on_file(source: Source, outcome: Outcome) -> None:
            if isinstance(outcome, Skipped):
                check(outcome)
            elif isinstance(outcome, Incomplete):
                check(Skipped(outcome.file.path, outcome.reason))
            if on_done is not None:
                on_done(source.n_bytes)

        if on_start is not None:
            on_start(sum(_n_bytes(shard) for shard in shards))
        for number, summary in summaries.items():
            check(*summary.skipped, *summary.incomplete)
            if on_done is not None:
                on_done(_n_bytes(shards[number]))
        if options.ray is None:
            encoded = stack.enter_context(closing(encoder.encode(todo.values(), on_file)))
            for number, outcomes in zip(todo, encoded, strict=True):
                summaries[number] = write_shard(out_dir, job, number, outcomes)
        elif todo:
            for summary in tokenize_on_ray(options.ray, job, options.model, in_dir, out_dir, todo, options.jobs):
                check(*summary.skipped, *summary.incomplete)
                summaries[summary.shard] = summary
                if on_done is not None:
                    on_done(_n_bytes(shards[summary.shard]))
    ordered = [summaries[number] for number in range(len(shards))]
    write_index(out_dir, job, ordered)
    return _report(out_dir, job, ordered, list(todo), time.perf_counter() - began)


def write_index(out_dir: Path, job: TokenJob, summaries: list[ShardSummary]) -> None:
    """Write what makes the folder complete."""
    shards = [
        {"file": job.shard_name(item.shard), "rows": item.rows, "frames": item.frames, "samples": item.samples}
        for item in summaries
    ]
    problems = {
        name: [asdict(problem) | {"shard": item.shard} for item in summaries for problem in getattr(item, name)]
        for name in ("skipped", "incomplete")
    }
    totals = {name: sum(getattr(item, name) for item in summaries) for name in ("rows", "frames", "samples")}
    write_json(out_dir / INDEX_NAME, job.to_dict() | {"totals": totals, "shards": shards} | problems)


def _finished(out_dir: Path, job: TokenJob) -> Iterator[tuple[int, ShardSummary]]:
    """Shards of this job that are there."""
    for number in range(job.n_shards):
        path = out_dir / job.shard_name(number)
        summary = read_summary(path) if path.exists() else None
        if summary is not None and (summary.job_id, summary.shard) == (job.job_id, number):
            yield number, summary


def _report(out_dir: Path, job: TokenJob, summaries: list[ShardSummary], made: list[int], wall_s: float) -> TokenReport:
    rate_hz = job.codec_config.sample_rate_hz
    n_frames = sum(item.frames for item in summaries)
    return TokenReport(
        n_files=sum(item.rows for item in summaries),
        n_shards=len(summaries),
        n_frames=n_frames,
        n_tokens=n_frames * job.n_codebooks,
        duration_s=sum(item.samples for item in summaries) / rate_hz,
        n_bytes=sum((out_dir / job.shard_name(item.shard)).stat().st_size for item in summaries),
        skipped=tuple(problem for item in summaries for problem in item.skipped),
        incomplete=tuple(problem for item in summaries for problem in item.incomplete),
        shards_made=len(made),
        made_s=sum(summaries[number].samples for number in made) / rate_hz,
        wall_s=wall_s,
    )


def _n_bytes(shard: Shard) -> int:
    return sum(source.n_bytes for source in shard)
