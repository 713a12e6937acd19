"""What sound is written as: WAV, FLAC, Ogg Vorbis or bare samples; the header of a WAV, and what carries the bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from streamcodec.errors import AudioError

MADE_BY = "streamcodec"
"""What sound files written here say about their maker."""

_SAMPLES = {
    "s8": ("PCM_S8", "FILE", 1),
    "u8": ("PCM_U8", "FILE", 1),
    "mulaw": ("ULAW", "FILE", 1),
    "alaw": ("ALAW", "FILE", 1),
    **{
        f"{kind}{8 * size}{end}": (subtype, order, size)
        for kind, subtype, size in (
            ("s", "PCM_16", 2), ("s", "PCM_24", 3), ("s", "PCM_32", 4), ("f", "FLOAT", 4), ("f", "DOUBLE", 8)
        )
        for end, order in (("le", "LITTLE"), ("be", "BIG"))
    },
}  # fmt: skip
PCM_FORMATS = tuple(_SAMPLES)
"""Names of bare samples, as ffmpeg has them: signed, unsigned or float, bits, byte order."""

SOUND_FORMATS = ("wav", "flac", "ogg")

_UNKNOWN = 0xFFFFFFFF
_MAX_RIFF_BYTES = 0xFFFFFFFF - 1
_DS64 = struct.Struct("<QQQI")
_FMT = struct.Struct("<HHIIHH")
_TAG = b"INFOISFT" + struct.pack("<I", 12) + MADE_BY.encode() + b"\0"


@dataclass(frozen=True)
class RawSound:
    """Bare samples: nothing in the stream says what they are.

    Parameters
    ----------
    fmt : str
        One of `PCM_FORMATS`.
    sample_rate_hz, channels : int
        Rate, and samples side by side.

    Raises
    ------
    AudioError
        A parameter is out of range.
    """

    fmt: str
    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.fmt not in PCM_FORMATS:
            raise AudioError(f"samples of format {self.fmt!r} are unknown; choose one of {', '.join(PCM_FORMATS)}")
        if self.sample_rate_hz < 1 or self.channels < 1:
            raise AudioError(f"{self.sample_rate_hz} Hz and {self.channels} channels: both must be 1 or more")

    @property
    def frame_bytes(self) -> int:
        """Of one sample of all channels."""
        return pcm_bytes(self.fmt) * self.channels


def pcm_bytes(fmt: str) -> int:
    """Bytes of one sample of a format of `PCM_FORMATS`."""
    return _SAMPLES[fmt][2]


def pcm_layout(fmt: str) -> dict[str, str]:
    """What `soundfile` wants to know of a format of `PCM_FORMATS`."""
    subtype, order, _ = _SAMPLES[fmt]
    return {"format": "RAW", "subtype": subtype, "endian": order}


def wav_header(sample_rate_hz: int, channels: int, n_bytes: int | None, *, roomy: bool) -> bytes:
    """Header of a WAV of 16 bit; past 4 GiB it is an RF64 (EBU Tech 3306).

    Parameters
    ----------
    n_bytes : int or None
        Of the samples.  None, for a stream: all that comes, which is written as the largest length.
    roomy : bool
        Leave room for the lengths of an RF64, so that the header has as many bytes whatever `n_bytes` is.

    Raises
    ------
    struct.error
        A number does not fit its field.
    """
    frame_bytes = 2 * channels
    fmt = _FMT.pack(1, channels, sample_rate_hz, sample_rate_hz * frame_bytes, frame_bytes, 16)
    rest = _chunk(b"fmt ", fmt) + _chunk(b"LIST", _TAG)
    room = 8 + _DS64.size if roomy else 0
    riff_bytes = None if n_bytes is None else 4 + room + len(rest) + 8 + n_bytes
    if riff_bytes is not None and riff_bytes > _MAX_RIFF_BYTES and roomy:
        lengths = _DS64.pack(riff_bytes, n_bytes, (n_bytes or 0) // frame_bytes, 0)
        head = struct.pack("<4sI4s", b"RF64", _UNKNOWN, b"WAVE") + _chunk(b"ds64", lengths)
        return head + rest + struct.pack("<4sI", b"data", _UNKNOWN)
    head = struct.pack("<4sI4s", b"RIFF", _UNKNOWN if riff_bytes is None else riff_bytes, b"WAVE")
    if roomy:
        head += _chunk(b"JUNK", bytes(_DS64.size))
    return head + rest + struct.pack("<4sI", b"data", _UNKNOWN if n_bytes is None else n_bytes)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


class Sink:
    """A file as libsndfile sees it: it begins behind a header of ours, and a failed write is kept to be raised later.

    An exception in a call from C is printed and forgotten; a stream that cannot seek must still tell where it is.

    Parameters
    ----------
    file : BinaryIO
        Where the bytes go.
    start : int
        Bytes of the header.

    Attributes
    ----------
    n_bytes : int
        Written, or left out by seeking, behind the header.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.n_bytes = 0
        self._file, self._start = file, start
        self._place = self._written_to = 0
        self._error: BaseException | None = None

    def tell(self) -> int:
        """Place behind the header."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; the file itself goes there when something is written."""
        self._place = offset + (0, self._place, self.n_bytes)[whence]
        return self._place

    def write(self, data: bytes) -> int:
        """Write, or keep the error."""
        if self._error is None:
            try:
                if self._place != self._written_to:
                    self._file.seek(self._start + self._place)
                self._file.write(data)
            except BaseException as error:
                self._error = error
        self._place += len(data)
        self._written_to = self._place
        self.n_bytes = max(self.n_bytes, self._place)
        return len(data)

    def read(self, n_bytes: int) -> bytes:
        """Nothing: libsndfile only asks whether there is such a method."""
        return b""

    def check(self) -> None:
        """Raise the error of a write that failed."""
        if self._error is not None:
            raise self._error


def made_here(file: Any) -> bool:
    """Whether an open `soundfile.SoundFile` says that it was written here."""
    return str(file.software).startswith(MADE_BY)
