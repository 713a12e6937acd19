"""From shards of files to their codes: frame by frame on CPU threads, or many frames of many files at once in torch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from streamcodec.checkpoint import Checkpoint
from streamcodec.engine import Engine, Float32, Int16
from streamcodec.engine.select import create_engine
from streamcodec.tokens.shards import Incomplete, Outcome, Skipped, TokenFile
from streamcodec.tokens.sources import Shard, Source, SourceProblem, SourceSound

T = TypeVar("T")
R = TypeVar("R")
OnFile = Callable[[Source, Outcome], None]
"""Called with each file when it is done, in no certain order."""

CHUNK_S = 10.0
"""Sound of one file that is read, and that a torch engine on a card takes, at once."""
CPU_CHUNK_S = 0.25
"""What a torch engine takes at once on the CPU, where longer arrays leave the caches, and malloc's own memory."""


class Encoder(Protocol):
    """Tokenises shards one after the other."""

    def encode(self, shards: Iterable[Shard], on_file: OnFile) -> Generator[list[Outcome], None, None]:
        """Outcomes of each shard, in the order of its files."""
        ...


def create_encoder(
    checkpoint: Checkpoint, folder: Path, n_codebooks: int, beam: int, engine: str, batch_files: int, jobs: int
) -> Encoder:
    """Make the encoder for an engine: "cpu", "torch-cpu" or "torch-cuda".

    Raises
    ------
    BackendError
        It cannot run here.
    MissingExtraError
        torch is not installed.
    """
    backend, _, device = engine.partition("-")
    runner = create_engine(checkpoint, backend, device or "cpu")
    if backend == "cpu":
        return ThreadedEncoder(runner, folder, n_codebooks, jobs, beam)
    return BatchedEncoder(runner, folder, n_codebooks, batch_files, jobs, device, beam)


class _FileEncoder:
    """What both ways share.

    Parameters
    ----------
    engine : Engine
        Runs the network.
    folder : Path
        IN_DIR.
    n_codebooks : int
        K of the codes.
    jobs : int
        Threads.
    beam : int
        As in `Engine.encode_step`.
    """

    def __init__(self, engine: Engine, folder: Path, n_codebooks: int, jobs: int, beam: int) -> None:
        self.engine, self.folder, self.n_codebooks, self.jobs, self.beam = engine, folder, n_codebooks, jobs, beam
        self.chunk_frames = self._frames(CHUNK_S)

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.engine.config.frame_rate_hz))

    def sound(self, source: Source) -> SourceSound:
        """Open one file."""
        config = self.engine.config
        return SourceSound(self.folder, source, config.sample_rate_hz, config.hop_samples)

    def finished(self, sound: SourceSound, parts: list[Int16]) -> Outcome:
        """Put the codes [frames, K] of one file together."""
        codes = np.concatenate(parts)
        file = TokenFile(
            path=sound.source.name,
            n_samples=sound.n_samples,
            n_frames=len(codes),
            duration_s=sound.n_samples / self.engine.config.sample_rate_hz,
            source_rate_hz=sound.source_rate_hz,
            source_sha256=sound.sha256,
            codes=codes,
        )
        return file if sound.problem is None else Incomplete(file, sound.problem)


class ThreadedEncoder(_FileEncoder):
    """A file is a stream of its own, encoded frame by frame on one thread; the engine releases the GIL."""

    def __init__(self, engine: Engine, folder: Path, n_codebooks: int, jobs: int, beam: int = 1) -> None:
        super().__init__(engine, folder, n_codebooks, jobs, beam)
        self._stopped = threading.Event()

    def encode(self, shards: Iterable[Shard], on_file: OnFile) -> Generator[list[Outcome], None, None]:
        """See `Encoder`; threads go on with the next shard while the last files of one are finished."""
        shards = list(shards)
        sources = [source for shard in shards for source in shard]
        self._stopped.clear()
        with ThreadPoolExecutor(self.jobs) as pool:
            outcomes = in_order(pool, self.encode_file, sources, 4 * self.jobs)
            try:
                for shard in shards:
                    done = []
                    for source in shard:
                        done.append(next(outcomes))
                        on_file(source, done[-1])
                    yield done
            finally:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def encode_file(self, source: Source) -> Outcome:
        """Tokenise one file."""
        engine, parts = self.engine, []
        state = engine.encoder_state()
        try:
            sound = self.sound(source)
            for frames in sound.chunks(self.chunk_frames):
                if self._stopped.is_set():
                    raise SourceProblem("stopped")  # goes nowhere: nobody waits for outcomes any more
                codes = np.empty((len(frames), self.n_codebooks), np.int16)
                for i in range(len(frames)):
                    engine.encode_step(frames[i : i + 1], state, codes[i : i + 1], self.beam)
                parts.append(codes)
            return self.finished(sound, parts)
        except SourceProblem as problem:
            return Skipped(source.name, str(problem))


