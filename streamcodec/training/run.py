"""A training run in a folder: resume, train until the steps or the time are up, log, validate, keep the best."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from streamcodec.checkpoint import save_checkpoint
from streamcodec.errors import MissingExtraError
from streamcodec.files import append_text, write_text
from streamcodec.nn.model import CodecModel
from streamcodec.training import losses
from streamcodec.training.draws import deployed_codebooks
from streamcodec.training.resume import load_state, save_state
from streamcodec.training.sampler import CropSampler
from streamcodec.training.settings import TrainSettings
from streamcodec.training.trainer import Trainer
from streamcodec.training.world import World

_VALIDATION_CROPS, _VALIDATION_SECONDS = 24, 2


class _Steps(Dataset[Tensor]):
    """Batches by step number, for loader processes."""

    def __init__(self, sampler: CropSampler, rows: range) -> None:
        self.sampler = sampler
        self.rows = rows

    def __getitem__(self, step: int) -> Tensor:
        return torch.from_numpy(self.sampler.batch(step, self.rows))


def batches(sampler: CropSampler, rows: range, start: int, stop: int, workers: int) -> Iterator[Tensor]:
    """Yield this process's rows [rows, T] of the batches of steps `start` to `stop`."""
    loader: DataLoader[Tensor] = DataLoader(
        _Steps(sampler, rows),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)


class Validation:
    """Fixed crops, and the mel and the power-compressed loss of a model on them for several bitrates."""

    def __init__(
        self, sampler: CropSampler, sample_rate_hz: int, device: torch.device, phase_share: float = 0.5
    ) -> None:
        self.wave = torch.from_numpy(sampler.batch(0)).to(device)
        self.losses = {
            "mel": losses.MultiScaleMelLoss(sample_rate_hz).to(device),
            "compressed": losses.CompressedSpectralLoss(sample_rate_hz, phase_share=phase_share).to(device),
        }

    @torch.no_grad()
    def score(self, model: CodecModel, settings: TrainSettings) -> dict[str, float]:
        """Both losses with each number of codebooks; `score` is their means as training weighs them, low is good."""
        scores: dict[str, float] = {}
        counts = deployed_codebooks(model.config.n_codebooks)
        for count in counts:
            for wave in torch.split(self.wave, 4):
                codes = model.quantizer.encode(model.encode_latent(wave), count)
                made = model.decode_latent(model.quantizer.decode(codes, model.config.latent_dim))
                for name, loss in self.losses.items():
                    term = float(loss(made, wave)) * len(wave) / len(self.wave)
                    scores[f"{name}_{count}"] = scores.get(f"{name}_{count}", 0.0) + term
        mel, compressed = (float(np.mean([scores[f"{name}_{count}"] for count in counts])) for name in self.losses)
        weighs_both = settings.mel_weight + settings.compressed_weight > 0
        scores["score"] = settings.mel_weight * mel + settings.compressed_weight * compressed if weighs_both else mel
        return scores


class Log:
    """One readable line, one JSON line and one TensorBoard record for the same numbers."""

    def __init__(self, folder: Path, say: Callable[[str], None], tensorboard: bool) -> None:
        self.say = say
        self.path = folder / "metrics.jsonl"
        self.writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError:
                raise MissingExtraError("tensorboard", "train") from None
            create: Any = SummaryWriter
            self.writer = create(str(folder / "tensorboard"))

    def record(self, kind: str, step: int, numbers: dict[str, float]) -> None:
        """Write numbers of kind "train" or "validation"."""
        append_text(self.path, json.dumps({"kind": kind, "step": step} | numbers) + "\n")
        self.say(f"{kind:<10} step {step:>7} " + " ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        if self.writer is not None:
            for name, value in numbers.items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out what TensorBoard has not written yet."""
        if self.writer is not None:
            self.writer.close()


def run(
    settings: TrainSettings,
    train: CropSampler,
    validation: Validation,
    folder: Path,
    world: World,
    *,
    start_from: CodecModel | None = None,
    time_limit_s: float = float("inf"),
    piece_bytes: int = 15_000_000,
    workers: int = 0,
    save_every_s: float = 300.0,
    tensorboard: bool = True,
    say: Callable[[str], None] = print,
    stop_asked: Callable[[], bool] = lambda: False,
    capture: bool = True,
) -> Trainer:
    """Train until `settings.steps`, `time_limit_s` or `stop_asked()`, resuming from what `folder` holds.

    Leaves in `folder`: settings.json, metrics.jsonl, best.safetensors (by validation), last.safetensors, and the
    pieces of the resume state.
    """
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings, world, capture)
    state = load_state(folder)
    best = float("inf")
    if state is not None:
        trainer.load_state(state)
        best = state["best"]
    elif start_from is not None:
        trainer.load_model(start_from)
    first = world.rank == 0
    log = Log(folder, say, tensorboard) if first else None
    if first:
        write_text(folder / "settings.json", settings.to_json())

    def keep() -> None:
        save_state(folder, trainer.state() | {"best": best}, piece_bytes)
        save_checkpoint(folder / "last.safetensors", trainer.config, trainer.averaged_model().export_arrays())

    rows = world.rows(settings.batch)
    seconds_a_step = settings.batch * settings.crop_frames * trainer.config.hop_samples / trainer.config.sample_rate_hz
    sums: dict[str, Tensor] = {}
    logged, logged_at, saved_at = trainer.step, time.monotonic(), time.monotonic()
    for wave in batches(train, rows, trainer.step, settings.steps, workers):
        if settings.follow_clock:
            trainer.clock_share = world.agree((time.monotonic() - begun) / max(time_limit_s, 1e-9))
        for name, term in trainer.train_step(wave).items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term
        step = trainer.step
        if log is not None and step % settings.log_steps == 0:
            count, elapsed = step - logged, time.monotonic() - logged_at
            numbers = {name: float(total) / count for name, total in sums.items()}
            share, perplexity = trainer.usage()
            numbers |= {"codes_used": share, "perplexity": perplexity, "skipped": trainer.skipped_steps}
            numbers |= {"steps_per_s": count / elapsed, "audio_s_per_s": count * seconds_a_step / elapsed}
            log.record("train", step, numbers)
            sums, logged, logged_at = {}, step, time.monotonic()
        over = bool(world.agree(float(stop_asked() or time.monotonic() - begun > time_limit_s)))
        if log is not None and (step % settings.validate_steps == 0 or over or step == settings.steps):
            model = trainer.averaged_model()
            scores = validation.score(model, settings)
            log.record("validation", step, scores)
            if scores["score"] < best and step > settings.unquantized_steps:
                best = scores["score"]
                save_checkpoint(folder / "best.safetensors", trainer.config, model.export_arrays())
        if first and time.monotonic() - saved_at > save_every_s:
            keep()
            saved_at = time.monotonic()
        if over:
            break
    if first:
        keep()
    if log is not None:
        log.close()
    return trainer


def validation_sampler_shape(sample_rate_hz: int, hop_samples: int) -> tuple[int, int]:
    """Crop length in samples and number of crops that `Validation` wants."""
    return _VALIDATION_SECONDS * sample_rate_hz // hop_samples * hop_samples, _VALIDATION_CROPS
