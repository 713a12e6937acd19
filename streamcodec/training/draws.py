"""What chance decides in a training step, as a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamcodec.training.settings import TrainSettings


def deployed_codebooks(n_codebooks: int) -> list[int]:
    """Numbers of codebooks that a model is tuned and validated for: a sixth, a third, two thirds and all of them.

    >>> deployed_codebooks(12), deployed_codebooks(18)
    ([2, 4, 8, 12], [3, 6, 12, 18])
    """
    return sorted({max(1, n_codebooks * sixths // 6) for sixths in (1, 2, 4, 6)})


def generator(seed: int, step: int, purpose: int) -> np.random.Generator:
    """Random numbers that depend on seed, step and purpose alone."""
    return np.random.default_rng((seed, step, purpose))


def codebooks_used(settings: TrainSettings, n_codebooks: int, step: int) -> Tensor:
    """How many codebooks each crop uses, int64 [batch].

    A share `quantizer_dropout` of the crops draws: half of those any number, half one that is deployed.
    """
    rng = generator(settings.seed, step, 1)
    drawn = np.where(
        rng.random(settings.batch) < 0.5,
        rng.integers(1, n_codebooks + 1, settings.batch),
        rng.choice(deployed_codebooks(n_codebooks), settings.batch),
    )
    keep = rng.random(settings.batch) >= settings.quantizer_dropout
    return torch.from_numpy(np.where(keep, n_codebooks, drawn))


def channel_bits(used: Tensor, bits_per_code: int) -> Tensor:
    """Bits a frame that `used` [B] codebooks are worth to an ideal quantiser of Gaussian latents.

    Measured of k-means codebooks in 16 principal axes, on latents of 64 dimensions: an SNR of 3.6, 5.2, 7.9, 11.5 and
    14.4 dB with 1, 2, 4, 8 and 12 codebooks of 10 bits, which the ideal one reaches with 13, 22, 38, 71 and 100 bits.
    """
    return bits_per_code * used.double() ** 0.93


def frames_heard(settings: TrainSettings, step: int) -> Tensor:
    """Which frames reach the decoder, float32 [batch, crop_frames]: losses come in bursts of 1 to 6 frames."""
    rng = generator(settings.seed, step, 2)
    heard = np.ones((settings.batch, settings.crop_frames), np.float32)
    for clip in np.flatnonzero(rng.random(settings.batch) < settings.lost_clips):
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(0, settings.crop_frames)
            heard[clip, start : start + rng.integers(1, 7)] = 0
    return torch.from_numpy(heard)


def learning_rate_share(settings: TrainSettings, step: int, done: float) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate_share` when the share `done` of the run reaches 1."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    low = settings.final_learning_rate_share
    return warm * (low + (1 - low) * 0.5 * (1 + float(np.cos(np.pi * done))))
