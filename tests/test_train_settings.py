"""Training settings and what chance decides in a step."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest

from streamcodec.errors import ConfigError
from streamcodec.training.settings import ABLATIONS, TrainSettings

SETTINGS = TrainSettings(batch=64, crop_frames=20)


def test_settings_read_back_from_their_json() -> None:
    for changes in ABLATIONS.values():
        settings = SETTINGS.changed(changes)
        assert TrainSettings.from_json(settings.to_json()) == settings
        assert (settings == SETTINGS) == (not changes)


def test_ablations_of_the_talk_are_there() -> None:
    for part in ("discriminator", "mel", "code-dim", "ema-quantizer", "quantizer-dropout", "unbalanced"):
        assert any(part in name for name in ABLATIONS)
    shares = {TrainSettings().quantizer_dropout}
    shares |= {
        SETTINGS.changed(ABLATIONS[f"quantizer-dropout-{share}"]).quantizer_dropout for share in ("0", "0.25", "1")
    }
    assert shares == {0, 0.25, 0.5, 1}
    assert not SETTINGS.changed(ABLATIONS["no-discriminators"]).adversarial
    assert not SETTINGS.changed({"discriminators": ()}).adversarial


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": "many"}, "steps is 'many'; give a whole number, such as 100000"),
        ({"steps": 1e5}, "steps is 100000.0; give a whole number"),
        ({"batch": True}, "batch is True; give a whole number"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"learning_rate": 0}, "learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": "5e-4"}, "learning_rate is '5e-4'; give a finite number"),
        ({"gradient_clip": inf}, "gradient_clip is inf; give a finite number"),
        ({"mel_weight": nan}, "mel_weight is nan; give a finite number"),
        ({"mel_weight": -1}, "mel_weight is -1.0; it must be at least 0"),
        ({"quantizer_dropout": 1.5}, "quantizer_dropout is 1.5; it must be from 0 to 1"),
        ({"ema_decay": 2}, "ema_decay is 2.0; it must be from 0 to 1"),
        ({"balanced": 1}, "balanced is 1; give a true or false"),
        ({"quantizer": "vq"}, "quantizer is 'vq'; choose one of factorized, ema"),
        ({"precision": "float16"}, "precision is 'float16'; choose one of float32, bfloat16"),
        ({"discriminator_size": None}, "discriminator_size is None; give a word"),
        ({"discriminators": "stft"}, "discriminators is 'stft'; give a list of scale, period, stft"),
        ({"discriminators": ("stft", "mel")}, "discriminator 'mel' is unknown; choose from scale, period, stft"),
        ({"discriminators": ({},)}, "discriminator '{}' is unknown"),
        ({"stepz": 5}, "'stepz' is not a training setting; `streamcodec train --help` lists them"),
    ],
)
def test_wrong_setting_is_refused_by_name_value_and_limit(changes: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SETTINGS.changed(changes)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000])
def test_settings_that_are_no_json_object_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the training settings are"):
        TrainSettings.from_json(text)


def test_chance_is_a_pure_function_of_seed_and_step() -> None:
    draws = pytest.importorskip("streamcodec.training.draws", reason="training needs torch", exc_type=ImportError)
    torch = pytest.importorskip("torch")

    def drawn(seed: int, step: int) -> list:
        torch.manual_seed(0)
        state = torch.get_rng_state()
        settings = SETTINGS.changed({"seed": seed, "lost_clips": 1.0})
        made = [draws.codebooks_used(settings, 12, step), draws.frames_heard(settings, step)]
        assert torch.equal(torch.get_rng_state(), state)
        return [array.tolist() for array in made]

    first = drawn(3, 7)
    np.random.default_rng().random(5)
    drawn(3, 8)
    assert drawn(3, 7) == first
    for other in (drawn(3, 8), drawn(4, 7)):
        assert other[0] != first[0]
        assert other[1] != first[1]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_share_of_clips_with_dropped_codebooks_is_as_set(share: float) -> None:
    draws = pytest.importorskip("streamcodec.training.draws", reason="training needs torch", exc_type=ImportError)
    settings = SETTINGS.changed({"quantizer_dropout": share, "batch": 500})
    used = np.concatenate([draws.codebooks_used(settings, 12, step).numpy() for step in range(20)])
    counts = np.bincount(used, minlength=13) / len(used)
    assert counts[0] == 0
    # a clip that draws: half of the time one of 12, half of the time one of 2, 4, 8, 12
    expected = np.where(np.isin(np.arange(13), (2, 4, 8, 12)), share * (1 / 24 + 1 / 8), share / 24)
    expected[0], expected[12] = 0, expected[12] + 1 - share
    np.testing.assert_allclose(counts, expected, atol=0.02)
    used = np.concatenate([draws.codebooks_used(settings, 18, step).numpy() for step in range(20)])
    assert np.isin(used, (3, 6, 12, 18)).mean() == pytest.approx(1 - share * 7 / 18, abs=0.02)
    few = draws.codebooks_used(settings, 1, 0).numpy()
    assert (few == 1).all()


def test_share_of_clips_with_lost_frames_is_as_set_and_losses_come_in_bursts() -> None:
    draws = pytest.importorskip("streamcodec.training.draws", reason="training needs torch", exc_type=ImportError)
    heard = np.concatenate(
        [draws.frames_heard(SETTINGS.changed({"lost_clips": 0.25}), step).numpy() for step in range(30)]
    )
    assert heard.dtype == np.float32
    assert set(np.unique(heard)) == {0.0, 1.0}
    assert (heard.min(1) == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert heard[heard.min(1) == 0].mean() > 0.3
    edges = np.diff(heard, axis=1, prepend=1, append=1)
    lengths = np.argwhere(edges > 0)[:, 1] - np.argwhere(edges < 0)[:, 1]
    assert (edges < 0).sum(1).max() == 3
    assert 2.5 < lengths.mean() < 5  # 3.5 but for bursts that meet or reach the end
    assert draws.frames_heard(SETTINGS.changed({"lost_clips": 0.0}), 0).min() == 1


def test_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    draws = pytest.importorskip("streamcodec.training.draws", reason="training needs torch", exc_type=ImportError)
    settings = SETTINGS.changed({"steps": 1000, "warmup_steps": 10, "final_learning_rate_share": 0.1})
    share = [draws.learning_rate_share(settings, step, step / 1000) for step in range(1001)]
    assert share[0] == pytest.approx(0.1, rel=1e-3)
    assert share[9] == pytest.approx(1, rel=1e-3)
    assert share[500] == pytest.approx(0.55)
    assert share[1000] == pytest.approx(0.1)
    assert (np.diff(share[10:]) < 0).all()
    assert draws.learning_rate_share(settings.changed({"warmup_steps": 0}), 0, 0.0) == 1
