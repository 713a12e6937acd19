"""Sound to encode from wherever it comes: files, pipes and standard input, with a header or as bare samples."""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile

from streamcodec.audio.files import AudioInfo, Float32, audio_info, read_blocks
from streamcodec.audio.pcm import RawSound, pcm_layout
from streamcodec.errors import AudioError
from streamcodec.files import is_stream, open_input

_FMT = struct.Struct("<HHIIHH")
_EXTENSIBLE = 0xFFFE
_WAV_SAMPLES = {
    (1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le", (3, 32): "f32le", (3, 64): "f64le",
    (6, 8): "alaw", (7, 8): "mulaw",
}  # fmt: skip
_PLACEHOLDERS = (range(1), range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 1 << 32))
_PIECE_BYTES = 1 << 16


class Sound(Protocol):
    """Sound that is opened once and read once.

    Attributes
    ----------
    info : AudioInfo
        Rate, channels and length; 0 samples where the length is not known.
    """

    info: AudioInfo

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        """Float32 [T, channels], T = `block_samples` at most; raises AudioError where the sound cannot be read on."""
        ...


def open_sound(path: Path, raw: RawSound | None = None) -> Sound:
    """Open a sound file, a pipe, a device or `streamcodec.files.STDIN`.

    A pipe that carries a WAV or bare samples is read as it comes; of another format it is read to its end first, into
    a temporary file.

    Parameters
    ----------
    raw : RawSound, optional
        The input is bare samples of this kind.

    Raises
    ------
    AudioError
        There is no such file, or it is not sound that can be read.
    """
    if raw is not None:
        return _SampleStream(open_input(path), path, raw, None)
    if not is_stream(path):
        return _SoundFile(path)
    stream = open_input(path)
    seen = io.BytesIO()
    try:
        return _wav_stream(stream, seen, path) or _Spooled(stream, seen.getvalue(), path)
    except BaseException:
        stream.close()
        raise


class _SoundFile:
    """A file on a disk."""

    def __init__(self, path: Path) -> None:
        self.info = audio_info(path)
        self._path = path

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        yield from read_blocks(self._path, block_samples)


class _Spooled:
    """A copy of what came through a pipe; it is removed once it has been read."""

    def __init__(self, stream: BinaryIO, seen: bytes, path: Path) -> None:
        self._path = path
        self._copy = tempfile.NamedTemporaryFile(prefix="streamcodec-")  # noqa: SIM115, closed when it is read
        try:
            with closing(stream):
                self._copy.write(seen)
                shutil.copyfileobj(stream, self._copy)
            self._copy.flush()
            self.info = audio_info(self._copy.name)
        except BaseException as error:
            with suppress(OSError):
                self._copy.close()
            if isinstance(error, AudioError):
                raise self._named(error) from None
            if isinstance(error, OSError):
                text = f"{error.strerror}; what comes through {path} is copied there before it is read"
                raise OSError(error.errno, text, tempfile.gettempdir()) from None
            raise

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        with self._copy:
            try:
                yield from read_blocks(self._copy.name, block_samples)
            except AudioError as error:
                raise self._named(error) from None

    def _named(self, error: AudioError) -> AudioError:
        return AudioError(str(error).replace(self._copy.name, str(self._path)))


class _SampleStream:
    """Bare samples, up to `n_bytes` of them or to the end."""

    def __init__(self, stream: BinaryIO, path: Path, raw: RawSound, n_bytes: int | None) -> None:
        self._stream, self._path, self._raw, self._n_bytes = stream, path, raw, n_bytes
        self.info = AudioInfo(raw.sample_rate_hz, raw.channels, (n_bytes or 0) // raw.frame_bytes)

    def blocks(self, block_samples: int) -> Iterator[Float32]:
        raw, position = self._raw, 0
        for data in self._pieces(block_samples * raw.frame_bytes):
            block, _ = soundfile.read(
                io.BytesIO(data), dtype="float32", always_2d=True, samplerate=raw.sample_rate_hz,
                channels=raw.channels, **pcm_layout(raw.fmt),
            )  # fmt: skip
            if not np.isfinite(block).all():
                row = int(np.argwhere(~np.isfinite(block))[0][0])
                raise AudioError(f"{self._path}: sample {position + row} is not finite; are the samples {raw.fmt}?")
            position += len(block)
            yield block
        if not position:
            raise AudioError(f"{self._path} holds no samples; give sound")

    def _pieces(self, most_bytes: int) -> Iterator[bytes]:
        """Whole samples of all channels, as soon as they come; what follows the sound is read and thrown away."""
        rest, left = b"", self._n_bytes
        with closing(self._stream) as stream:
            while left is None or left > 0:
                want = most_bytes - len(rest) if left is None else min(most_bytes - len(rest), left)
                data = getattr(stream, "read1", stream.read)(want)
                if not data:
                    break
                left = None if left is None else left - len(data)
                data = rest + data
                whole = len(data) - len(data) % self._raw.frame_bytes
                rest = data[whole:]
                if whole:
                    yield data[:whole]
            while left == 0 and stream.read(_PIECE_BYTES):
                pass


def _wav_stream(stream: BinaryIO, seen: io.BytesIO, path: Path) -> _SampleStream | None:
    """The samples of a WAV in a stream; None, with all that was read in `seen`, if it is none or compressed."""

    def take(n_bytes: int) -> bytes:
        start = seen.tell()
        while (missing := start + n_bytes - seen.tell()) > 0 and (data := stream.read(min(_PIECE_BYTES, missing))):
            seen.write(data)
        return seen.getbuffer()[start:].tobytes()

    head = take(12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return None
    raw, long_bytes = None, None
    while len(chunk := take(8)) == 8:
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"data":
            if raw is None:
                return None
            if size == 0xFFFFFFFF and long_bytes is not None and 0 < long_bytes < 1 << 62:
                return _SampleStream(stream, path, raw, long_bytes)
            unknown = any(size in lengths for lengths in _PLACEHOLDERS)
            return _SampleStream(stream, path, raw, None if unknown else size)
        body = take(size + size % 2)
        if name == b"fmt ":
            raw = _samples_of(body)
        elif name == b"ds64" and len(body) >= 16:
            (long_bytes,) = struct.unpack_from("<Q", body, 8)
    raise AudioError(f"{path} ends inside the header of a WAV; no sound came")


def _samples_of(fmt: bytes) -> RawSound | None:
    """What the chunk that describes a WAV's samples says; None for compressed ones."""
    if len(fmt) < _FMT.size:
        return None
    code, channels, rate_hz, _, _, bits = _FMT.unpack_from(fmt)
    if code == _EXTENSIBLE and len(fmt) >= 26:
        (code,) = struct.unpack_from("<H", fmt, 24)
    name = _WAV_SAMPLES.get((code, bits))
    return RawSound(name, rate_hz, channels) if name and rate_hz and channels else None
