"""A beam over the codebooks: the best chain of those it keeps, alike in every engine, and never asked for by itself."""

from __future__ import annotations

import copy
import itertools
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import encode_clip, random_weights
from numba.core.runtime import _nrt_python, rtsys
from small_models import SMALL, STRIDED, small_checkpoint

from streamcodec import Codec
from streamcodec.architecture import encoder_layers
from streamcodec.bench.reference import run_layers
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.engine.cpu import CpuEngine
from streamcodec.errors import ConfigError
from streamcodec_kernels.beam_search import MAX_BEAM
from streamcodec_kernels.beam_search._numba import beam_search
from streamcodec_kernels.beam_search.reference import beam_search as beam_search_reference
from streamcodec_kernels.nearest_code._numba import nearest_code
from streamcodec_kernels.program.layout import GROUP_STREAMS

drawn = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def books(seed: int, count: int, size: int, dimension: int, latent: int) -> tuple[np.ndarray, ...]:
    """Codebook, out_weight and out_bias."""
    return (
        normal(seed, count, size, dimension),
        normal(seed + 1, count, dimension, latent),
        0.3 * normal(seed + 2, count, latent),
    )


def error(latent: np.ndarray, codes: np.ndarray, arrays: tuple[np.ndarray, ...]) -> float:
    """Squared length of what the codes leave of a latent; float64."""
    left = latent.astype(np.float64)
    for code, book, out_weight, out_bias in zip(codes, *arrays, strict=False):
        left = left - (book[code].astype(np.float64) @ out_weight + out_bias)
    return float((left**2).sum())


def found(latent: np.ndarray, arrays: tuple[np.ndarray, ...], beam: int) -> np.ndarray:
    codes = np.full(len(arrays[0]), -1, np.int16)
    beam_search(latent, *arrays, beam, codes)
    return codes


# --- the search -------------------------------------------------------------------------------------------------------


@drawn
@given(
    st.integers(1, 5),
    st.sampled_from([2, 8, 16, 64, 1024]),
    st.integers(1, 20),
    st.integers(1, 70),
    st.integers(1, MAX_BEAM),
    st.integers(0, 999),
)
def test_search_equals_its_reference(count: int, size: int, dimension: int, latent: int, beam: int, seed: int) -> None:
    arrays, vector = books(seed, count, size, dimension, latent), 5 * normal(seed + 3, latent)
    codes, expected = found(vector, arrays, beam), beam_search_reference(vector, *arrays, beam)
    if (codes != expected).any():  # two chains that are all but equally good
        assert error(vector, codes, arrays) == pytest.approx(error(vector, expected, arrays), rel=1e-5)


@pytest.mark.parametrize(("count", "size"), [(2, 4), (3, 2), (1, 16), (4, 2)])
def test_beam_that_holds_every_chain_finds_the_best_of_all(count: int, size: int) -> None:
    for seed in range(20):
        arrays, vector = books(seed, count, size, 3, 6), 3 * normal(seed + 9, 6)
        every = [error(vector, np.array(chain), arrays) for chain in itertools.product(range(size), repeat=count)]
        assert error(vector, found(vector, arrays, MAX_BEAM), arrays) == pytest.approx(min(every), rel=1e-5)


def test_wider_beams_leave_less_on_average_and_all_leave_less_than_code_by_code() -> None:
    arrays = books(0, 6, 64, 5, 16)
    latents = 4 * normal(5, 200, 16)
    # as exported Euclidean codebooks are: the nearest code is the highest dot product
    orthonormal = np.linalg.qr(normal(6, 6, 16, 16))[0][:, :5].astype(np.float32)
    arrays = arrays[0], orthonormal, 0 * arrays[2]
    codebook = np.concatenate([arrays[0], -0.5 * (arrays[0] ** 2).sum(-1, keepdims=True)], axis=-1)
    in_weight = np.pad(orthonormal.transpose(0, 2, 1), ((0, 0), (0, 0), (0, 1)))
    in_bias = np.tile(np.eye(6, dtype=np.float32)[5], (6, 1))
    out_weight = np.pad(orthonormal, ((0, 0), (0, 1), (0, 0)))
    greedy = []
    for latent in latents:
        codes = np.empty(6, np.int16)
        nearest_code(latent, in_weight, in_bias, codebook, out_weight, arrays[2], codes)
        greedy.append(error(latent, codes, arrays))
        np.testing.assert_array_equal(found(latent, arrays, 1), codes)
    errors = [
        np.mean([error(latent, found(latent, arrays, beam), arrays) for latent in latents]) for beam in (2, 4, 16)
    ]
    assert np.mean(greedy) > errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("size", [2, 16, 64, 1024])
