"""Training: exact resume, several processes, ablations, frozen encoders, gradients that are not finite."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_training import ALONE, CONFIG, SETTINGS, Crops, stepped  # noqa: E402

from streamcodec.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from streamcodec.errors import CheckpointError, ConfigError  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402
from streamcodec.training.resume import load_state, save_state  # noqa: E402
from streamcodec.training.run import Validation, run  # noqa: E402
from streamcodec.training.settings import ABLATIONS, TrainSettings  # noqa: E402
from streamcodec.training.shapes import model_config  # noqa: E402
from streamcodec.training.trainer import Trainer  # noqa: E402
from streamcodec.training.world import World  # noqa: E402

pytestmark = pytest.mark.usefixtures("small_preset")


def flat(state: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Leaves of nested dicts and lists with their names."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from flat(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from flat(value, f"{name}.{i}")
    else:
        yield name, state


def assert_same_state(a: dict, b: dict, ignoring: tuple[str, ...] = ()) -> None:
    left, right = dict(flat(a)), dict(flat(b))
    assert left.keys() == right.keys()
    for name, value in left.items():
        if not name.startswith(ignoring or ("?",)):
            same = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
            assert same, name


def validation() -> Validation:
    crops = Crops(SETTINGS.changed({"seed": 9}))
    return Validation(crops, CONFIG.sample_rate_hz, torch.device("cpu"))


def test_interrupted_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = SETTINGS.changed({"quantizer_dropout": 1.0, "noisy_channel": True, "compressed_weight": 10.0})
    lines: list[str] = []
    options = {"tensorboard": False, "say": lines.append}
    whole = run(settings, Crops(settings), validation(), tmp_path / "whole", ALONE, **options)
    for expected in (1, 2, 3):  # no time at all: one step, then stop
        part = run(settings, Crops(settings), validation(), tmp_path / "parts", ALONE, time_limit_s=0, **options)
        assert part.step == expected
        assert (tmp_path / "parts" / "last.safetensors").is_file()
    parts = run(settings, Crops(settings), validation(), tmp_path / "parts", ALONE, piece_bytes=100_000, **options)
    assert whole.step == parts.step == 6
    assert_same_state(whole.state(), parts.state())
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        assert load_checkpoint(folder / "last.safetensors").config == model_config(settings)
        assert load_checkpoint(folder / "best.safetensors").config == model_config(settings)
        assert TrainSettings.from_json((folder / "settings.json").read_text()) == settings
        assert '"kind": "validation"' in (folder / "metrics.jsonl").read_text()
    pieces = list((tmp_path / "parts").glob("resume-*"))
    assert len(pieces) > 3
    assert max(piece.stat().st_size for piece in pieces) <= 100_000
    assert any("audio_s_per_s" in line and "codes_used" in line and "skipped 0" in line for line in lines)
    done = run(settings, Crops(settings), validation(), tmp_path / "parts", ALONE, **options)
    assert done.step == 6
    assert_same_state(whole.state(), done.state())


def test_two_processes_equal_one_with_the_double_batch(tmp_path: Path) -> None:
    shared, steps = {"batch": 4, "unquantized_steps": 1, "reseed_steps": 1}, 3
    kinds = ("factorized", "ema")
    for kind in kinds:
        (tmp_path / f"{kind}.json").write_text(SETTINGS.changed(shared | {"quantizer": kind}).to_json())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), *sys.path]),
    }
    command = [sys.executable, str(here / "training_process.py"), str(tmp_path), str(steps)]
    processes = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(2)]
    ones = [stepped(steps, quantizer=kind, **shared).state() for kind in kinds]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for kind, one in zip(kinds, ones, strict=True):
        two = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
        assert two["step"] == one["step"] == steps
        assert torch.equal(one["uses"], two["uses"])
        assert torch.allclose(one["recent"], two["recent"], atol=1e-3)
        for part in ("model", "average", "discriminators"):
            for name, value in one[part].items():
                # a gradient of rounding errors alone moves a weight by up to a step of Adam, in either direction
                assert torch.allclose(value, two[part][name], atol=2e-3), f"{kind} {part} {name}"
                assert float((value - two[part][name]).abs().mean()) < 5e-5, f"{kind} {part} {name}"


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains(name: str) -> None:
    settings = SETTINGS.changed({"discriminators": ("scale", "period", "stft"), "unquantized_steps": 1})
    settings = settings.changed(ABLATIONS[name])
    trainer = Trainer(settings, ALONE)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    crops = Crops(settings)
    for step in range(2):
        terms = trainer.train_step(torch.from_numpy(crops.batch(step)))
    assert all(torch.isfinite(term).all() for term in terms.values()), terms
    assert trainer.skipped_steps == 0
    assert ("adversarial" in terms) == settings.adversarial
    assert ("mel" in terms) == (settings.mel_weight > 0)
    assert {"commitment", "spectral"} <= terms.keys()
    changed = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("encoder") for key in changed)
    assert any(key.startswith("decoder") for key in changed)
    trainer.averaged_model().export_arrays()


def test_loss_falls_when_one_batch_is_learnt_by_heart() -> None:
    trainer = Trainer(SETTINGS.changed({"adversarial_weight": 0.0, "steps": 1000, "quantizer_dropout": 0.0}), ALONE)
    wave = torch.from_numpy(Crops(trainer.settings).batch(0))
    losses = [float(trainer.train_step(wave)["mel"]) for _ in range(150)]
    assert np.mean(losses[-10:]) < 0.7 * losses[0]


def test_bfloat16_trains() -> None:
    trainer = stepped(3, precision="bfloat16")
    assert trainer.skipped_steps == 0
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert all(value.dtype == torch.float32 for value in trainer.model.parameters())


@pytest.mark.parametrize("quantizer", ["factorized", "ema"])
def test_frozen_encoder_and_codebooks_stay_bit_equal_while_the_decoder_learns(quantizer: str) -> None:
    start = stepped(3, quantizer=quantizer).averaged_model()
    trainer = Trainer(SETTINGS.changed({"quantizer": quantizer, "freeze_encoder": True, "unquantized_steps": 0}), ALONE)
    trainer.load_model(start)
    before = start.export_arrays()
    stepped(4, trainer)
    for model in (trainer.model, trainer.averaged_model()):
        after = model.export_arrays()
        for name, array in after.items():
            assert np.array_equal(array, before[name]) == (not name.startswith("decoder.")), name


def test_run_that_starts_from_weights_keeps_their_codebooks_at_first(tmp_path: Path) -> None:
    made = stepped(3).averaged_model()
    save_checkpoint(tmp_path / "a.safetensors", made.config, made.export_arrays(), half=False)
    start = CodecModel(made.config, trainable=True)
    start.load_arrays(load_checkpoint(tmp_path / "a.safetensors").arrays)
    trainer = Trainer(SETTINGS.changed({"unquantized_steps": 0, "reseed_steps": 0, "learning_rate": 1e-9}), ALONE)
    trainer.load_model(start)
    stepped(2, trainer)
    after = trainer.averaged_model().export_arrays()
    for name, array in made.export_arrays().items():
        np.testing.assert_allclose(after[name], array, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("quantizer", ["factorized", "ema"])
def test_step_whose_gradient_is_not_finite_is_skipped(quantizer: str) -> None:
    trainer = stepped(3, quantizer=quantizer, reseed_steps=0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    wave = torch.from_numpy(Crops(trainer.settings).batch(3))
    wave[0, 100] = float("nan")
    trainer.train_step(wave)
    assert trainer.skipped_steps >= 1
    assert trainer.step == 4
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.isfinite(trainer.recent).all()
    skipped = trainer.skipped_steps
    stepped(2, trainer)
    assert trainer.skipped_steps == skipped
    assert all(torch.isfinite(value).all() for value in trainer.average.values())
    assert not torch.equal(trainer.model.decoder[0].bias, before["decoder.0.bias"])


def test_unused_codes_are_replaced_and_usage_is_told() -> None:
    trainer = stepped(2, reseed_steps=0)
    assert trainer.usage() == (0.0, 1.0)
    stepped(1, trainer)
    share, perplexity = trainer.usage()
    counts = trainer.uses.double() / trainer.uses.sum(1, keepdim=True)
    entropy = -(counts * torch.where(counts > 0, counts, 1).log()).sum(1)
    assert share == pytest.approx(float((counts > 0).double().mean()))
    assert perplexity == pytest.approx(float(entropy.exp().mean()))
    assert int(trainer.uses.sum()) == CONFIG.n_codebooks * SETTINGS.batch * SETTINGS.crop_frames


def test_settings_of_another_model_do_not_resume(tmp_path: Path) -> None:
    trainer = stepped(1)
    save_state(tmp_path, trainer.state() | {"best": 1.0}, 1 << 20)
    for changes in ({"code_dim": 3}, {"quantizer": "ema"}, {"freeze_encoder": True}, {"discriminators": ("scale",)}):
        with pytest.raises(ConfigError, match="the run cannot go on with these settings; begin another one"):
            run(SETTINGS.changed(changes), Crops(SETTINGS), validation(), tmp_path, ALONE, tensorboard=False)
    wider = CodecModel(replace(CONFIG, encoder_width=2 * CONFIG.encoder_width), trainable=True)
    with pytest.raises(ConfigError, match=r"the weights to start from are of .*; these settings make a model of"):
        trainer.load_model(wider)


def test_discriminators_start_fresh_where_a_run_had_none() -> None:
    state = stepped(1, adversarial_weight=0.0).state()
    assert "discriminators" not in state
    trainer = Trainer(SETTINGS, ALONE)
    trainer.load_state(state)
    assert stepped(1, trainer).step == 2


def test_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch is 2; it must be a multiple of the 3 processes"):
        Trainer(SETTINGS, World(0, 3, torch.device("cpu")))
    with pytest.raises(ConfigError, match="preset 'big' is unknown; choose one of small"):
        Trainer(SETTINGS.changed({"preset": "big"}), ALONE)


# --- the state on disk ------------------------------------------------------------------------------------------------


def test_state_reads_back_from_pieces_of_bounded_size(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    state = {"step": 3, "model": {"a": torch.arange(5000.0)}, "best": 0.5, "nested": [{"b": torch.ones(2)}]}
    save_state(tmp_path, state, 1000)
    pieces = sorted(tmp_path.glob("resume-*"))
    assert len(pieces) > 20
    assert max(piece.stat().st_size for piece in pieces) == 1000
    assert_same_state(load_state(tmp_path), state)
    save_state(tmp_path, state | {"step": 4}, 1 << 20)
    assert [file.name[:16] for file in sorted(tmp_path.iterdir())] == ["resume-00000004-", "resume.json"]
    assert load_state(tmp_path)["step"] == 4


def test_cut_missing_or_changed_piece_is_found_out(tmp_path: Path) -> None:
    save_state(tmp_path, {"step": 1, "a": torch.arange(1000.0)}, 1000)
    piece = sorted(tmp_path.glob("resume-*"))[1]
    whole = piece.read_bytes()
    for damaged in (whole[:-1], b"", whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]):
        piece.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"resume\.json are damaged; delete it to start afresh"):
            load_state(tmp_path)
    piece.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path)
    for text in ("", "[]", "{}", '{"pieces": [3]}', '{"pieces": 3}'):
        (tmp_path / "resume.json").write_text(text)
        with pytest.raises(CheckpointError, match="delete it to start afresh"):
            load_state(tmp_path)
