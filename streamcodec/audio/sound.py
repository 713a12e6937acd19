"""Read sound files: what is in them, not what their names or headers promise; and say what could not be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamcodec.audio.contents import layout_of
from streamcodec.audio.layout import Piece
from streamcodec.audio.libav import LibavSound
from streamcodec.audio.libsndfile import Sndfile
from streamcodec.audio.view import FileView
from streamcodec.errors import AudioError, MissingExtraError

Float32 = NDArray[np.float32]
StrPath = str | os.PathLike[str]

SUFFIXES = frozenset(
    {
        *(".wav", ".wave", ".bwf", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
        *(".flac", ".ogg", ".oga", ".opus", ".spx", ".mp1", ".mp2", ".mp3", ".mpga"),
        *(".avr", ".htk", ".iff", ".ircam", ".nist", ".paf", ".pvf"),
        *(".sd2", ".sds", ".sf", ".sph", ".svx", ".voc", ".wve", ".xi"),
        *(".3gp", ".aac", ".amr", ".ape", ".g722", ".m4a", ".mka", ".mkv", ".mov", ".mp4"),
        *(".tta", ".webm", ".wma", ".wv"),
    }
)
"""Endings, in lower case, of files that are taken for sound in folders; PyAV reads those of the last two lines."""

RATES_HZ = (1000, 768_000)
"""Lowest and highest rate of sound that is resampled to a codec's."""

