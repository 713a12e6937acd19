"""Where a training step's time goes on a card: `python bench/gpu/training_step.py [NAME=VALUE ...]`.

Runs steps of random sound launch by launch, without and with discriminators, and prints the device time of the
costliest kernels and of all.  NAME=VALUE changes a training setting.
"""

from __future__ import annotations

import json
import sys

import torch
from torch.profiler import ProfilerActivity, profile

from streamcodec.bench.gpu import report
from streamcodec.errors import StreamcodecError
from streamcodec.training.settings import TrainSettings
from streamcodec.training.trainer import Trainer
from streamcodec.training.world import World

WARM_UP_STEPS, STEPS, ROWS = 5, 3, 30
SETTINGS = {
    "preset": "base-24k",
    "precision": "bfloat16",
    "batch": 32,
    "crop_frames": 54,
    "quantizer": "ema",
    "ema_dim": 32,
    "unquantized_steps": 0,
    "spectral_weight": 0,
    "compressed_weight": 500,
    "discriminators": ["period", "stft"],
    "discriminator_size": "half",
    "reseed_steps": 0,
    "adversarial_from_step": WARM_UP_STEPS + STEPS,
}


def main(changes: list[str]) -> None:
    device = report.require_gpu()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    changed = {name: json.loads(value) for name, value in (change.split("=", 1) for change in changes)}
    trainer = Trainer(TrainSettings().changed(SETTINGS | changed), World(0, 1, device), capture=False)
    config, settings = trainer.config, trainer.settings
    wave = 0.1 * torch.randn(settings.batch, settings.crop_frames * config.hop_samples)
    for name, value in report.gpu_machine(device).items():
        print(f"{name}: {value}")
    for phase in ("generator alone", "with discriminators"):
        for _ in range(WARM_UP_STEPS):
            trainer.train_step(wave)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for _ in range(STEPS):
                trainer.train_step(wave)
            torch.cuda.synchronize()
        rows = sorted(
            (
                (event.self_device_time_total / 1e3 / STEPS, event.count / STEPS, event.key)
                for event in found.key_averages()
            ),
            reverse=True,
        )
        print(f"\n{phase}: {sum(row[0] for row in rows):.1f} ms a step, {sum(row[1] for row in rows):.0f} launches")
        for ms, count, kernel in rows[:ROWS]:
            print(f"{ms:8.3f} ms {count:7.0f} x {kernel[:110]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StreamcodecError as error:
        sys.exit(f"error: {error}")
