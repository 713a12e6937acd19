"""The same shards as a Ray Data job: a row is a shard, and a worker writes it where a local run would have."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamcodec.checkpoint import load_checkpoint
from streamcodec.errors import BackendError, CheckpointError, MissingExtraError, StreamcodecError, TokensError
from streamcodec.tokens.encoders import Encoder, create_encoder
from streamcodec.tokens.job import TokenJob, weights_sha256
from streamcodec.tokens.shards import ShardSummary, write_shard
from streamcodec.tokens.sources import Shard, Source

_GPU_READERS = 4  # threads, and so CPUs, of a worker that reads for a GPU
_KNOCK_S = 10.0


def require_ray() -> Any:
    """The module ray, with ray.data.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of 41 s each, where what Ray finds does not answer
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "ray") from None
    return ray


@contextmanager
def connected(address: str, workers: int, engine: str) -> Iterator[None]:
    """Be connected to a cluster, unless the caller already is.

    Parameters
    ----------
    address : str
        As `ray.init` takes it; "local" starts a cluster on this machine for the time of the block.
    workers : int
        How many "local" must have room for.
    engine : str
        As `TokenJob.engine`.

    Raises
    ------
    BackendError
        The cluster cannot be reached.
    MissingExtraError
        Ray is not installed.
    """
    ray = require_ray()
    started = not ray.is_initialized()
    try:
        if started:
            _knock(address)
            local = {"num_cpus": _cpus(engine) * workers, "include_dashboard": False} if address == "local" else {}
            with _ray_errors(address):
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
        yield
    finally:
        if started and ray.is_initialized():
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise if nothing listens at HOST:PORT: Ray itself would try for long, and say little."""
    place = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return  # Ray finds it, or refuses it at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise BackendError(f"Ray at {place}: nothing answers there ({reason}); is the cluster running?") from None


@contextmanager
def _ray_errors(address: str) -> Iterator[None]:
    """Turn what Ray raises into one line."""
    ray = require_ray()
    try:
        yield
    except ray.exceptions.RayError as error:  # a worker's trace, which ends in its reason
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise BackendError(f"Ray at {address}: {reason}") from None
    except StreamcodecError:
        raise
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        raise BackendError(f"Ray at {address}: {str(error).strip().splitlines()[0]}") from None


def _cpus(engine: str) -> int:
    """Of a worker."""
    return _GPU_READERS if engine == "torch-cuda" else 1


class ShardWorker:
    """Keeps a model loaded and writes one shard after the other.

    Parameters
    ----------
    job : TokenJob
        What to make.
    model, in_dir, out_dir : str
        Paths on the worker's machine; no model is that of the package.
    jobs : int
        Threads.
    """

    def __init__(self, job: TokenJob, model: str | None, in_dir: str, out_dir: str, jobs: int) -> None:
        self.job, self.model, self.in_dir, self.out_dir, self.jobs = job, model, Path(in_dir), Path(out_dir), jobs
        self._encoder: Encoder | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Write the shard of one row; a problem of this machine is returned, as Ray would try again for ever."""
        shard = [Source(**item) for item in json.loads(row["sources"])]
        try:
            if self._encoder is None:
                self._encoder = self._load()
            (outcomes,) = self._encoder.encode([shard], lambda source, outcome: None)
            summary = write_shard(self.out_dir, self.job, int(row["shard"]), outcomes)
        except (StreamcodecError, OSError) as error:
            return {"summary": "", "problem": f"{type(error).__name__}: {error}"}
        return {"summary": summary.to_json(), "problem": ""}

    def _load(self) -> Encoder:
        for folder in (self.in_dir, self.out_dir):
            if not folder.is_dir():
                raise TokensError(f"no folder {folder} on this machine; all machines must find it under that path")
        checkpoint = load_checkpoint(self.model)
        if weights_sha256(checkpoint) != self.job.weights_sha256:
            raise CheckpointError(f"the weights of {self.model or 'the package'} are not those of the job")
        job = self.job
        return create_encoder(
            checkpoint, self.in_dir, job.n_codebooks, job.beam, job.engine, job.batch_files, self.jobs
        )


def tokenize_on_ray(
    address: str,
    job: TokenJob,
    model: Path | None,
    in_dir: Path,
    out_dir: Path,
    shards: Mapping[int, Shard],
    workers: int,
) -> Iterator[ShardSummary]:
    """Write shards on a cluster; yields what each holds, in the order in which they are done.

    Parameters
    ----------
    address : str
        For the text of errors; be `connected`.
    workers : int
        At most; each takes one CPU, or a GPU and four CPUs to read for it.

    Raises
    ------
    BackendError
        A worker failed.
    """
    ray, cpus = require_ray(), _cpus(job.engine)
    rows = [
        {"shard": number, "sources": json.dumps([asdict(source) for source in shard])}
        for number, shard in shards.items()
    ]
    with _ray_errors(address):
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ShardWorker,
            fn_constructor_args=(job, model and str(model), str(in_dir), str(out_dir), cpus),
            concurrency=(1, min(workers, len(rows))),
            num_cpus=cpus,
            num_gpus=1 if job.engine == "torch-cuda" else 0,
        )
        for row in done.iter_rows():
            if row["problem"]:
                raise BackendError(f"a worker of Ray at {address}: {row['problem']}")
            yield ShardSummary.from_json(row["summary"])