class BatchedEncoder(_FileEncoder):
    """Files of about equal length go through the torch modules side by side, a chunk of each at a time.

    Files are read and resampled on threads while the device works.  Which files are side by side follows from the
    shard alone, so a shard has the same codes whenever and wherever it is made on the same kind of device.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        n_codebooks: int,
        batch_files: int,
        jobs: int,
        device: str,
        beam: int = 1,
    ) -> None:
        super().__init__(engine, folder, n_codebooks, jobs, beam)
        self.batch_files = batch_files
        if device == "cpu":
            self.chunk_frames = self._frames(CPU_CHUNK_S)

    def encode(self, shards: Iterable[Shard], on_file: OnFile) -> Generator[list[Outcome], None, None]:
        """See `Encoder`."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for shard in shards:
                    yield self._shard(shard, pool, on_file)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _shard(self, shard: Shard, pool: ThreadPoolExecutor, on_file: OnFile) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}

        def settle(number: int, outcome: Outcome) -> None:
            outcomes[number] = outcome
            on_file(shard[number], outcome)

        opened: dict[int, SourceSound] = {}
        for number, sound in enumerate(pool.map(self._open, shard)):
            if isinstance(sound, Skipped):
                settle(number, sound)
            else:
                opened[number] = sound
        longest_first = sorted(opened, key=lambda number: (-opened[number].expected_samples, number))
        for first in range(0, len(longest_first), self.batch_files):
            numbers = longest_first[first : first + self.batch_files]
            self._batch({number: opened[number] for number in numbers}, pool, settle)
        return [outcomes[number] for number in range(len(shard))]

    def _open(self, source: Source) -> SourceSound | Skipped:
        try:
            sound = self.sound(source)
            _ = sound.sha256  # here, where it runs on a thread of the pool, and is kept
            return sound
        except SourceProblem as problem:
            return Skipped(source.name, str(problem))

    def _batch(
        self, sounds: dict[int, SourceSound], pool: ThreadPoolExecutor, settle: Callable[[int, Outcome], None]
    ) -> None:
        """Encode files side by side; one that ends leaves, the others go on."""
        from streamcodec.engine.torch import TorchEngine
        from streamcodec.engine.torch_chunks import ChunkEncoder

        assert isinstance(self.engine, TorchEngine)
        encoder = ChunkEncoder(self.engine, len(sounds), self.n_codebooks, self.beam)
        hop = self.engine.config.hop_samples
        parts: dict[int, list[Int16]] = {number: [] for number in sounds}
        streams = {number: sound.chunks(self.chunk_frames) for number, sound in sounds.items()}
        running = list(sounds)
        reading = [pool.submit(_next_chunk, streams[number]) for number in running]
        while True:
            chunks = [future.result() for future in reading]
            going: list[tuple[int, Float32]] = []
            for number, chunk in zip(running, chunks, strict=True):
                if isinstance(chunk, np.ndarray):
                    going.append((number, chunk))
                else:
                    settle(number, self._outcome(sounds[number], parts.pop(number), chunk))
            if not going:
                return
            if len(going) < len(running):
                encoder.keep([running.index(number) for number, _ in going])
            running = [number for number, _ in going]
            reading = [pool.submit(_next_chunk, streams[number]) for number in running]
            samples = np.zeros((len(going), max(len(chunk) for _, chunk in going) * hop), np.float32)
            for row, (_, chunk) in zip(samples, going, strict=True):
                row[: chunk.size] = chunk.reshape(-1)
            for codes, (number, chunk) in zip(encoder.encode(samples), going, strict=True):
                parts[number].append(codes[: len(chunk)])

    def _outcome(self, sound: SourceSound, parts: list[Int16], problem: SourceProblem | None) -> Outcome:
        try:
            if problem is not None:
                raise problem
            return self.finished(sound, parts)
        except SourceProblem as reason:
            return Skipped(sound.source.name, str(reason))


def _next_chunk(chunks: Iterator[Float32]) -> Float32 | SourceProblem | None:
    """Read on; None at the end."""
    try:
        return next(chunks, None)
    except SourceProblem as problem:
        return problem


def in_order(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Map on a pool, results in order, at most `ahead` items begun and not yet taken."""
    running: deque[Future[R]] = deque()
    for item in items:
        if len(running) == ahead:
            yield running.popleft().result()
        running.append(pool.submit(function, item))
    while running:
        yield running.popleft().result()
