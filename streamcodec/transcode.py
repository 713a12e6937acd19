"""Whole files through a codec: sound to `.scx` and back, block by block, a stream for each channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from streamcodec.audio.files import AudioWriter, audio_info, read_blocks
from streamcodec.audio.resample import StreamingResampler
from streamcodec.bitstream import ScxHeader, ScxReader, ScxWriter
from streamcodec.codec import Codec
from streamcodec.engine import Float32, Int16
from streamcodec.engine.clips import BLOCK_FRAMES, decode_frames, encode_frames
from streamcodec.errors import AudioError
from streamcodec.files import atomic_output

MAX_CHANNELS = 8
_BLOCK_SAMPLES = 1 << 16
_PIECE_VALUES = 1 << 18
"""Samples, all channels counted, that are decoded or resampled at once."""

Progress = Callable[[int], None]
"""Called with the number of samples (per channel) done since the last call."""


@dataclass(frozen=True)
class EncodeReport:
    """What encoding a file gave.

    Parameters
    ----------
    n_samples, sample_rate_hz, channels : int
        Of the input.
    n_bytes : int
        Size of the output.
    nominal_bps, true_bps : float
        Bitrate of the codes, and of the whole file.
    clamped_samples : int
        Input values beyond full scale, which were clamped.
    """

    n_samples: int
    sample_rate_hz: int
    channels: int
    n_bytes: int
    nominal_bps: float
    true_bps: float
    clamped_samples: int


@dataclass(frozen=True)
class DecodeReport:
    """What decoding a file gave.

    Parameters
    ----------
    n_samples, sample_rate_hz, channels : int
        Of the output.
    lost_frames : int
        Frames of damaged blocks, which were concealed.
    clipped_samples : int
        Output values beyond full scale, which were clipped.
    problem : str or None
        Why the end is missing, if it is.
    """

    n_samples: int
    sample_rate_hz: int
    channels: int
    lost_frames: int
    clipped_samples: int
    problem: str | None


class FrameReader:
    """Frames of a sound file at the codec's rate: [channels, hop], the last one filled up with silence.

    Attributes
    ----------
    n_samples, clamped_samples : int
        Samples per channel read so far, and values that were beyond full scale.
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        self.info = audio_info(path)
        self.n_samples = 0
        self.clamped_samples = 0
        self._path, self._hop = path, codec.frame_samples
        if self.info.channels > MAX_CHANNELS:
            raise AudioError(f"{path} has {self.info.channels} channels; at most {MAX_CHANNELS} can be coded")
        self._resampler = StreamingResampler(self.info.sample_rate_hz, codec.sample_rate_hz, self.info.channels)

    def __iter__(self) -> Iterator[Float32]:
        waiting = np.zeros((0, self.info.channels), np.float32)
        for block in read_blocks(self._path, _BLOCK_SAMPLES):
            self.n_samples += len(block)
            self.clamped_samples += int((np.abs(block) > 1).sum())
            rows = np.concatenate([waiting, self._resampler.process(np.clip(block, -1, 1))])
            whole = len(rows) // self._hop * self._hop
            yield from self._frames(rows[:whole])
            waiting = rows[whole:]
        rows = np.concatenate([waiting, self._resampler.finish()])
        missing = -len(rows) % self._hop
        yield from self._frames(np.pad(rows, ((0, missing), (0, 0))))

    def _frames(self, rows: Float32) -> Iterator[Float32]:
        for start in range(0, len(rows), self._hop):
            yield np.ascontiguousarray(np.clip(rows[start : start + self._hop], -1, 1).T)


