"""The same shards as a Ray Data job: a row is a shard, and a worker writes it where a local run would have."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamcodec.checkpoint import load_checkpoint
from streamcodec.errors import BackendError, MissingExtraError
from streamcodec.tokens.encoders import create_encoder
from streamcodec.tokens.job import TokenJob
from streamcodec.tokens.shards import ShardSummary, write_shard
from streamcodec.tokens.sources import Shard, Source

_GPU_READERS = 4  # threads, and so CPUs, of a worker that reads for a GPU


def require_ray() -> Any:
    """The module ray, with ray.data.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "ray") from None
    return ray


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

    Raises
    ------
    BackendError
        The weights found on this machine are not those of the job.
    """

    def __init__(self, job: TokenJob, model: str | None, in_dir: str, out_dir: str, jobs: int) -> None:
        from streamcodec.tokens.job import weights_sha256

        checkpoint = load_checkpoint(model)
        if weights_sha256(checkpoint) != job.weights_sha256:
            raise BackendError(f"the weights at {model or 'the package'} of a worker are not those of the job")
        self.job, self.out_dir = job, Path(out_dir)
        self.encoder = create_encoder(checkpoint, Path(in_dir), job.n_codebooks, job.engine, job.batch_files, jobs)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Write the shard of one row."""
        shard = [Source(**item) for item in json.loads(row["sources"])]
        (outcomes,) = self.encoder.encode([shard], lambda source, outcome: None)
        return {"summary": write_shard(self.out_dir, self.job, int(row["shard"]), outcomes).to_json()}


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
        Of the cluster as `ray.init` takes it; "local" starts one on this machine for the time of the call.
    workers : int
        At most; each takes one CPU, or a GPU and four CPUs to read for it.

    Raises
    ------
    BackendError
        The cluster cannot be reached, or a worker failed.
    """
    ray = require_ray()
    on_gpu = job.engine == "torch-cuda"
    cpus = _GPU_READERS if on_gpu else 1
    started = not ray.is_initialized()
    try:
        if started:
            local = {"num_cpus": cpus * workers, "include_dashboard": False} if address == "local" else {}
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [
            {"shard": number, "sources": json.dumps([asdict(source) for source in shard])}
            for number, shard in shards.items()
        ]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ShardWorker,
            fn_constructor_args=(job, model and str(model), str(in_dir), str(out_dir), cpus),
            concurrency=(1, min(workers, len(rows))),
            num_cpus=cpus,
            num_gpus=1 if on_gpu else 0,
        )
        for row in done.iter_rows():
            yield ShardSummary.from_json(row["summary"])
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise BackendError(f"Ray at {address}: {reason}") from None
    finally:
        if started and ray.is_initialized():
            ray.shutdown()