_HEADERLESS = {".g722": "g722"}


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file says about itself; `n_samples`, per channel, is 0 where unknown and may be an estimate."""

    sample_rate_hz: int
    channels: int
    n_samples: int

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.n_samples / self.sample_rate_hz


class Sound:
    """A sound file of any format: libsndfile's, and what PyAV reads where it is installed.

    The format is told by the content.  Lengths in headers that are missing or stale do no harm, files and streams that
    were joined into one are read one after the other, and what is no sound is left out.

    Parameters
    ----------
    path : path
        A regular file.

    Attributes
    ----------
    info : AudioInfo
        Rate and channels of the first file in it, and the length of all that can be read.

    Raises
    ------
    AudioError
        There is no such file, it is not a regular file, or not a sound file.
    MissingExtraError
        Its format needs PyAV, which is not installed.
    """

    def __init__(self, path: StrPath) -> None:
        self.name = os.fspath(path)
        self._path = Path(path)
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            raise AudioError(f"{path} does not exist; give the name of a sound file.") from None
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror or error}.") from None
        if stat.S_ISDIR(mode):
            raise AudioError(f"{path} is a folder; give the name of a sound file.")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{path} is {irregular(mode)}, not a file; give the name of a sound file.")
        with self._open() as file:
            self._examine(file)

    @property
    def problem(self) -> str | None:
        """What could not be read, or is not as the header says; whole only after the last block."""
        return "; ".join(self._notes) or None

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        """Read the sound block by block.

        Parameters
        ----------
        block_samples : int
            T of every block but the last, which may be shorter.

        Yields
        ------
        float32 [T, channels]
            Full scale is [-1, 1]; a file of floats may exceed it, and is passed on as it is.

        Raises
        ------
        AudioError
            It is damaged so that it cannot be read on, it holds no samples, or one that is not finite.
        """
        if block_samples < 1:
            raise AudioError(f"block_samples is {block_samples}; a block has at least one sample.")
        self._notes = list(self._found)
        position = 0
        with self._open() as file, closing(self._parts(file)) as parts:
            for block in _reblocked(parts, block_samples):
                check_finite(block, position, self.name)
                yield block
                position += len(block)
        if position == 0:
            raise AudioError(f"{self.name} holds no samples; give a file with sound in it.")

    def _open(self) -> AbstractContextManager[BinaryIO]:
        try:
            return self._path.open("rb", buffering=1 << 16)
        except OSError as error:
            raise AudioError(f"{self.name} cannot be read: {error.strerror or error}.") from None

    def _examine(self, file: BinaryIO) -> None:
        """Tell the format, and how much of the file is of one rate and number of channels."""
        try:
            self._layout = layout_of(file)
        except AudioError as error:
            raise self._unreadable(error) from None
        self._found = list(self._layout.notes)
        self._readable: list[tuple[Piece, int]] = []
        rate_hz = channels = 0
        for piece in self._layout.pieces:
            try:
                with closing(self._decoder(file, piece)) as decoder:
                    kind = decoder.sample_rate_hz, decoder.channels
                    n_samples = piece.n_samples or decoder.n_samples
            except AudioError as error:
                if not self._readable:
                    raise self._unreadable(error) from None
                self._leave(f"cannot be read, as it {error}".removesuffix("."))
                break
            if not self._readable:
                rate_hz, channels = kind
            elif kind != (rate_hz, channels):
                self._leave(f"has {kind[1]} channel(s) at {kind[0]} Hz where the first has {channels} at {rate_hz} Hz")
                break
            self._readable.append((piece, n_samples))
        self.info = AudioInfo(rate_hz, channels, sum(count for _, count in self._readable))
        self._notes = list(self._found)

    def _leave(self, why: str) -> None:
        number, total = len(self._readable) + 1, len(self._layout.pieces)
        self._found.append(f"{total} files are joined in it; number {number} {why}; it is left out, and what follows")

    def _parts(self, file: BinaryIO) -> Generator[Float32, None, None]:
        rate_hz, before = self.info.sample_rate_hz, 0
        for piece, expected in self._readable:
            count = 0
            try:
                opened = self._decoder(file, piece)
            except AudioError as error:
                raise self._unreadable(error) from None
            with closing(opened) as decoder:
                try:
                    for block in decoder.blocks():
                        count += len(block)
                        yield block
                except AudioError as error:
                    place = before + count
                    if piece.n_samples is None or count < piece.n_samples:
                        raise AudioError(f"{self.name} cannot be read on from sample {place}: {error}") from None
                    self._notes.append(f"what follows sample {place} is no {self._layout.kind}, and left out")
                if decoder.note:
                    self._notes.append(decoder.note)
            before += count
            there_s = count / rate_hz
            if count < expected - decoder.slack_samples:
                whole_s = expected / rate_hz
                self._notes.append(f"{there_s:.2f} s of {whole_s:.2f} s could be read; the rest is damaged or missing")
            elif piece.promised > 1:
                promised_s = piece.promised * there_s
                self._notes.append(f"it breaks off: its header promises {promised_s:.2f} s, {there_s:.2f} s are there")
            elif piece.promised < 1:
                ends_s = piece.promised * there_s
                self._notes.append(f"its header is stale: it ends at {ends_s:.2f} s, but {there_s:.2f} s were read")

    def _decoder(self, file: BinaryIO, piece: Piece) -> Sndfile | LibavSound:
        view, layout = FileView(file, piece.parts), self._layout
        container = _HEADERLESS.get(self._path.suffix.lower()) if not layout.kind else None
        try:
            if not (layout.by_libav or container):
                try:
                    return Sndfile(view, layout.kind)
                except AudioError as error:
                    if not layout.kind:
                        raise
                    return self._by_libav(FileView(file, piece.parts), error)
            return LibavSound(view, container)
        except MissingExtraError as error:
            raise MissingExtraError(error.package, error.extra, f"{self.name} is {layout.kind or container}") from None

    def _by_libav(self, view: FileView, failure: AudioError) -> LibavSound:
        """What libsndfile could not read, or its reason."""
        try:
            return LibavSound(view)
        except AudioError:
            raise failure from None
        except MissingExtraError as missing:
            raise AudioError(f"{str(failure).removesuffix('.')}; PyAV may read it, but {missing}") from None

    def _unreadable(self, error: AudioError) -> AudioError:
        return AudioError(f"{self.name} cannot be read as a sound file: it {error}")


def audio_info(path: StrPath) -> AudioInfo:
    """Rate, channels and length of a sound file; see `Sound` for what it raises."""
    return Sound(path).info


def read_blocks(path: StrPath, block_samples: int) -> Iterator[Float32]:
    """Read a sound file block by block: float32 [T, channels]; see `Sound`, which tells of problems too."""
    yield from Sound(path).blocks(block_samples)


def check_rate(info: AudioInfo, name: StrPath) -> None:
    """Raise an AudioError if a header gives a rate of no sound, at which a few bytes would be hours, or none."""
    low, high = RATES_HZ
    if not low <= info.sample_rate_hz <= high:
        raise AudioError(
            f"{name} has a sample rate of {info.sample_rate_hz} Hz; rates from {low} to {high} can be read."
        )


def irregular(mode: int) -> str:
    """What something is that is neither file nor folder, by its mode."""
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    return next((name for test, name in kinds if test(mode)), "a block device")


def check_finite(block: NDArray[np.floating[Any]], first: int, name: StrPath) -> None:
    """Raise an AudioError if samples [T, channels], of which the first is number `first`, are not all finite."""
    finite = np.isfinite(block)
    if not finite.all():
        row, channel = (int(index) for index in np.argwhere(~finite)[0])
        raise AudioError(
            f"{name}: sample {first + row} of channel {channel} is {block[row, channel]}; sound must be finite numbers."
        )


def _reblocked(blocks: Iterator[Float32], size: int) -> Iterator[Float32]:
    """Blocks of one size; the last may be shorter."""
    waiting: list[Float32] = []
    count = 0
    for block in blocks:
        start = 0
        while count + len(block) - start >= size:
            stop = start + size - count
            waiting.append(block[start:stop])
            yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            waiting, count, start = [], 0, stop
        if start < len(block):
            waiting.append(block[start:])
            count += len(block) - start
    if waiting:
        yield np.concatenate(waiting)
