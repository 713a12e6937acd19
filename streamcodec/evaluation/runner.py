"""Every clip through every codec, over processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamcodec.errors import StreamcodecError
from streamcodec.evaluation.cache import Row, ScoreCache
from streamcodec.evaluation.clips import Clip
from streamcodec.evaluation.codecs import Spec, open_codec
from streamcodec.evaluation.scoring import METRICS, VERSION, score
from streamcodec.metrics.waveforms import resampled

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class Outcome:
    """Rows in the order of the codecs and clips asked for, and one line for everything that was left out."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    from_cache: int = 0


@dataclass(frozen=True)
class Task:
    """One clip for one codec."""

    spec: Spec
    clip: Clip
    metrics: tuple[str, ...]
    key: str


def run_task(task: Task) -> Row:
    """Code one clip and score it; runs in a worker process."""
    codec = open_codec(task.spec)
    clip = task.clip
    coded = codec.code(clip)
    decoded = resampled(coded.samples, coded.sample_rate_hz, clip.sample_rate_hz)
    scores = score(clip.samples, decoded, clip.sample_rate_hz, clip.category, task.metrics)
    return Row(
        codec=str(task.spec),
        clip=clip.name,
        category=clip.category,
        sample_rate_hz=clip.sample_rate_hz,
        duration_s=clip.duration_s,
        kbps=coded.payload_bits / clip.duration_s / 1000,
        bandwidth_hz=scores.bandwidth_hz,
        scores=scores.values,
        codebook_size=codec.codebook_size,
        codes=coded.codes,
    )


def evaluate(
    clips: list[Clip],
    specs: list[Spec],
    metrics: tuple[str, ...],
    *,
    jobs: int = 1,
    cache: ScoreCache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Score every clip through every codec that can run here.

    Parameters
    ----------
    jobs : int
        Worker processes, each with one thread; 0 works in this process.
    progress : callable
        Told how many of how many scores are there.
    """
    cache = cache or ScoreCache(None)
    outcome = Outcome()
    identity = f"{VERSION} " + " ".join(METRICS[name].identity for name in metrics)
    found: dict[tuple[str, str], Row] = {}
    tasks: list[Task] = []
    for spec in dict.fromkeys(specs):
        try:
            fingerprint = open_codec(spec).fingerprint
        except Exception as error:
            outcome.notes.append(f"{spec} left out: {_reason(error)}")
            continue
        for clip in clips:
            key = cache.key(identity, fingerprint, clip.digest)
            row = cache.get(key, str(spec), clip.name)
            if row is None:
                tasks.append(Task(spec, clip, metrics, key))
            else:
                found[row.codec, row.clip] = row
    outcome.from_cache = len(found)
    total = len(found) + len(tasks)
    progress(len(found), total)
    for done, (task, result) in enumerate(_results(tasks, jobs), start=len(found) + 1):
        progress(done, total)
        if isinstance(result, Row):
            cache.put(task.key, result)
            found[result.codec, result.clip] = result
        else:
            outcome.notes.append(f"{task.spec} has no score for {task.clip.name}: {_reason(result)}")
    names = [(str(spec), clip.name) for spec in dict.fromkeys(specs) for clip in clips]
    outcome.rows = [found[name] for name in names if name in found]
    return outcome


def _reason(error: Exception) -> str:
    """One line; what libraries raise is named by its type and cut at its first line."""
    if isinstance(error, StreamcodecError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _results(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, Row | Exception]]:
    if jobs == 0 or not tasks:
        for task in tasks:
            try:
                yield task, run_task(task)
            except Exception as error:
                yield task, error
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context("spawn")) as pool,
    ):
        pending = {pool.submit(run_task, task): task for task in tasks}
        try:
            for future in as_completed(pending):
                failure = future.exception()
                if isinstance(failure, BrokenProcessPool):
                    raise StreamcodecError("a worker process died (memory?); try again with fewer --jobs")
                yield pending[future], failure if isinstance(failure, Exception) else future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers inherit one thread for every library that would start a pool of its own."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
