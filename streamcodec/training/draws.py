"""What chance decides in a training step, as a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamcodec.training.settings import TrainSettings

_DEPLOYED = (2, 4, 8, 12)


def generator(seed: int, step: int, purpose: int) -> np.random.Generator:
    """Random numbers that depend on seed, step and purpose alone."""
    return np.random.default_rng((seed, step, purpose))


def codebooks_used(settings: TrainSettings, n_codebooks: int, step: int) -> Tensor:
    """How many codebooks each crop uses, int64 [batch].

    A share `quantizer_dropout` of the crops draws: half of those any number, half one that is deployed.
    """
    rng = generator(settings.seed, step, 1)
    deployed = [count for count in _DEPLOYED if count <= n_codebooks] or [n_codebooks]
    drawn = np.where(
        rng.random(settings.batch) < 0.5,
        rng.integers(1, n_codebooks + 1, settings.batch),
        rng.choice(deployed, settings.batch),
    )
    keep = rng.random(settings.batch) >= settings.quantizer_dropout
    return torch.from_numpy(np.where(keep, n_codebooks, drawn))


def channel_distortion(settings: TrainSettings, used: Tensor, n_codebooks: int) -> Tensor:
    """Distortion of the noisy channel for each crop.

    Its SNR in dB grows with the power 0.6 of the codebooks in use, as was measured of k-means codebooks on latents of
    64 dimensions: 3.8, 5.6, 8.2 and 10.6 dB with 2, 4, 8 and 12 of 12.
    """
    if not settings.channel_snr_db:
        return torch.zeros(len(used))
    return 10 ** (-settings.channel_snr_db / 10 * (used / n_codebooks) ** 0.6)


def frames_heard(settings: TrainSettings, step: int) -> Tensor:
    """Which frames reach the decoder, float32 [batch, crop_frames]: losses come in bursts of 1 to 6 frames."""
    rng = generator(settings.seed, step, 2)
    heard = np.ones((settings.batch, settings.crop_frames), np.float32)
    for clip in np.flatnonzero(rng.random(settings.batch) < settings.lost_clips):
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(0, settings.crop_frames)
            heard[clip, start : start + rng.integers(1, 7)] = 0
    return torch.from_numpy(heard)


def learning_rate_share(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate_share`."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = min(1.0, step / settings.steps)
    low = settings.final_learning_rate_share
    return warm * (low + (1 - low) * 0.5 * (1 + float(np.cos(np.pi * done))))
