"""`streamcodec train` on a corpus of seconds."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="training needs torch")

from corpus_audio import folder_of_voices  # noqa: E402

from streamcodec.checkpoint import load_checkpoint  # noqa: E402
from streamcodec.cli import main  # noqa: E402
from streamcodec.training import run as run_module  # noqa: E402
from streamcodec.training.corpus.build import Folder, build_folder, prepare_out  # noqa: E402
from streamcodec.training.corpus.index import write_index  # noqa: E402

SMALL_RUN = (
    "preset=small",
    "steps=3",
    "batch=2",
    "crop_frames=4",
    "unquantized_steps=1",
    "adversarial_weight=0",
    "log_steps=1",
    "validate_steps=2",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare_out(folder / "made")
    build_folder(folder / "made", Folder(folder_of_voices(folder / "in", speakers=3), "speech", "CC0-1.0"), shard_s=5)
    write_index(folder / "made")
    return folder / "made"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, small_preset: None) -> Iterator[None]:
    monkeypatch.setattr(run_module, "_VALIDATION_CROPS", 2)
    monkeypatch.setattr(run_module, "_VALIDATION_SECONDS", 1)
    handler, precision = signal.getsignal(signal.SIGTERM), torch.get_float32_matmul_precision()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_float32_matmul_precision(precision)


def train(corpus: Path, out: Path, *arguments: str, settings: tuple[str, ...] = SMALL_RUN) -> Result:
    chosen = [word for setting in settings for word in ("--set", setting)]
    common = ["train", "--corpus", str(corpus), "--out", str(out), "--device", "cpu", "--no-tensorboard"]
    return CliRunner().invoke(main, [*common, *chosen, *arguments])


def test_train_leaves_weights_that_load_and_a_run_that_goes_on(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped = train(corpus, out, "--time-limit", "0")
    assert stopped.exit_code == 0, stopped.output
    assert "stopped after step 1" in stopped.output
    done = train(corpus, out, settings=())
    assert done.exit_code == 0, done.output
    assert "steps = 3\n" in done.output
    assert "stopped after step 3" in done.output
    for name in ("best", "last"):
        assert load_checkpoint(out / f"{name}.safetensors").config.hop_samples == 320
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3]
    assert {"mel", "spectral", "steps_per_s", "audio_s_per_s", "perplexity"} <= records[-2].keys()

    second = train(corpus, tmp_path / "two", "--init", str(out / "last.safetensors"), "--set", "freeze_encoder=true")
    assert second.exit_code == 0, second.output
    for name in ("encoder.0.weight", "encoder.1.0.alpha", "encoder.5.bias", "decoder.0.weight"):
        before = load_checkpoint(out / "last.safetensors").arrays[name]
        after = load_checkpoint(tmp_path / "two" / "last.safetensors").arrays[name]
        assert np.array_equal(before, after) == name.startswith("encoder"), name


def test_ablation_and_tensorboard_are_a_flag_away(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    common = ["--ablation", "quantizer-dropout-0.25", "--tensorboard", "--time-limit", "0"]
    done = train(corpus, tmp_path / "run", *common)
    assert done.exit_code == 0, done.output
    assert "quantizer_dropout = 0.25" in done.output
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    for tag in (b"train/mel", b"train/perplexity", b"train/audio_s_per_s", b"validation/score"):
        assert tag in events.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--ablation", "no-sound"), 2, "'no-sound' is not one of 'baseline', 'no-discriminators'"),
        (("--set", "steps"), 2, "--set steps: write NAME=VALUE"),
        (("--set", "steps=many"), 1, "ConfigError: steps is 'many'; give a whole number"),
        (("--set", "stepz=3"), 1, "ConfigError: 'stepz' is not a training setting"),
        (("--set", "preset=huge"), 1, "ConfigError: preset 'huge' is unknown; choose one of small"),
        (("--init", "absent.safetensors"), 1, "CheckpointError: no weights at absent.safetensors"),
        (("--threads", "0"), 2, "--threads"),
    ],
)
def test_mistake_is_one_clear_line(
    corpus: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    failed = train(corpus, tmp_path / "run", *arguments)
    assert failed.exit_code == code, failed.output
    assert text in failed.output
    assert "Traceback" not in failed.output
    assert not (tmp_path / "run").exists()


def test_folder_that_is_no_corpus_is_named(tmp_path: Path) -> None:
    failed = train(tmp_path, tmp_path / "run")
    assert failed.exit_code == 1
    assert f"{tmp_path} holds no index.json" in failed.output


def test_damaged_settings_of_a_run_are_one_clear_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    failed = train(corpus, tmp_path)
    assert (failed.exit_code, "ConfigError: the training settings are not JSON" in failed.output) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_a_signal_ends_it_saved_and_is_told_by_the_exit_code(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    step = run_module.Trainer.train_step

    def asked_to_end(*arguments: Any) -> Any:
        signal.raise_signal(number)
        return step(*arguments)

    monkeypatch.setattr(run_module.Trainer, "train_step", asked_to_end)
    stopped = train(corpus, tmp_path)
    assert stopped.exit_code == 128 + number, stopped.output
    assert "stopped after step 1" in stopped.output
    assert load_checkpoint(tmp_path / "last.safetensors").config.hop_samples == 320
    assert not list(tmp_path.glob(".*.part"))
