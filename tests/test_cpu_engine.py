"""The CPU engine runs the network of `architecture.py`, frame by frame, with state that is plain data."""

from __future__ import annotations

import platform
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from network_reference import decode_clip, encode_clip, random_weights
from numba.core.runtime import _nrt_python, rtsys
from small_models import STRIDED

from streamcodec.architecture import footprint
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.engine.cpu import CpuEngine
from streamcodec.errors import AudioError, BackendError, CheckpointError
from streamcodec_kernels._simd import HALF_FLOATS
from streamcodec_kernels.program.layout import GROUP_STREAMS

TINY = PRESETS["tiny-24k"]
SMALL = replace(TINY, name="small", encoder_width=3, decoder_width=20, strides=(3, 2), latent_dim=5, n_codebooks=3)
STREAMS = GROUP_STREAMS + 3
CONFIGS = {
    "tiny": TINY,
    "base": PRESETS["base-24k"],
    "small": SMALL,
    "dense": replace(SMALL, name="dense", depthwise=False),
    "odd kernels": replace(SMALL, name="odd", residual_kernel=4, edge_kernel=2, latent_kernel=1, dilations=(1, 2, 5)),
    "voice": PRESETS["voice-24k"],
    "strided": STRIDED,
    "one stride": replace(
        STRIDED, strides=(6,), encoder_width=5, decoder_width=(8,), dilations=((1, 3),), latent_kernel=2, n_codebooks=2
    ),
    "stride 1": replace(SMALL, name="stride 1", strides=(1, 4), residual_kernel=1, edge_kernel=1),
}


def waveform(config: CodecConfig, frames: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal((frames, config.hop_samples))).astype(np.float32)


def encode(engine: CpuEngine, frames: np.ndarray, state: np.ndarray, n_codebooks: int) -> np.ndarray:
    """Codes [F, K] of one stream's frames [F, hop]."""
    codes = np.full((len(frames), 1, n_codebooks), -1, np.int16)
    for frame, row in zip(frames, codes, strict=True):
        engine.encode_step(frame[None], state, row)
    return codes[:, 0]


def decode(engine: CpuEngine, codes: list[np.ndarray], state: np.ndarray) -> np.ndarray:
    """Frames [F, hop] of one stream's codes, each [K]."""
    frames = np.full((len(codes), 1, engine.config.hop_samples), np.nan, np.float32)
    for row, frame in zip(codes, frames, strict=True):
        engine.decode_step(row[None], state, frame)
    return frames[:, 0]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_steps_equal_the_whole_clip(config: CodecConfig) -> None:
    frames, weights = waveform(config, 24), random_weights(config)
    engine = CpuEngine(config, weights)
    expected = encode_clip(config, weights, frames.reshape(-1)).T
    np.testing.assert_array_equal(encode(engine, frames, engine.encoder_state(), config.n_codebooks), expected)
    lost = [row[:0] if f in (3, 4) else row[: 1 + f % config.n_codebooks] for f, row in enumerate(expected)]
    audio = decode(engine, lost, engine.decoder_state())
    np.testing.assert_allclose(audio.reshape(-1), decode_clip(config, weights, lost), rtol=1e-5, atol=1e-4)
    assert audio.std() > 0.01


def test_inputs_may_be_views_but_outputs_must_be_contiguous() -> None:
    engine = CpuEngine(SMALL, random_weights(SMALL))
    frames, codes = np.repeat(waveform(SMALL, 2), 2, axis=1), np.zeros((2, 6), np.int16)
    engine.encode_step(frames[:, ::2], engine.encoder_state(2), codes[:, :3].copy())
    engine.decode_step(codes[:, ::2], engine.decoder_state(2), waveform(SMALL, 2))
    with pytest.raises(AudioError, match="contiguous"):
        engine.encode_step(frames[:, ::2], engine.encoder_state(2), codes[:, ::2])
    state = engine.encoder_state()
    state.flags.writeable = False
    with pytest.raises(AudioError, match="writable"):
        engine.encode_step(waveform(SMALL, 1), state, np.zeros((1, 3), np.int16))


