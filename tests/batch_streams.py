"""Checks that every kind of `StreamBatch` passes: plain torch, Triton in its interpreter, a graph on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from network_reference import random_weights
from small_models import SMALL

from streamcodec import Codec, Decoder, Encoder
from streamcodec.bench.agreement import near_ties
from streamcodec.bitstream import pack_codes
from streamcodec.checkpoint import Checkpoint, load_checkpoint
from streamcodec.cli.loopback import sample_path
from streamcodec.config import CodecConfig
from streamcodec.engine.batch import UNUSED, StreamBatch
from streamcodec.engine.cpu import CpuEngine
from streamcodec.evaluation.sound_files import read_sound
from streamcodec.metrics.waveforms import resampled

NARROW = replace(SMALL, name="narrow", encoder_width=4, decoder_width=16, strides=(2, 3), dilations=(1, 3))
AUDIO_ERROR = 2e-5


def drawn_codec(config: CodecConfig) -> Codec:
    """Drawn weights on the CPU engine."""
    checkpoint = Checkpoint(config, random_weights(config), b"narrow..")
    return Codec(checkpoint, CpuEngine(config, checkpoint.arrays))


def narrow_batch(codec: Codec, streams: int, **options: Any) -> StreamBatch:
    """A batch at two codebooks, on the CPU unless `options` say otherwise."""
    return codec.batch(streams, **{"bitrate_bps": 2 * codec.config.bitrate_step_bps, "device": "cpu", **options})


def speech(codec: Codec, frames: int, start: int = 0) -> np.ndarray:
    """Frames [F, hop] of the bundled speech."""
    mono = resampled(*read_sound(sample_path()), codec.sample_rate_hz)
    hop = codec.frame_samples
    return np.clip(mono[start * hop : (start + frames) * hop], -1, 1).reshape(frames, hop).astype(np.float32)


class Twin:
    """One stream of the batch beside it, alone on the CPU engine."""

    def __init__(self, codec: Codec, bitrate_bps: float) -> None:
        self.encoder: Encoder = codec.encoder(bitrate_bps)
        self.decoder: Decoder = codec.decoder()

    def reset(self) -> None:
        self.encoder.reset()
        self.decoder.reset()


def check_random_lives(
    batch: StreamBatch, codec: Codec, ticks: int, seed: int = 0, audio_error: float = AUDIO_ERROR
) -> int:
    """Streams join, leave, are reset, change bitrate, pause and lose frames at random; each equals its twin.

    Returns the frames whose codes differ (near-ties); audio is compared on the same codes.
    """
    rng = np.random.default_rng(seed)
    config, twins = codec.config, dict[int, Twin]()
    counts = {"frames": 0, "lost": 0, "paused": 0, "joined": 0, "left": 0, "reset": 0, "other": 0}
    for _ in range(ticks):
        if len(twins) < batch.streams and rng.random() < 0.5:
            bitrate_bps = config.bitrate_step_bps * int(rng.integers(1, config.n_codebooks + 1))
            slot = batch.join(bitrate_bps)
            assert slot not in twins
            twins[slot] = Twin(codec, bitrate_bps)
            counts["joined"] += 1
        if len(twins) > 1 and rng.random() < 0.2:
            slot = int(rng.choice(list(twins)))
            batch.leave(slot)
            del twins[slot]
            counts["left"] += 1
        if rng.random() < 0.2:
            slot = int(rng.choice(list(twins) or [-1]))
            if slot >= 0:
                batch.reset(slot)
                twins[slot].reset()
                counts["reset"] += 1
                twins[slot].encoder.bitrate_bps = config.bitrate_step_bps
                batch.set_bitrate(slot, config.bitrate_step_bps)
        frames = (0.3 * rng.standard_normal((batch.streams, config.hop_samples))).astype(np.float32)
        received = np.full((batch.streams, config.n_codebooks), UNUSED, np.int16)
        for row in received:
            used = int(rng.integers(1, config.n_codebooks + 1))
            row[:used] = rng.integers(0, config.codebook_size, used)
        lost, advance = rng.random(batch.streams) < 0.3, rng.random(batch.streams) < 0.8
        made = batch.step(frames, received, lost=lost, advance=advance)
        for slot in range(batch.streams):
            if slot not in twins or not advance[slot]:
                assert (made.codes[slot] == UNUSED).all()
                assert (made.heard[slot] == 0).all()
                counts["paused"] += slot in twins
                continue
            twin = twins[slot]
            packet = twin.encoder.encode(np.clip(frames[slot], -1, 1))
            counts["frames"] += 1
            counts["other"] += batch.packet(slot) != packet
            heard = codec_decode(twin.decoder, None if lost[slot] else received[slot])
            counts["lost"] += int(lost[slot])
            np.testing.assert_allclose(made.heard[slot], heard, atol=audio_error)
    assert all(counts[what] for what in ("frames", "lost", "paused", "joined", "left", "reset")), counts
    return counts["other"]


def codec_decode(decoder: Decoder, codes: np.ndarray | None) -> np.ndarray:
    """What a decoder makes of the used ones of a row of codes."""
    if codes is None:
        return decoder.decode(None)
    return decoder.decode(pack_codes(codes[codes != UNUSED], decoder.codec.config.bits_per_code))


def life(batch: StreamBatch, slot: int, frames: np.ndarray, neighbours: np.random.Generator | None) -> list[np.ndarray]:
    """Codes and audio that the stream of `slot` gets of its frames [F, hop], heard back a step later.

    neighbours: draws what all other rows hold, NaN too; silence when None.
    """
    got: list[np.ndarray] = []
    echo = np.full(batch.config.n_codebooks, UNUSED, np.int16)
    batch.reset(slot)
    for frame in frames:
        if neighbours is not None:
            batch.frames[:] = neighbours.standard_normal(batch.frames.shape)
            batch.frames[:, ::7] = np.nan
            batch.received[:] = neighbours.integers(0, batch.config.codebook_size, batch.received.shape)
        batch.frames[slot], batch.received[slot] = frame, echo
        batch.step()
        echo = batch.codes[slot].copy()
        got += [echo, batch.heard[slot].copy()]
    return got


def check_independence(batch: StreamBatch, frames: np.ndarray) -> None:
    """All slots are taken; what one stream gets has the same bits alone, beside noise and in every slot."""
    for slot in range(batch.streams):
        assert batch.join() == slot
    alone = life(batch, 0, frames, None)
    assert np.abs(alone[-1]).max() > 1e-3
    for slot in range(batch.streams):
        beside = life(batch, slot, frames, np.random.default_rng(slot))
        for one, other in zip(alone, beside, strict=True):
            np.testing.assert_array_equal(one, other)
    for slot in range(1, batch.streams):
        batch.leave(slot)
    for one, other in zip(alone, life(batch, 0, frames, None), strict=True):
        np.testing.assert_array_equal(one, other)


def check_speech(batch: StreamBatch, bitrates_bps: Sequence[float], frames: int) -> None:
    """Real speech at several bitrates makes the CPU engine's codes but for near-ties, and its audio from them."""
    checkpoint = load_checkpoint()
    codec = Codec(checkpoint, CpuEngine(checkpoint.config, checkpoint.arrays))
    slots = [batch.join(bitrate_bps) for bitrate_bps in bitrates_bps]
    clips = [speech(codec, frames, 100 * slot) for slot in slots]
    decoders = [codec.decoder() for _ in slots]
    codes, sent = [], np.full((batch.streams, checkpoint.config.n_codebooks), UNUSED, np.int16)
    for f in range(frames):
        for slot, clip in zip(slots, clips, strict=True):
            batch.frames[slot] = clip[f]
        made = batch.step(codes=sent)
        for slot, decoder in zip(slots, decoders, strict=True):
            heard = codec_decode(decoder, sent[slot] if f else None)
            np.testing.assert_allclose(made.heard[slot], heard, atol=1e-4)
        sent = made.codes.copy()
        codes.append(sent)
    for slot, clip, bitrate_bps in zip(slots, clips, bitrates_bps, strict=True):
        expected = codec.tokenize(clip.reshape(-1), bitrate_bps).T
        ours = np.stack([row[slot, : expected.shape[1]] for row in codes])
        margins = near_ties(checkpoint.config, checkpoint.arrays, clip, expected, ours)
        assert len(margins) <= 1 + frames // 50, margins
        assert max(margins, default=0) < 1e-5
