"""Checks contenders against the reference, then times them in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamcodec.bench.contenders import Contender
from streamcodec.bench.reference import Float32, Weights, decode_clip, encode_clip
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError
from streamcodec.live.latency import LatencyHistogram

CHECK_FRAMES = 16
CODES_AGREE = 0.98
"""Share of codes that must equal the reference's: one near-tie decided otherwise changes the codes after it."""
AUDIO_ERROR = 1e-4

TURN_FRAMES = 100
"""Frames that one contender codes before the next one's turn."""


@dataclass
class Timing:
    """Latency of one contender, frame by frame."""

    contender: Contender
    encode: LatencyHistogram = field(default_factory=LatencyHistogram)
    decode: LatencyHistogram = field(default_factory=LatencyHistogram)


def drawn_frames(config: CodecConfig, count: int) -> Float32:
    """Noise that swells and fades, [count, hop]."""
    rng = np.random.default_rng(0)
    level = 0.3 * np.abs(np.sin(np.arange(count)))[:, None]
    return (level * rng.standard_normal((count, config.hop_samples))).astype(np.float32)


def check(contender: Contender, config: CodecConfig, weights: Weights) -> None:
    """Refuse a contender that does not compute the network; it must be fresh, and is not afterwards.

    Raises
    ------
    BackendError
        Codes or audio differ from the reference.
    """
    frames = drawn_frames(config, CHECK_FRAMES)
    expected = encode_clip(config, weights, frames.reshape(-1), contender.beam).T
    agree = float(np.mean([contender.encode(frame) == row for frame, row in zip(frames, expected, strict=True)]))
    audio = np.concatenate([contender.decode(np.ascontiguousarray(row)).copy() for row in expected])
    error = float(np.abs(audio - decode_clip(config, weights, list(expected))).max())
    if agree < CODES_AGREE or not error < AUDIO_ERROR:
        raise BackendError(
            f"{contender.name} is wrong: {agree:.1%} of the codes agree with the reference (at least {CODES_AGREE:.0%} "
            f"must), audio differs by {error:.1e} (at most {AUDIO_ERROR:.0e} may); nothing is reported"
        )


def time_in_turns(
    contenders: Sequence[tuple[Contender, int]],
    config: CodecConfig,
    progress: Callable[[int], None] = lambda frames: None,
) -> list[Timing]:
    """Encode and decode so many frames with each contender, TURN_FRAMES at a time in turns.

    contenders: each with the number of its frames.  progress: told how many frames are done since the last time.
    """
    frames = drawn_frames(config, TURN_FRAMES)
    timings = [Timing(contender) for contender, _ in contenders]
    for contender, _ in contenders:
        for frame in frames[:10]:
            contender.decode(contender.encode(frame))
    most = max(count for _, count in contenders)
    for done in range(0, most, TURN_FRAMES):
        for timing, (contender, count) in zip(timings, contenders, strict=True):
            turn = frames[: max(0, min(TURN_FRAMES, count - done))]
            for frame in turn:
                begin = time.perf_counter()
                codes = contender.encode(frame)
                middle = time.perf_counter()
                contender.decode(codes)
                end = time.perf_counter()
                timing.encode.record(1e3 * (middle - begin))
                timing.decode.record(1e3 * (end - middle))
            progress(len(turn))
    return timings
