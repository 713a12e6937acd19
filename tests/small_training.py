"""A training run small enough to test with: shape, settings, crops of synthetic sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from small_models import SMALL

from streamcodec.training.settings import TrainSettings
from streamcodec.training.trainer import Trainer
from streamcodec.training.world import World

CONFIG = replace(SMALL, codebook_size=16)
SETTINGS = TrainSettings(
    preset="small",
    steps=6,
    batch=2,
    crop_frames=4,
    warmup_steps=2,
    unquantized_steps=2,
    reseed_steps=2,
    lost_clips=0.5,
    discriminators=("period",),
    discriminator_size="slim",
    validate_steps=3,
    log_steps=2,
)
ALONE = World(0, 1, torch.device("cpu"))


class Crops:
    """What `CropSampler.batch` promises, of tones in noise: a pure function of seed and step."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def batch(self, step: int, rows: range | None = None) -> np.ndarray:
        settings = self.settings
        rng = np.random.default_rng((settings.seed, step))
        samples = np.arange(settings.crop_frames * CONFIG.hop_samples)
        pitches = rng.uniform(0.01, 0.3, (settings.batch, 1))
        wave = 0.3 * np.sin(pitches * samples) + 0.05 * rng.standard_normal((settings.batch, len(samples)))
        return wave.astype(np.float32)[slice(None) if rows is None else slice(rows.start, rows.stop)]


def stepped(steps: int, trainer: Trainer | None = None, world: World = ALONE, **changes: Any) -> Trainer:
    """A trainer after `steps` more steps."""
    trainer = trainer or Trainer(SETTINGS.changed(changes), world)
    crops, rows = Crops(trainer.settings), world.rows(trainer.settings.batch)
    for _ in range(steps):
        trainer.train_step(torch.from_numpy(crops.batch(trainer.step, rows)))
    return trainer
