"""Whole files through a codec: sound to `.scx` and back, block by block, a stream for each channel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from streamcodec.audio.files import AudioWriter, is_own_sound
from streamcodec.audio.pcm import RawSound
from streamcodec.audio.resample import StreamingResampler, resampled_length
from streamcodec.bitstream import ScxHeader, ScxReader, ScxWriter, is_scx
from streamcodec.codec import Codec
from streamcodec.engine import Float32, Int16
from streamcodec.engine.beam import checked_beam
from streamcodec.engine.clips import BLOCK_FRAMES, decode_frames, encode_frames
from streamcodec.errors import BitstreamError, CorruptStream
from streamcodec.files import atomic_output, check_replaceable, open_input
from streamcodec.frames import FrameReader

_PIECE_VALUES = 1 << 18
"""Samples, all channels counted, that are decoded or resampled at once."""

Progress = Callable[[int], None]
"""Called with the number of samples (per channel) done since the last call."""
OnStart = Callable[[int | None], None]
"""Called once with the number of samples (per channel) to do, None where it is not known."""


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
    problem : str or None
        What of the input could not be read, or is not as its header says.
    """

    n_samples: int
    sample_rate_hz: int
    channels: int
    n_bytes: int
    nominal_bps: float
    true_bps: float
    clamped_samples: int
    problem: str | None


@dataclass(frozen=True)
class DecodeReport:
    """What decoding a file gave.

    Parameters
    ----------
    n_samples, sample_rate_hz, channels : int
        Of the output.
    lost_frames : int
        Frames of damaged blocks, which were concealed.
    lost_s : float
        Their length in seconds.
    clipped_samples : int
        Output values beyond full scale, which were clipped.
    problem : str or None
        The first damage that was met, or where the file was cut, and the error's name before it.
    unread_bytes : int
        What follows the end marker in a file, as when two files were joined; a pipe is not read past it.
    """

    n_samples: int
    sample_rate_hz: int
    channels: int
    lost_frames: int
    lost_s: float
    clipped_samples: int
    problem: str | None
    unread_bytes: int = 0


def encode_file(
    codec: Codec,
    source: Path,
    target: Path,
    bitrate_bps: float,
    progress: Progress | None = None,
    *,
    beam: int = 1,
    raw: RawSound | None = None,
    force: bool = False,
    on_start: OnStart | None = None,
) -> EncodeReport:
    """Encode a sound file or a pipe; a `.scx` file takes its name only when it is complete.

    Parameters
    ----------
    source, target : Path
        Also `streamcodec.files.STDIN` and `STDOUT`, or named pipes.
    beam : int
        As in `Codec.encoder`.
    raw : RawSound, optional
        The source is bare samples of this kind.
    force : bool
        Replace a target that is no `.scx` file.

    Raises
    ------
    AudioError
        The source is not sound that can be coded.
    ConfigError
        The beam is no whole number from 1 to 16.
    FileExistsError
        The target is the source, or a file that is no `.scx` file.
    OSError
        The target cannot be written.
    """
    config = codec.config
    count, beam = config.codebooks_for(bitrate_bps), checked_beam(beam)
    check_replaceable(target, source, is_scx, "is no .scx file", force=force)
    reader = FrameReader(source, codec, raw)
    info = reader.info
    if on_start is not None:
        on_start(info.n_samples or None)
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
        encode_frames(codec.engine, frames[:filled], state, codes[:filled], beam)
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
        n_bytes = writer.n_bytes
    duration_s = reader.n_samples / info.sample_rate_hz
    return EncodeReport(
        n_samples=reader.n_samples,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        n_bytes=n_bytes,
        nominal_bps=header.bitrate_bps,
        true_bps=8 * n_bytes / duration_s,
        clamped_samples=reader.clamped_samples,
        problem=reader.problem,
    )


