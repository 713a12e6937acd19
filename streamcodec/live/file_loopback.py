"""A sound file through encoder and decoder frame by frame, at the pace of the clock, as a call would."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.audio.files import AudioWriter, is_own_sound
from streamcodec.audio.resample import StreamingResampler
from streamcodec.codec import Codec
from streamcodec.files import check_replaceable
from streamcodec.frames import FrameReader
from streamcodec.live.latency import LatencyHistogram
from streamcodec.transcode import OnStart

_WARM_UP_FRAMES = 20


@dataclass
class LoopbackReport:
    """What a loopback run measured.

    Parameters
    ----------
    frames : int
        Frames of each channel.
    audio_s : float
        Length of the audio.
    latency : LatencyHistogram
        From a frame's first sample to its decoded output: one frame of waiting, then until it was decoded.
    compute : LatencyHistogram
        Encoding and decoding of one frame, all channels.
    deadline_misses : int
        Frames that were not done when the next was due.
    packet_bytes : int
        All packets.
    codec_rate_hz, channels : int
        Of the run.
    problem : str or None
        What of the source could not be read, or is not as its header says.
    """

    frames: int
    audio_s: float
    latency: LatencyHistogram
    compute: LatencyHistogram
    deadline_misses: int
    packet_bytes: int
    codec_rate_hz: int
    channels: int
    paced: bool
    problem: str | None = None

    @property
    def bitrate_bps(self) -> float:
        """Bits of all packets over the length of the coded frames."""
        return 8 * self.packet_bytes / self.audio_s

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for each second of audio."""
        return self.compute.sum_ms / 1000 / self.audio_s

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON."""
        return {
            "frames": self.frames,
            "audio_s": self.audio_s,
            "channels": self.channels,
            "paced": self.paced,
            "latency": self.latency.summary() if self.paced else None,
            "compute": self.compute.summary(),
            "deadline_misses": self.deadline_misses,
            "bitrate_bps": self.bitrate_bps,
            "real_time_factor": self.real_time_factor,
        }


def run_file_loopback(
    codec: Codec,
    source: Path,
    target: Path,
    bitrate_bps: float,
    *,
    paced: bool = True,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    on_start: OnStart | None = None,
) -> LoopbackReport:
    """Code and decode `source` into `target`, one frame after the other.

    Paced, frame i is handed over when its last sample would have been recorded, (i + 1) frames after the start.
    `progress` is told the frames done since the last call, `on_start` how many there will be, if that is known.

    Raises
    ------
    FileExistsError
        The target is the source or, without `force`, somebody's recording.
    """
    check_replaceable(target, source, is_own_sound, "was not made by streamcodec", force=force)
    reader = FrameReader(source, codec)
    info = reader.info
    frame_s = codec.frame_samples / codec.sample_rate_hz
    if on_start is not None:
        on_start(round(info.duration_s / frame_s) or None)
    encoders = [codec.encoder(bitrate_bps) for _ in range(info.channels)]
    decoders = [codec.decoder() for _ in range(info.channels)]
    _warm_up(codec, bitrate_bps)
    report = LoopbackReport(
        0, 0.0, LatencyHistogram(), LatencyHistogram(), 0, 0, codec.sample_rate_hz, info.channels, paced
    )
    resampler = StreamingResampler(codec.sample_rate_hz, info.sample_rate_hz, info.channels)
    decoded = np.empty((codec.frame_samples, info.channels), np.float32)
    with AudioWriter(target, info.sample_rate_hz, info.channels) as writer:
        gc.collect()
        gc.freeze()
        try:
            start = time.perf_counter()
            for frame in reader:
                due = start + (report.frames + 1) * frame_s
                now = time.perf_counter()
                if paced and now < due:
                    time.sleep(due - now)
                begun = time.perf_counter()
                for channel in range(info.channels):
                    packet = encoders[channel].encode(frame[channel])
                    decoded[:, channel] = decoders[channel].decode(packet)
                    report.packet_bytes += len(packet)
                done = time.perf_counter()
                report.frames += 1
                report.compute.record(1000 * (done - begun))
                if paced:
                    report.latency.record(1000 * (frame_s + done - due))
                report.deadline_misses += done - (due if paced else begun) > frame_s
                writer.write(resampler.process(decoded)[: max(0, reader.n_samples - writer.n_samples)])
                if progress is not None:
                    progress(1)
        finally:
            gc.unfreeze()
        rest = resampler.finish(max(reader.n_samples, resampler.n_out_samples))
        writer.write(rest[: max(0, reader.n_samples - writer.n_samples)])
    report.audio_s = report.frames * frame_s
    report.problem = reader.problem
    return report


def _warm_up(codec: Codec, bitrate_bps: float) -> None:
    encoder, decoder = codec.encoder(bitrate_bps), codec.decoder()
    silence = np.zeros(codec.frame_samples, np.float32)
    for _ in range(_WARM_UP_FRAMES):
        decoder.decode(encoder.encode(silence))