@pytest.mark.parametrize("config", [TINY, PRESETS["voice-24k"]], ids=["tiny", "voice"])
def test_streams_together_equal_streams_alone(config: CodecConfig) -> None:
    engine, books = CpuEngine(config, random_weights(config)), config.n_codebooks
    inputs = np.stack([waveform(config, 6, seed) for seed in range(STREAMS)])
    states, decoder_states = engine.encoder_state(STREAMS), engine.decoder_state(STREAMS)
    for f in range(6):
        codes, frames = np.zeros((STREAMS, books), np.int16), np.full((STREAMS, config.hop_samples), np.nan, np.float32)
        engine.encode_step(np.ascontiguousarray(inputs[:, f]), states, codes)
        engine.decode_step(codes, decoder_states, frames)
    for stream in range(STREAMS):
        state, decoder_state = engine.encoder_state(), engine.decoder_state()
        alone = encode(engine, inputs[stream], state, books)
        np.testing.assert_array_equal(alone[-1], codes[stream])
        audio = decode(engine, list(alone), decoder_state)
        np.testing.assert_allclose(audio[-1], frames[stream], rtol=1e-5, atol=1e-5)


def test_fewer_codebooks_are_a_prefix() -> None:
    engine = CpuEngine(TINY, random_weights(TINY))
    frames = waveform(TINY, 5)
    every = encode(engine, frames, engine.encoder_state(), 12)
    np.testing.assert_array_equal(encode(engine, frames, engine.encoder_state(), 4), every[:, :4])


def test_copying_state_copies_the_stream_and_zeroing_resets_it() -> None:
    engine = CpuEngine(TINY, random_weights(TINY))
    first, second = waveform(TINY, 4, 1), waveform(TINY, 4, 2)
    state = engine.encoder_state()
    fresh = encode(engine, first, state, 12)
    copy = state.copy()
    onwards = encode(engine, second, state, 12)
    np.testing.assert_array_equal(encode(engine, second, copy, 12), onwards)
    state[:] = 0
    np.testing.assert_array_equal(encode(engine, first, state, 12), fresh)


def test_threads_share_one_engine() -> None:
    engine = CpuEngine(TINY, random_weights(TINY))
    inputs = [waveform(TINY, 20, seed) for seed in range(4)]
    alone = [encode(engine, frames, engine.encoder_state(), 12) for frames in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda frames: encode(engine, frames, engine.encoder_state(), 12), inputs))
    np.testing.assert_array_equal(together, alone)