def test_of_equal_codes_the_lowest_is_taken(size: int) -> None:
    codebook, out_weight, out_bias = books(0, 3, size, 4, 8)
    half = max(1, size // 2)
    codebook[:, half - 1 :] = codebook[:, half - 1 : half]
    for seed in range(20):
        assert np.all(found(3 * normal(seed, 8), (codebook, out_weight, out_bias), 4) < half)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_latent_without_a_nearest_code_gets_valid_codes(value: float) -> None:
    for beam in (2, MAX_BEAM):
        codes = found(np.full(8, value, np.float32), books(0, 3, 16, 4, 8), beam)
        assert np.all((codes >= 0) & (codes < 16))


# --- engines ----------------------------------------------------------------------------------------------------------


def noise(config: CodecConfig, streams: int, frames: int) -> np.ndarray:
    """[F, B, hop]."""
    return 0.3 * normal(1, frames, streams, config.hop_samples)


def encoded(engine: CpuEngine, frames: np.ndarray, beam: int, count: int | None = None) -> tuple[np.ndarray, ...]:
    """Codes [F, B, K] and the state after them."""
    state = engine.encoder_state(frames.shape[1])
    codes = np.full((*frames.shape[:2], count or engine.config.n_codebooks), -1, np.int16)
    for frame, row in zip(frames, codes, strict=True):
        engine.encode_step(frame, state, row, beam)
    return codes, state


@pytest.mark.parametrize("config", [PRESETS["tiny-24k"], PRESETS["voice-24k"], SMALL, STRIDED], ids=lambda c: c.name)
def test_engine_searches_the_networks_latents(config: CodecConfig) -> None:
    weights, frames = random_weights(config), noise(config, 1, 12)
    latents = run_layers("encoder", encoder_layers(config), weights, frames.reshape(-1, 1).astype(np.float64))
    names = ("codebook", "out_weight", "out_bias")
    arrays = tuple(np.stack([weights[f"quantizer.{k}.{n}"] for k in range(config.n_codebooks)]) for n in names)
    codes, _ = encoded(CpuEngine(config, weights), frames, 4)
    expected = encode_clip(config, weights, frames.reshape(-1), 4).T
    for latent, ours, theirs in zip(latents, codes[:, 0], expected, strict=True):
        assert error(latent, ours, arrays) == pytest.approx(error(latent, theirs, arrays), rel=1e-4)
    assert (codes[:, 0] == expected).all(axis=1).mean() > 0.8


def test_many_streams_and_fewer_codebooks_are_searched_as_one_stream_is() -> None:
    config = PRESETS["tiny-24k"]
    engine, frames = CpuEngine(config, random_weights(config)), noise(config, 2 * GROUP_STREAMS + 3, 3)
    for count in (1, 5, config.n_codebooks):
        codes, state = encoded(engine, frames, 3, count)
        _, plain_state = encoded(engine, frames, 1, count)
        np.testing.assert_array_equal(state, plain_state)  # the search decides codes, and nothing that follows
        for stream in (0, GROUP_STREAMS, frames.shape[1] - 1):
            alone, _ = encoded(engine, frames[:, stream : stream + 1], 3, count)
            np.testing.assert_array_equal(codes[:, stream], alone[:, 0])


def test_beam_of_one_takes_the_nearest_code_of_each_codebook_in_turn() -> None:
    weights, frames = random_weights(STRIDED), noise(STRIDED, 2, 6)
    engine, codes = CpuEngine(STRIDED, weights), np.empty((6, 2, STRIDED.n_codebooks), np.int16)
    state = engine.encoder_state(2)
    for frame, row in zip(frames, codes, strict=True):
        engine.encode_step(frame, state, row)
    given, given_state = encoded(engine, frames, 1)
    np.testing.assert_array_equal(given, codes)
    np.testing.assert_array_equal(given_state, state)
    np.testing.assert_array_equal(codes[:, 0], encode_clip(STRIDED, weights, frames[:, 0].reshape(-1)).T)


def test_searches_allocate_nothing_but_the_handles_of_their_arrays() -> None:
    config = PRESETS["tiny-24k"]
    engine = CpuEngine(config, random_weights(config))
    frames, state = noise(config, 1, 1)[0], engine.encoder_state()
    codes = np.zeros((1, config.n_codebooks), np.int16)

    def run(count: int) -> None:
        for _ in range(count):
            engine.encode_step(frames, state, codes, 8)

    _nrt_python.memsys_enable_stats()
    tracemalloc.start()
    run(10)
    before, python_before = rtsys.get_allocation_stats(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    run(500)
    after, (python_after, python_peak) = rtsys.get_allocation_stats(), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    handles = 4 * 500  # Numba's own, of frames, state and codes, and of codes again: made and freed by each call
    assert after.alloc - before.alloc == after.mi_alloc - before.mi_alloc == handles
    assert after.free - before.free == after.mi_free - before.mi_free == handles
    assert python_after - python_before < 1024
    assert python_peak - python_before < 4096


# --- torch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["factorized", "ema"])
def test_torch_searches_as_the_reference_does(kind: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from streamcodec.nn.model import CodecModel

    torch.manual_seed(0)
    model = CodecModel(SMALL, trainable=True, quantizer=kind).eval()
    latents = torch.randn(2, 30, SMALL.latent_dim)
    model.quantizer.seed(torch.randn(3000, SMALL.latent_dim), torch.ones(4, 256, dtype=torch.bool))
    weights = model.export_arrays()
    names = ("codebook", "out_weight", "out_bias")
    arrays = tuple(np.stack([weights[f"quantizer.{k}.{n}"] for k in range(4)]) for n in names)
    for count, beam in ((4, 4), (2, 16), (1, 3)):
        codes = model.quantizer.encode(latents, count, beam).numpy()
        assert codes.shape == (2, 30, count)
        some = tuple(array[:count] for array in arrays)
        rows = latents.flatten(0, 1).numpy()
        expected = np.stack([beam_search_reference(row, *some, beam) for row in rows])
        for row, ours, theirs in zip(rows, codes.reshape(-1, count), expected, strict=True):
            assert error(row, ours, some) == pytest.approx(error(row, theirs, some), rel=1e-4, abs=1e-6)
        assert (codes.reshape(-1, count) == expected).all(1).mean() > 0.95
    assert torch.equal(model.quantizer.encode(latents, 4, 1), model.quantizer.encode(latents, 4))


def test_long_clips_in_torch_are_searched_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from streamcodec.nn import quantizer
    from streamcodec.nn.model import CodecModel

    torch.manual_seed(0)
    model, latents = CodecModel(SMALL).eval(), torch.randn(3, 11, SMALL.latent_dim)
    whole = model.quantizer.encode(latents, 4, 4)
    monkeypatch.setattr(quantizer, "_SCORES", 4 * 256 * 5)
    assert torch.equal(model.quantizer.encode(latents, 4, 4), whole)


def test_engines_choose_the_same_codes_of_speech(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from token_folder import speech

    cpu, torch_codec = Codec.load(), Codec.load(backend="torch")
    heard = speech(cpu.sample_rate_hz, 1, 1)
    ours, theirs = (codec.tokenize(heard, 6000, beam=4) for codec in (cpu, torch_codec))
    assert (ours != theirs).any(axis=0).sum() <= 2  # of 75 frames: near-ties
    assert (ours != cpu.tokenize(heard, 6000)).any(axis=0).sum() > 30


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cpu", "torch"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_checkpoint(path)
    return Codec.load(path, backend=request.param)


WAVE = (0.3 * normal(3, 8 * SMALL.hop_samples)).clip(-1, 1)


def test_packets_hold_the_tokens_and_the_state_is_that_of_any_beam(codec: Codec) -> None:
    step = codec.config.bitrate_step_bps
    wide, plain = codec.encoder(3 * step, beam=4), codec.encoder(3 * step)
    packets, plain_packets = wide.push(WAVE), plain.push(WAVE)
    assert packets != plain_packets
    assert [len(packet) for packet in packets] == [len(packet) for packet in plain_packets]
    np.testing.assert_array_equal(wide.state, plain.state)
    from streamcodec.bitstream import read_packet

    codes = np.stack([read_packet(packet, codec.config.bits_per_code) for packet in packets], axis=1)
    np.testing.assert_array_equal(codes, codec.tokenize(WAVE, 3 * step, beam=4))
    assert codec.encoder(3 * step, beam=1).push(WAVE) == plain_packets


def test_copies_pickles_reset_and_another_bitrate_keep_the_beam(codec: Codec) -> None:
    step = codec.config.bitrate_step_bps
    encoder = codec.encoder(4 * step, beam=4)
    first = encoder.push(WAVE)
    twins = [copy.copy(encoder), copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))]
    after = encoder.push(WAVE)
    for twin in twins:
        assert twin.beam == 4
        assert twin.push(WAVE) == after
    encoder.reset()
    assert encoder.push(WAVE) == first
    encoder.reset()
    encoder.bitrate_bps = 2 * step
    assert encoder.push(WAVE) == codec.encoder(2 * step, beam=4).push(WAVE)


def test_beam_may_change_between_frames(codec: Codec) -> None:
    encoder, hop = codec.encoder(beam=4, bitrate_bps=codec.config.max_bitrate_bps), SMALL.hop_samples
    wide, plain = (codec.encoder(codec.config.max_bitrate_bps, beam=beam).push(WAVE) for beam in (4, 1))
    first = encoder.push(WAVE[: 3 * hop])
    encoder.beam = 1
    assert first + encoder.push(WAVE[3 * hop :]) == wide[:3] + plain[3:]


@pytest.mark.parametrize("beam", [0, -1, MAX_BEAM + 1, 2.0, 2.5, "4", None, True, float("nan")])
def test_beam_that_is_no_whole_number_from_1_to_16_is_refused(codec: Codec, beam: object) -> None:
    encoder = codec.encoder(1200, beam=2)
    for ask in (lambda: codec.encoder(1200, beam=beam), lambda: codec.tokenize(WAVE, beam=beam)):
        with pytest.raises(ConfigError, match=r"beam is .*; it must be a whole number from 1 to 16"):
            ask()
    with pytest.raises(ConfigError, match="beam is"):
        encoder.beam = beam
    assert encoder.beam == 2


def test_whole_numbers_of_numpy_are_beams(codec: Codec) -> None:
    np.testing.assert_array_equal(codec.tokenize(WAVE, beam=np.int64(3)), codec.tokenize(WAVE, beam=3))
