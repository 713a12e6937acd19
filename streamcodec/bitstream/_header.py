"""The header of a `.scx` file: what a decoder must know before the first block."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from streamcodec.bitstream._packets import MAX_BITS_PER_CODE, MAX_CODEBOOKS
from streamcodec.errors import CorruptStream, TruncatedStream, UnsupportedVersion

MAGIC = b"\x89SCX"
VERSION = 1
MODEL_ID_BYTES = 8
MAX_CHANNELS = 8
MAX_BLOCK_FRAMES = 65_535
DEFAULT_BLOCK_BITS = 12_000

_LENGTH_KNOWN = 1
_FIELDS = struct.Struct(">4sBBBBBHH8sIIQ")
_CRC = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CRC.size


def is_scx(path: Path) -> bool:
    """Whether a file begins as a `.scx` file does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@dataclass(frozen=True)
class ScxHeader:
    """What a `.scx` file says about itself.

    Parameters
    ----------
    model_id : bytes
        8 bytes that name the weights the codes were made with.
    sample_rate_hz : int
        Rate of the original audio, which decoding restores; 1000 to 768000.
    codec_rate_hz : int
        Rate at which the codec runs; 1000 to 384000.
    hop_samples : int
        Samples in one frame, at `codec_rate_hz`; 1 to 65535.
    channels : int
        Streams, interleaved frame by frame; 1 to 8.
    n_codebooks : int
        Codes per frame and channel; 1 to 64.
    bits_per_code : int
        1 to 15.
    n_samples : int or None
        Samples per channel of the original audio, at `sample_rate_hz`; None when not known (yet).
    block_frames : int
        Frames in every block but the last, 1 to 65535; 0 picks as many as fit in about 1500 bytes.

    Raises
    ------
    CorruptStream
        A field is out of range.
    """

    model_id: bytes
    sample_rate_hz: int
    codec_rate_hz: int
    hop_samples: int
    channels: int
    n_codebooks: int
    bits_per_code: int
    n_samples: int | None = None
    block_frames: int = 0

    def __post_init__(self) -> None:
        if len(self.model_id) != MODEL_ID_BYTES:
            raise CorruptStream(f"the header's model_id is {len(self.model_id)} bytes; it must be {MODEL_ID_BYTES}.")
        for field, low, high in (
            ("channels", 1, MAX_CHANNELS),
            ("n_codebooks", 1, MAX_CODEBOOKS),
            ("bits_per_code", 1, MAX_BITS_PER_CODE),
            ("sample_rate_hz", 1000, 768_000),
            ("codec_rate_hz", 1000, 384_000),
            ("hop_samples", 1, 65_535),
            ("block_frames", 0, MAX_BLOCK_FRAMES),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                raise CorruptStream(f"the header's {field} is {value}; it must be from {low} to {high}.")
        if self.n_samples is not None and not 0 <= self.n_samples < 1 << 64:
            raise CorruptStream(f"the header's n_samples is {self.n_samples}; it must be from 0 to 2**64 - 1.")
        if self.block_frames == 0:
            object.__setattr__(self, "block_frames", max(1, DEFAULT_BLOCK_BITS // self.frame_bits))

    @property
    def frame_bits(self) -> int:
        """Bits of one frame of all channels."""
        return self.channels * self.n_codebooks * self.bits_per_code

    @property
    def frame_rate_hz(self) -> float:
        """Frames in one second."""
        return self.codec_rate_hz / self.hop_samples

    @property
    def bitrate_bps(self) -> float:
        """Nominal bitrate of all channels."""
        return self.frame_bits * self.frame_rate_hz

    @property
    def n_frames(self) -> int | None:
        """Frames in the whole file, None when its length is not known."""
        return None if self.n_samples is None else self.frames_for(self.n_samples)

    def frames_for(self, n_samples: int) -> int:
        """Frames that `n_samples` of the original audio take.

        Examples
        --------
        >>> header = ScxHeader(bytes(8), 44_100, 24_000, 320, channels=1, n_codebooks=8, bits_per_code=10)
        >>> header.frames_for(44_100)
        75
        """
        codec_samples = (2 * n_samples * self.codec_rate_hz + self.sample_rate_hz) // (2 * self.sample_rate_hz)
        return -(-codec_samples // self.hop_samples)

    def samples_for(self, n_frames: int) -> int:
        """Whole samples of the original rate that `n_frames` carry."""
        return n_frames * self.hop_samples * self.sample_rate_hz // self.codec_rate_hz

    def payload_bytes(self, n_frames: int) -> int:
        """Bytes of the codes of a block of `n_frames`."""
        return (n_frames * self.frame_bits + 7) // 8

    def check_model(self, codec_rate_hz: int, hop_samples: int, bits_per_code: int, n_codebooks: int) -> None:
        """Refuse a header that contradicts the model whose id it has; `n_codebooks` is the most that the model makes.

        Raises
        ------
        CorruptStream
            A field is not the model's; it is named.
        """
        for field, own in (
            ("codec_rate_hz", codec_rate_hz),
            ("hop_samples", hop_samples),
            ("bits_per_code", bits_per_code),
        ):
            value = getattr(self, field)
            if value != own:
                raise CorruptStream(f"the header's {field} is {value}, but {own} in the model that it names.")
        if self.n_codebooks > n_codebooks:
            raise CorruptStream(
                f"the header's n_codebooks is {self.n_codebooks}, but the model that it names has {n_codebooks}."
            )

    def to_bytes(self) -> bytes:
        """The header's bytes, CRC last."""
        data = _FIELDS.pack(
            MAGIC,
            VERSION,
            0 if self.n_samples is None else _LENGTH_KNOWN,
            self.channels,
            self.n_codebooks,
            self.bits_per_code,
            self.block_frames,
            self.hop_samples,
            self.model_id,
            self.sample_rate_hz,
            self.codec_rate_hz,
            self.n_samples or 0,
        )
        return data + _CRC.pack(zlib.crc32(data))

    @classmethod
    def from_bytes(cls, data: bytes) -> ScxHeader:
        """Read the header from the first bytes of a file.

        Raises
        ------
        CorruptStream
            Not a `.scx` file, the CRC is wrong, or a field is out of range.
        UnsupportedVersion
            The format's version, or a flag, is not of version 1.
        TruncatedStream
            There are fewer bytes than a header has.
        """
        if not data:
            raise TruncatedStream("the file is empty; a .scx file starts with a header.")
        if data[:4] != MAGIC[: len(data)]:
            raise CorruptStream(f"this is not a .scx file: it starts with {data[:4]!r}, not {MAGIC!r}.")
        if len(data) > 4 and data[4] != VERSION:
            raise UnsupportedVersion(f"the file has format version {data[4]}; this program reads version {VERSION}.")
        if len(data) < HEADER_BYTES:
            raise TruncatedStream(f"the file ends after {len(data)} bytes, inside its {HEADER_BYTES}-byte header.")
        (stored,) = _CRC.unpack_from(data, _FIELDS.size)
        if stored != zlib.crc32(data[: _FIELDS.size]):
            raise CorruptStream("the header's checksum does not hold; the file was damaged.")
        (_, _, flags, channels, n_codebooks, bits, block_frames, hop, model_id, rate_hz, codec_rate_hz, n_samples) = (
            _FIELDS.unpack_from(data)
        )
        if flags & ~_LENGTH_KNOWN:
            raise UnsupportedVersion(f"the header's flags are {flags:#04x}; version {VERSION} knows 0x00 and 0x01.")
        if block_frames == 0 or (n_samples and not flags):
            raise CorruptStream("the header contradicts itself: no frames in a block, or a length that is not known.")
        return cls(
            model_id=model_id,
            sample_rate_hz=rate_hz,
            codec_rate_hz=codec_rate_hz,
            hop_samples=hop,
            channels=channels,
            n_codebooks=n_codebooks,
            bits_per_code=bits,
            n_samples=n_samples if flags else None,
            block_frames=block_frames,
        )