def test_ten_thousand_frames_allocate_nothing_but_the_handles_of_their_arrays() -> None:
    engine = CpuEngine(SMALL, random_weights(SMALL))
    frames, codes = waveform(SMALL, 1), np.zeros((1, 3), np.int16)
    state, decoder_state = engine.encoder_state(), engine.decoder_state()

    def run(count: int) -> None:
        for _ in range(count):
            engine.encode_step(frames, state, codes)
            engine.decode_step(codes, decoder_state, frames)

    _nrt_python.memsys_enable_stats()
    tracemalloc.start()
    run(10)
    before, python_before = rtsys.get_allocation_stats(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    run(10_000)
    after, (python_after, python_peak) = rtsys.get_allocation_stats(), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    handles = 2 * 3 * 10_000  # Numba's own, of frames, state and codes: made and freed by each call
    assert after.alloc - before.alloc == after.mi_alloc - before.mi_alloc == handles
    assert after.free - before.free == after.mi_free - before.mi_free == handles
    assert python_after - python_before < 1024
    assert python_peak - python_before < 4096


@pytest.mark.parametrize("level", [0.0, 1e-45, 1e-40, 1e-38])
def test_silence_and_denormals_stay_finite(level: float) -> None:
    weights = {key: array if "bias" not in key else 0 * array for key, array in random_weights(TINY).items()}
    engine = CpuEngine(TINY, weights)
    frames = np.full((20, TINY.hop_samples), level, np.float32)
    codes = encode(engine, frames, engine.encoder_state(), 12)
    assert np.all((codes >= 0) & (codes < TINY.codebook_size))
    assert np.all(np.isfinite(decode(engine, list(codes), engine.decoder_state())))


def test_denormals_are_flushed_inside_a_step_alone() -> None:
    weights = {key: array if "bias" not in key else 0 * array for key, array in random_weights(TINY).items()}
    engine = CpuEngine(TINY, weights)
    state = engine.encoder_state()
    encode(engine, np.full((3, TINY.hop_samples), 1e-40, np.float32), state, 12)
    tiny = np.finfo(np.float32).tiny
    if platform.machine() in ("x86_64", "AMD64"):
        computed = state[:, TINY.edge_kernel :]  # what comes before is the input itself
        assert not np.any((computed != 0) & (np.abs(computed) < tiny))
    assert np.float32(tiny) / np.float32(4) > 0


@pytest.mark.parametrize("config", [TINY, PRESETS["base-24k"], PRESETS["voice-24k"]], ids=["tiny", "base", "voice"])
def test_float16_weights_are_kept_as_such_and_change_nothing(config: CodecConfig) -> None:
    rounded = {key: array.astype(np.float16).astype(np.float32) for key, array in random_weights(config).items()}
    frames = waveform(config, 12)
    engine = CpuEngine(config, rounded)
    assert engine.half_bytes > 1_000_000 if HALF_FLOATS else engine.half_bytes == 0
    expected = encode_clip(config, rounded, frames.reshape(-1)).T
    codes = encode(engine, frames, engine.encoder_state(), config.n_codebooks)
    np.testing.assert_array_equal(codes, expected)
    audio = decode(engine, list(expected), engine.decoder_state())
    np.testing.assert_allclose(audio.reshape(-1), decode_clip(config, rounded, list(expected)), rtol=1e-5, atol=1e-4)


def test_asking_for_float16_weights_rounds_them() -> None:
    weights = random_weights(TINY)
    codes = list(encode(CpuEngine(TINY, weights), waveform(TINY, 12), CpuEngine(TINY, weights).encoder_state(), 12))
    whole, half = CpuEngine(TINY, weights), CpuEngine(TINY, weights, half_weights=True)
    assert whole.half_bytes == 0
    exact, rounded = (decode(engine, codes, engine.decoder_state()) for engine in (whole, half))
    error = np.abs(exact - rounded).max()
    assert error < 1e-2
    assert (error > 0) == HALF_FLOATS


@pytest.mark.parametrize("config", [TINY, CONFIGS["odd kernels"], STRIDED], ids=["tiny", "odd kernels", "strided"])
def test_beyond_the_receptive_field_the_past_leaves_no_trace(config: CodecConfig) -> None:
    engine = CpuEngine(config, random_weights(config))
    cost = footprint(config)
    hop = config.hop_samples
    field = -(-cost.encoder_field_samples // hop) + -(-cost.decoder_field_samples // hop)
    same = waveform(config, field, 1)
    ends = []
    for seed, past in ((2, 3), (3, 40)):
        state, decoder_state = engine.encoder_state(), engine.decoder_state()
        decode(engine, list(encode(engine, waveform(config, past, seed), state, config.n_codebooks)), decoder_state)
        codes = encode(engine, same, state, config.n_codebooks)
        heard = decode(engine, list(codes), decoder_state)
        ends.append((codes[-1], heard[-1], state, decoder_state))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(BackendError, match="cannot stream"):
        CpuEngine(PRESETS["dac-24k"], {})


def test_incomplete_weights_are_refused_by_name() -> None:
    weights = random_weights(SMALL)
    del weights["encoder.0.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.0\.bias is missing"):
        CpuEngine(SMALL, weights)


@pytest.mark.parametrize(
    ("frames", "codes"),
    [
        (np.zeros((1, 7), np.float32), np.zeros((1, 3), np.int16)),
        (np.zeros((1, 6)), np.zeros((1, 3), np.int16)),
        (np.zeros((1, 6), np.float32), np.zeros((1, 4), np.int16)),
        (np.zeros((2, 6), np.float32), np.zeros((1, 3), np.int16)),
    ],
    ids=["length", "dtype", "codebooks", "streams"],
)
def test_wrong_arrays_are_refused(frames: np.ndarray, codes: np.ndarray) -> None:
    engine = CpuEngine(SMALL, random_weights(SMALL))
    with pytest.raises(AudioError):
        engine.encode_step(frames, engine.encoder_state(), codes)
    with pytest.raises(AudioError):
        engine.decode_step(codes, engine.decoder_state(), frames)


@pytest.mark.parametrize("code", [-1, 1024])
def test_codes_out_of_range_are_refused_and_leave_the_state(code: int) -> None:
    engine = CpuEngine(SMALL, random_weights(SMALL))
    state, frames = engine.decoder_state(), np.zeros((1, 6), np.float32)
    with pytest.raises(AudioError, match="codes 0 to 1023"):
        engine.decode_step(np.array([[0, code]], np.int16), state, frames)
    assert not state.any()


def test_encoding_to_no_codebook_is_refused() -> None:
    engine = CpuEngine(SMALL, random_weights(SMALL))
    with pytest.raises(AudioError, match="at least one"):
        engine.encode_step(np.zeros((1, 6), np.float32), engine.encoder_state(), np.zeros((1, 0), np.int16))
