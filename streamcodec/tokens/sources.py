"""The sound files of a folder: which there are, how they are dealt into shards, and their sound, mono at one rate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from streamcodec.audio.resample import StreamingResampler
from streamcodec.audio.sound import SUFFIXES, Float32, Sound
from streamcodec.errors import AudioError, MissingExtraError, TokensError

_RATES_HZ = (1000, 1_000_000)
_BLOCK_SAMPLES = 1 << 16


@dataclass(frozen=True)
class Source:
    """One sound file: its path below the folder, with slashes, and its size."""

    path: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The path as text that can be stored: bytes that are not UTF-8 are written as backslash escapes."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


Shard = Sequence[Source]
"""Files whose codes go into one output file, in order."""


class SourceProblem(AudioError):
    """A file that cannot be tokenised; the text is the reason without the path."""


def find_sources(folder: Path) -> list[Source]:
    """Sound files below a folder, sorted by the bytes of their paths; links to folders are not followed.

    Raises
    ------
    TokensError
        There are none, or the folders are nested too deeply to be walked.
    """
    found = []
    try:
        for place, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                if os.path.splitext(name)[1].lower() in SUFFIXES:
                    full = Path(place, name)
                    size = full.stat().st_size if full.exists() else 0
                    found.append(Source(full.relative_to(folder).as_posix(), size))
    except RecursionError:
        raise TokensError(f"{folder} has folders nested hundreds deep; move the deepest up") from None
    if not found:
        raise TokensError(f"no sound file below {folder}; names end in {' '.join(sorted(SUFFIXES))}")
    return sorted(found, key=lambda source: os.fsencode(source.path))


def _raise(error: OSError) -> None:
    raise error


def plan_shards(sources: Sequence[Source], shard_files: int, shard_bytes: int) -> list[Shard]:
    """Deal sorted files into shards of at most `shard_files` files and `shard_bytes` of source (but one file always).

    Examples
    --------
    >>> [len(shard) for shard in plan_shards([Source(name, 10) for name in "abcde"], 3, 25)]
    [2, 2, 1]
    """
    shards: list[list[Source]] = []
    room = 0
    for source in sources:
        if not shards or len(shards[-1]) == shard_files or source.n_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(source)
        room -= source.n_bytes
    return list(shards)


def digest_of(sources: Sequence[Source]) -> str:
    """SHA-256 of paths and sizes, in hex."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(os.fsencode(source.path) + b"\0%d\n" % source.n_bytes)
    return digest.hexdigest()


class SourceSound:
    """The sound of one file, mixed to mono and resampled, in chunks of frames.

    Parameters
    ----------
    folder : Path
        What the source's path is relative to.
    source : Source
        The file.
    rate_hz, hop_samples : int
        Of the model.

    Attributes
    ----------
    source_rate_hz : int
        Of the file.
    n_samples : int
        At the model's rate, read so far.
    expected_samples : int
        What the file's header promises at the model's rate; some formats only estimate it.

    Raises
    ------
    SourceProblem
        The file cannot be read, is empty, is shorter than a frame, or has a rate out of range; also while iterating.
    """

    def __init__(self, folder: Path, source: Source, rate_hz: int, hop_samples: int) -> None:
        self.source = source
        self.n_samples = 0
        self._path = folder / source.path
        self._rate_hz, self._hop = rate_hz, hop_samples
        try:
            self._sound = Sound(self._path)
        except (AudioError, MissingExtraError, OSError) as error:
            raise self._problem(error) from None
        info = self._sound.info
        self.source_rate_hz = info.sample_rate_hz
        low, high = _RATES_HZ
        if not low <= info.sample_rate_hz <= high:
            raise SourceProblem(f"a sample rate of {info.sample_rate_hz} Hz; rates from {low} to {high} can be read")
        self.expected_samples = info.n_samples * rate_hz // info.sample_rate_hz

    @property
    def problem(self) -> str | None:
        """What of the file could not be read, or is not as its header says; whole only after the last chunk."""
        return self._sound.problem

    def chunks(self, chunk_frames: int) -> Iterator[Float32]:
        """Frames float32 [chunk_frames, hop]; the last chunk may be shorter, its last frame ends in silence."""
        size = chunk_frames * self._hop
        waiting = np.zeros(0, np.float32)
        for block in self._blocks():
            self.n_samples += len(block)
            waiting = np.concatenate([waiting, block])
            while len(waiting) >= size:
                yield waiting[:size].reshape(chunk_frames, self._hop)
                waiting = waiting[size:]
        if self.n_samples < self._hop:
            raise SourceProblem(
                f"too short: {self.n_samples} samples at {self._rate_hz} Hz, less than a frame of {self._hop}"
            )
        if len(waiting):
            yield np.pad(waiting, (0, -len(waiting) % self._hop)).reshape(-1, self._hop)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hex."""
        try:
            with self._path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._problem(error) from None

    def _blocks(self) -> Iterator[Float32]:
        resampler = StreamingResampler(self.source_rate_hz, self._rate_hz, 1)
        try:
            for block in self._sound.blocks(_BLOCK_SAMPLES):
                mono = np.clip(block.mean(axis=1, keepdims=True), -1, 1)
                yield np.clip(resampler.process(mono)[:, 0], -1, 1)
        except (AudioError, OSError) as error:
            raise self._problem(error) from None
        yield np.clip(resampler.finish()[:, 0], -1, 1)

    def _problem(self, error: Exception) -> SourceProblem:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        place = str(self._path)
        return SourceProblem(text.replace(f"{place}: ", "").replace(place, "it"))