def decode_file(
    codec: Codec,
    source: Path,
    target: Path,
    *,
    strict: bool = False,
    progress: Progress | None = None,
    fmt: str | None = None,
    sample_rate_hz: int | None = None,
    force: bool = False,
    on_start: OnStart | None = None,
) -> DecodeReport:
    """Decode a `.scx` file or a pipe.

    Not strict: damaged blocks are concealed, and a file that was cut is decoded up to the cut; the report says so.
    Sound is made in pieces, whose size depends neither on the file's blocks nor on its rate.

    Parameters
    ----------
    source, target : Path
        Also `streamcodec.files.STDIN` and `STDOUT`, or named pipes.
    fmt : str, optional
        As in `AudioWriter`.
    sample_rate_hz : int, optional
        Rate of the target; that of the original by default.
    force : bool
        Replace a target that was not made by streamcodec.

    Raises
    ------
    BitstreamError
        The file is not one of this model's, or its header contradicts the model, in which case nothing was decoded;
        when strict, it is damaged or cut.
    FileExistsError
        The target is the source, or somebody's recording.
    OSError
        The target cannot be written.
    """
    check_replaceable(target, source, is_own_sound, "was not made by streamcodec", force=force)
    with _naming(source), open_input(source) as file:
        reader = ScxReader(file, model_id=codec.model_id, strict=strict, on_corrupt="raise" if strict else "conceal")
        header, config = reader.header, codec.config
        header.check_model(config.sample_rate_hz, config.hop_samples, config.bits_per_code, config.n_codebooks)
        rate_hz = sample_rate_hz or header.sample_rate_hz

        def length(n_samples: int | None) -> int | None:
            return n_samples and resampled_length(n_samples, header.sample_rate_hz, rate_hz)

        if on_start is not None:
            on_start(length(header.n_samples))
        resampler = StreamingResampler(header.codec_rate_hz, rate_hz, header.channels)
        # the last frame's silence must not be written before the end marker has told where the sound ends
        n_held = 0 if header.n_samples is not None else header.hop_samples * rate_hz // header.codec_rate_hz + 2
        held = np.zeros((0, header.channels), np.float32)
        total = length(header.n_samples)
        with AudioWriter(target, rate_hz, header.channels, fmt=fmt, n_samples=total) as writer:
            for samples in _decoded(codec, reader, rate_hz):
                held = np.concatenate([held, resampler.process(samples)])
                ready = max(0, len(held) - n_held)
                writer.write(_trimmed(held[:ready], total, writer.n_samples))
                held = held[ready:]
                if progress is not None:
                    progress(len(samples) * rate_hz // header.codec_rate_hz)
            total = length(reader.n_samples)
            rest = resampler.finish() if reader.problem or total is None else _rest(resampler, total)
            writer.write(_trimmed(np.concatenate([held, rest]), total, writer.n_samples))
            unread = 0 if reader.problem else _unread_bytes(file)
            if unread and strict:
                raise CorruptStream(f"{unread} bytes follow the end of the recording; try it without --strict.")
    return DecodeReport(
        n_samples=writer.n_samples,
        sample_rate_hz=rate_hz,
        channels=header.channels,
        lost_frames=reader.lost_frames,
        lost_s=reader.lost_frames / header.frame_rate_hz,
        clipped_samples=writer.clipped_samples,
        problem=None if reader.problem is None else f"{type(reader.problem).__name__}: {reader.problem}",
        unread_bytes=unread,
    )


def _unread_bytes(file: BinaryIO) -> int:
    """Bytes of a file from where it is to its end; 0 for a pipe, where they belong to whoever reads on."""
    if not file.seekable():
        return 0
    at = file.tell()
    return file.seek(0, os.SEEK_END) - at


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


def scx_header(path: Path) -> ScxHeader:
    """Header of a `.scx` file.

    Raises
    ------
    BitstreamError
        The file is none, or its header is damaged.
    """
    with _naming(path), open_input(path) as file:
        return ScxReader(file).header


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have errors of the bitstream name the file."""
    try:
        yield
    except BitstreamError as error:
        raise type(error)(f"{path}: {error}") from None