def encode_file(
    codec: Codec, source: Path, target: Path, bitrate_bps: float, progress: Progress | None = None
) -> EncodeReport:
    """Encode a sound file; the `.scx` file takes its name only when it is complete."""
    config = codec.config
    count = config.codebooks_for(bitrate_bps)
    reader = FrameReader(source, codec)
    info = reader.info
    header = ScxHeader(
        model_id=codec.model_id,
        sample_rate_hz=info.sample_rate_hz,
        codec_rate_hz=config.sample_rate_hz,
        hop_samples=config.hop_samples,
        channels=info.channels,
        n_codebooks=count,
        bits_per_code=config.bits_per_code,
    )
    state = codec.engine.encoder_state(info.channels)
    frames = np.empty((header.block_frames, info.channels, config.hop_samples), np.float32)
    codes = np.empty((header.block_frames, info.channels, count), np.int16)

    def coded(filled: int) -> Int16:
        encode_frames(codec.engine, frames[:filled], state, codes[:filled])
        return np.ascontiguousarray(codes[:filled].transpose(1, 2, 0))

    with atomic_output(target) as file:
        writer = ScxWriter(file, header)
        filled, reported = 0, 0
        for frame in reader:
            frames[filled] = frame
            filled += 1
            if filled == len(frames):
                writer.write(coded(filled))
                filled = 0
            if progress is not None and reader.n_samples > reported:
                progress(reader.n_samples - reported)
                reported = reader.n_samples
        if filled:
            writer.write(coded(filled))
        writer.close(reader.n_samples)
        n_bytes = file.tell()
    duration_s = reader.n_samples / info.sample_rate_hz
    return EncodeReport(
        n_samples=reader.n_samples,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        n_bytes=n_bytes,
        nominal_bps=header.bitrate_bps,
        true_bps=8 * n_bytes / duration_s,
        clamped_samples=reader.clamped_samples,
    )


def decode_file(
    codec: Codec, source: Path, target: Path, *, strict: bool = False, progress: Progress | None = None
) -> DecodeReport:
    """Decode a `.scx` file.

    Not strict: damaged blocks are concealed, and a file that was cut is decoded up to the cut; the report says so.
    Sound is made in pieces, whose size depends neither on the file's blocks nor on its rate.

    Raises
    ------
    BitstreamError
        The file is not one of this model's, or its header contradicts the model, in which case nothing was decoded;
        when strict, it is damaged or cut.
    """
    with source.open("rb") as file:
        reader = ScxReader(file, model_id=codec.model_id, strict=strict, on_corrupt="raise" if strict else "conceal")
        header, config = reader.header, codec.config
        header.check_model(config.sample_rate_hz, config.hop_samples, config.bits_per_code, config.n_codebooks)
        resampler = StreamingResampler(header.codec_rate_hz, header.sample_rate_hz, header.channels)
        with AudioWriter(target, header.sample_rate_hz, header.channels) as writer:
            for samples in _decoded(codec, reader, header.sample_rate_hz):
                writer.write(_trimmed(resampler.process(samples), header.n_samples, writer.n_samples))
                if progress is not None:
                    progress(len(samples) * header.sample_rate_hz // header.codec_rate_hz)
            total = reader.n_samples
            rest = resampler.finish() if reader.problem or total is None else _rest(resampler, total)
            writer.write(_trimmed(rest, total, writer.n_samples))
    return DecodeReport(
        n_samples=writer.n_samples,
        sample_rate_hz=header.sample_rate_hz,
        channels=header.channels,
        lost_frames=reader.lost_frames,
        clipped_samples=writer.clipped_samples,
        problem=None if reader.problem is None else str(reader.problem),
    )


def _decoded(codec: Codec, reader: ScxReader, out_hz: int) -> Iterator[Float32]:
    """Audio at the codec's rate in pieces [T, channels], short ones where they become long at `out_hz`."""
    channels, hop = reader.header.channels, codec.frame_samples
    state = codec.engine.decoder_state(channels)
    n_frames = min(max(1, _PIECE_VALUES // (channels * hop)), BLOCK_FRAMES)
    ratio = max(1, out_hz / codec.sample_rate_hz)
    n_samples = max(1, int(_PIECE_VALUES / (channels * ratio)))
    for block in reader:
        for start in range(0, block.shape[2], n_frames):
            codes = np.ascontiguousarray(block[:, :, start : start + n_frames].transpose(2, 0, 1))
            frames = np.empty((len(codes), channels, hop), np.float32)
            decode_frames(codec.engine, codes, state, frames)
            samples = np.ascontiguousarray(frames.transpose(0, 2, 1)).reshape(-1, channels)
            for at in range(0, len(samples), n_samples):
                yield samples[at : at + n_samples]


def _trimmed(samples: Float32, total: int | None, written: int) -> Float32:
    return samples if total is None else samples[: max(0, total - written)]


def _rest(resampler: StreamingResampler, total: int) -> Float32:
    return resampler.finish(max(total, resampler.n_out_samples))


def open_scx_header(file: BinaryIO) -> ScxHeader:
    """Header of a `.scx` file."""
    return ScxReader(file).header
