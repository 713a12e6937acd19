"""Configs: derived numbers, refusals, JSON; and that the receptive field is what really is received."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import inf

import numpy as np
import pytest
from network_reference import random_weights, run_layers
from small_models import SMALL, STRIDED

from streamcodec import architecture as arch
from streamcodec.config import PRESETS, CodecConfig
from streamcodec.errors import BitrateError, ConfigError

OURS = ("base-24k", "tiny-24k")


@pytest.mark.parametrize("name", OURS)
def test_our_presets_code_75_frames_a_second_in_steps_of_750_bps(name: str) -> None:
    config = PRESETS[name]
    assert (config.sample_rate_hz, config.hop_samples, config.frame_rate_hz) == (24_000, 320, 75)
    assert (config.n_codebooks, config.bits_per_code) == (12, 10)
    assert (config.bitrate_step_bps, config.max_bitrate_bps) == (750, 9000)
    assert config.algorithmic_latency_ms == pytest.approx(13.333, abs=1e-3)
    assert [config.codebooks_for(750 * k) for k in range(1, 13)] == list(range(1, 13))
    assert [config.packet_bytes(k) for k in (1, 2, 4, 8, 12)] == [2, 3, 5, 10, 15]


def test_voice_24k_codes_50_frames_a_second_in_steps_of_500_bps() -> None:
    config = PRESETS["voice-24k"]
    assert (config.sample_rate_hz, config.hop_samples, config.frame_rate_hz) == (24_000, 480, 50)
    assert (config.n_codebooks, config.bits_per_code, config.code_dim) == (18, 10, 33)
    assert (config.bitrate_step_bps, config.max_bitrate_bps, config.algorithmic_latency_ms) == (500, 9000, 20)
    assert [config.packet_bytes(k) for k in (1, 2, 4, 18)] == [2, 3, 5, 23]


def test_voice_24k_works_at_low_rates_and_costs_a_third_of_base() -> None:
    config = PRESETS["voice-24k"]
    cost, base = arch.footprint(config), arch.footprint(PRESETS["base-24k"])
    ours, theirs = (one.encoder_macs_per_s + one.decoder_macs_per_s for one in (cost, base))
    assert ours == pytest.approx(0.8e9, rel=0.05)
    assert ours < 0.36 * theirs
    assert 5.0e6 < cost.weights < 5.4e6
    assert (cost.encoder_field_samples, cost.decoder_field_samples) == (16_545, 17_505)
    encoder, decoder = arch.encoder_layers(config), arch.decoder_layers(config)
    strided = [layer for layer in encoder if isinstance(layer, arch.Conv)]
    assert [(c.in_channels, c.kernel, c.stride) for c in strided] == [
        (1, 10, 5), (64, 8, 4), (128, 8, 4), (256, 12, 6), (384, 1, 1),
    ]  # fmt: skip
    dilations = [layer.body[1].dilation for layer in encoder if isinstance(layer, arch.Residual)]
    assert dilations == [1, 3, 1, 3, 1, 3, 9, 1, 1, 1]
    assert [layer.body[1].dilation for layer in decoder if isinstance(layer, arch.Residual)] == [
        1, 1, 1, 1, 3, 9, 1, 3, 1, 3,
    ]  # fmt: skip
    assert decoder[0] == arch.Conv(64, 384, 3)
    assert decoder[-3:] == (arch.Snake(64), arch.ConvTranspose(64, 1, 10, 5), arch.Tanh(1))


def test_our_presets_cost_what_the_design_says() -> None:
    base, tiny = (arch.footprint(PRESETS[name]) for name in OURS)
    assert 6.1e6 < base.weights < 6.5e6
    assert 1.6e6 < tiny.weights < 1.8e6
    assert base.encoder_macs_per_s + base.decoder_macs_per_s == pytest.approx(2.4e9, rel=0.1)
    assert tiny.encoder_macs_per_s + tiny.decoder_macs_per_s == pytest.approx(0.6e9, rel=0.15)


@pytest.mark.parametrize(
    ("name", "weights", "hop", "kbps"),
    [("dac-16k", 74e6, 320, 6.0), ("dac-24k", 74.7e6, 320, 24.0), ("dac-44k", 76.6e6, 512, 7.75)],
)
def test_dac_presets_have_the_published_size(name: str, weights: float, hop: int, kbps: float) -> None:
    config = PRESETS[name]
    assert arch.footprint(config).weights == pytest.approx(weights, rel=0.02)
    assert config.hop_samples == hop
    assert config.max_bitrate_bps / 1000 == pytest.approx(kbps, rel=0.01)
    assert config.algorithmic_latency_ms == inf


def test_counted_cost_equals_a_count_by_hand() -> None:
    config = CodecConfig("one", 1000, 1, 2, (4,), 3, 2, 16, 2, dilations=(3,), edge_kernel=3)
    footprint = arch.footprint(config)
    encoder = [(1, 3, 1, 1), (1, 7, 1, 1), (1, 1, 1, 1), (1, 8, 2, 4), (2, 3, 3, 1)]  # in, kernel, out, stride
    decoder = [(3, 3, 2), (2, 8, 1), (1, 7, 1), (1, 1, 1), (1, 3, 1)]
    alphas = 1 + 1 + 1 + 2, 2 + 1 + 1 + 1
    books = 2 * (3 * 2 + 2 + 16 * 2 + 2 * 3 + 3)
    arrays = sum(i * k * o + o for i, k, o, _ in encoder) + sum(i * k * o + o for i, k, o in decoder)
    assert footprint.weights == arrays + sum(alphas) + books
    search = 2 * 2 * (3 + 16 + 3) * 250
    assert footprint.encoder_macs_per_s == 1000 * (3 + 7 + 1) + 250 * (16 + 18) + search
    assert footprint.decoder_macs_per_s == 250 * (18 + 16) + 1000 * (7 + 1 + 3) + 2 * 2 * 3 * 250
    assert footprint.encoder_state_bytes == 4 * (2 + 18 + 4 + 2 * 2)
    assert footprint.decoder_state_bytes == 4 * (2 * 3 + 4 + 18 + 2)


def test_counted_cost_of_a_strided_edge_equals_a_count_by_hand() -> None:
    config = CodecConfig(
        "two", 1200, (1, 2), (2, 1), (2, 3), 3, 2, 16, 2, dilations=((3,), (1,)), edge_kernel=3, latent_kernel=1,
        edge="strided",
    )  # fmt: skip
    footprint = arch.footprint(config)
    encoder = [4 + 1, 7 + 1, 1 + 1, 12 + 2, 14 + 2, 4 + 2, 6 + 3]  # products and biases
    decoder = [18 + 2, 14 + 2, 4 + 2, 12 + 1, 7 + 1, 1 + 1, 4 + 1]
    alphas = 1 + 1 + 1 + 2 + 2 + 2, 2 + 2 + 2 + 1 + 1 + 1
    books = 2 * (3 * 2 + 2 + 16 * 2 + 2 * 3 + 3)
    assert footprint.weights == sum(encoder) + sum(decoder) + sum(alphas) + books
    search = 2 * 2 * (3 + 16 + 3) * 200
    assert footprint.encoder_macs_per_s == 600 * (4 + 7 + 1) + 200 * (12 + 14 + 4 + 6) + search
    assert footprint.decoder_macs_per_s == 200 * (18 + 14 + 4 + 12) + 600 * (7 + 1 + 4) + 2 * 2 * 3 * 200
    assert footprint.encoder_state_bytes == 4 * (2 + 18 + 3 + 6 * 2)
    assert footprint.decoder_state_bytes == 4 * (2 * 3 + 6 * 2 + 3 + 18 + 2)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, strides=(3, 2), dilations=(1, 2), latent_kernel=1), STRIDED])
def test_receptive_field_is_what_a_changed_sample_reaches(config: CodecConfig) -> None:
    footprint, weights, hop = arch.footprint(config), random_weights(config), config.hop_samples
    frames = -(-footprint.encoder_field_samples // hop) + 1
    wave = np.random.default_rng(0).standard_normal((frames * hop, 1))

    def latent(x: np.ndarray) -> np.ndarray:
        return run_layers("encoder", arch.encoder_layers(config), weights, x)[-1]

    def changes(sample: int) -> bool:
        other = wave.copy()
        other[sample] += 1e4
        return not np.array_equal(latent(wave), latent(other))

    oldest = frames * hop - footprint.encoder_field_samples
    assert changes(oldest)
    assert changes(frames * hop - 1)
    assert not any(changes(sample) for sample in (oldest - 1, oldest - 2, oldest // 2, 0))

    reach = -(-footprint.decoder_field_samples // hop) + 2
    latents = np.random.default_rng(1).standard_normal((reach, config.latent_dim))
    other = latents.copy()
    other[1] += 1e4
    before_tanh = arch.decoder_layers(config)[:-1]
    made = [run_layers("decoder", before_tanh, weights, x)[:, 0] for x in (latents, other)]
    changed = np.flatnonzero(made[0] != made[1])
    assert (changed[0], changed[-1] + 1 - changed[0]) == (hop, footprint.decoder_field_samples)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sample_rate_hz": 999}, "sample_rate_hz is 999; it must be a whole number from 1000 to 384000"),
        ({"sample_rate_hz": 24_000.0}, "sample_rate_hz is 24000.0; it must be a whole number"),
        ({"encoder_width": 0}, "encoder_width is 0; it must be a whole number from 1 to 4096"),
        ({"encoder_width": True}, "encoder_width is True"),
        ({"decoder_width": 24}, "decoder_width is 24; it must halve 4 times"),
        ({"strides": ()}, r"strides is \(\); give at least one"),
        ({"strides": "2458"}, "strides is '2458'"),
        ({"strides": (2, 0)}, "strides is 0; it must be a whole number from 1 to 64"),
        ({"strides": (64, 64, 64)}, "hop is 262144 samples; it must be at most 65536"),
        ({"dilations": (1, None)}, "dilations is None"),
        ({"dilations": (1,) * 17}, "dilations has 17 values; give at most 16"),
        ({"latent_dim": -1}, "latent_dim is -1; it must be a whole number from 1 to 8192"),
        ({"n_codebooks": 65}, "n_codebooks is 65; it must be a whole number from 1 to 64"),
        ({"codebook_size": 1000}, "codebook_size is 1000; it must be a power of two"),
        ({"codebook_size": 65_536}, "codebook_size is 65536; it must be a whole number from 2 to 32768"),
        ({"code_dim": "8"}, "code_dim is '8'; it must be a whole number from 1 to 1024"),
        ({"residual_kernel": 64}, "residual_kernel is 64; it must be a whole number from 1 to 63"),
        ({"edge_kernel": 0}, "edge_kernel is 0; it must be a whole number from 1 to 63"),
        ({"latent_kernel": float("nan")}, "latent_kernel is nan; it must be a whole number from 1 to 63"),
        ({"causal": "no"}, "causal is 'no'; it must be true or false"),
        ({"depthwise": 1}, "depthwise is 1; it must be true or false"),
        ({"edge": "fft"}, "edge is 'fft'; choose one of conv, strided"),
        ({"edge": None}, "edge is None; choose one of conv, strided"),
        ({"encoder_width": (2, 4, 8, 16)}, "4 values; 4 strides with the edge 'conv' make 5 stages: give a value"),
        ({"decoder_width": (32, 16), "edge": "strided"}, "decoder_width has 2 values; 4 strides .* make 4 stages"),
        ({"encoder_width": (2, 4, 8, 16, 0)}, "encoder_width is 0; it must be a whole number from 1 to 4096"),
        ({"encoder_width": [[2], 4, 8, 16, 32]}, r"encoder_width is \[2\]; it must be a whole number"),
        ({"decoder_width": ()}, "decoder_width has 0 values"),
        ({"decoder_width": 12, "edge": "strided"}, "is 12; it must halve 3 times .*, or be given for every stage"),
        ({"dilations": ((1,), (1,))}, "for 2 stages and there are 4 strides; give one list for each stride, or one"),
        ({"dilations": ((1,), (1,), (), (1,))}, r"dilations\[2\] is \(\); give at least one whole number"),
        ({"dilations": ((1,), (1,), (1,), 2)}, r"dilations\[3\] is 2; give at least one whole number"),
        ({"dilations": ((1,), (65,), (1,), (1,))}, r"dilations\[1\] is 65; it must be a whole number from 1 to 64"),
        ({"name": ""}, "name is ''; give the model a name"),
        ({"name": 5}, "name is 5"),
    ],
)
def test_wrong_value_is_refused_by_name_value_and_limit(change: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(SMALL, **change)


def test_config_reads_back_from_its_json() -> None:
    for config in (*PRESETS.values(), SMALL, STRIDED):
        assert CodecConfig.from_json(config.to_json()) == config
        assert "\n" not in config.to_json()


def test_descriptions_older_than_the_edge_read_as_before_and_are_written_so() -> None:
    assert "edge" not in json.loads(SMALL.to_json())
    assert json.loads(STRIDED.to_json())["edge"] == "strided"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 10_000, "not JSON"),
        ("[]", "is a list"),
        ("null", "is a NoneType"),
        ("{}", "incomplete"),
        (json.dumps(asdict(SMALL) | {"widht": 3}), "unknown key 'widht' .*; known: .*encoder_width"),
        (json.dumps({k: v for k, v in asdict(SMALL).items() if k != "strides"}), "incomplete.*strides"),
        (json.dumps(asdict(SMALL) | {"strides": {"a": 1}}), "strides is"),
    ],
)
def test_hostile_json_is_one_clear_error(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        CodecConfig.from_json(text)


@pytest.mark.parametrize("bitrate", [0, -750, 749, 5000, 9750, inf, -inf, float("nan"), 1e12])
def test_bitrate_that_no_codebook_count_has_is_refused(bitrate: float) -> None:
    between = bitrate in (5000,)
    what = "is between two steps" if between else "is outside this model's range"
    with pytest.raises(
        BitrateError, match=f"bps {what} .*choose a multiple of 750 from 750 to 9000|bps {what}; choose"
    ):
        PRESETS["base-24k"].codebooks_for(bitrate)


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["mine"] = SMALL  # type: ignore[index]
    with pytest.raises(AttributeError):
        PRESETS["base-24k"].n_codebooks = 3  # type: ignore[misc]
