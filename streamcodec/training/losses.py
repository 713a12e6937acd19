"""What training minimises: spectral distances of waveforms, and the two sides of the adversarial game.

As in "High-Fidelity Audio Compression with Improved RVQGAN" (Kumar et al. 2023): sums over scales, discriminators and
layers, means over everything else.  Waveforms are [B, T] in [-1, 1].  Spectra are always computed in float32, also
under autocast.  Only the first argument, what the model made, gets a gradient.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamcodec.errors import AudioError, ConfigError
from streamcodec.training.mel_filterbank import mel_filterbank

MATMUL_WINDOW_SAMPLES = 256
"""Up to this window a matrix product is the faster Fourier transform."""

_POWER_FLOOR = 1e-14  # keeps the square root's gradient finite; far under every clamp


class Magnitude(nn.Module):
    """Magnitude of the short-time Fourier transform, Hann window, hop of a quarter window.

    The same numbers as `torch.stft(..., center=True, pad_mode="reflect")`, without its copies: rows of one hop
    are laid side by side instead of gathered.

    Parameters
    ----------
    window_samples : int
        Window length, a multiple of 4.
    """

    dft: Tensor
    window: Tensor

    def __init__(self, window_samples: int) -> None:
        super().__init__()
        if window_samples < 4 or window_samples % 4:
            raise ConfigError(f"the window is {window_samples} samples; it must be a multiple of 4")
        self.window_samples = window_samples
        self.hop_samples = window_samples // 4
        self.bins = window_samples // 2 + 1
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)
        self.by_matmul = window_samples <= MATMUL_WINDOW_SAMPLES
        if self.by_matmul:
            turn = 2 * np.pi / window_samples * np.outer(np.arange(window_samples), np.arange(self.bins))
            dft = np.concatenate([np.cos(turn), np.sin(turn)], axis=1) * window[:, None]
            self.register_buffer("dft", torch.tensor(dft, dtype=torch.float32), persistent=False)
        else:
            self.register_buffer("window", torch.tensor(window, dtype=torch.float32), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, 1 + T // hop_samples, bins], float32."""
        samples, half = wave.shape[-1], self.window_samples // 2
        if samples <= half:
            raise AudioError(f"{samples} samples are too short for a window of {self.window_samples}; give over {half}")
        frames = 1 + samples // self.hop_samples
        padded = functional.pad(wave.float()[:, None], (half, half), mode="reflect")[:, 0]
        rows = padded[:, : (frames + 3) * self.hop_samples].reshape(len(wave), frames + 3, self.hop_samples)
        framed = torch.cat([rows[:, i : i + frames] for i in range(4)], dim=-1)
        if self.by_matmul:
            spectrum = framed @ self.dft
            power = spectrum[..., : self.bins].square() + spectrum[..., self.bins :].square()
        else:
            power = torch.view_as_real(torch.fft.rfft(framed * self.window)).square().sum(-1)
        magnitude: Tensor = power.clamp_min(_POWER_FLOOR).sqrt()
        return magnitude


class _MelScale(nn.Module):
    """Mean absolute difference of log10 mel magnitudes at one scale."""

    filters: Tensor

    def __init__(self, sample_rate_hz: int, window_samples: int, n_mels: int, floor: float) -> None:
        super().__init__()
        self.magnitude = Magnitude(window_samples)
        self.floor = floor
        self.register_buffer(
            "filters", torch.from_numpy(mel_filterbank(sample_rate_hz, window_samples, n_mels)), persistent=False
        )

    def _log_mel(self, wave: Tensor) -> Tensor:
        mel: Tensor = self.magnitude(wave) @ self.filters
        return mel.clamp_min(self.floor).log()

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._log_mel(target)
        return functional.l1_loss(self._log_mel(made), wanted) / log(10)


class MultiScaleMelLoss(nn.Module):
    """Sum over scales of the mean absolute difference of log10 mel magnitudes.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the waveforms.
    windows : sequence of int
        Window of each scale in samples; the hop is a quarter.
    mels : sequence of int
        Mel bands of each scale.
    scales_per_step : int, optional
        Compute so many scales a step, drawn by the step's number and weighted by n / scales_per_step: the same loss
        on average, for less time.
    floor : float
        Magnitudes are clamped to at least this.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        mels: Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        *,
        scales_per_step: int | None = None,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if len(windows) != len(mels) or not windows:
            raise ConfigError(f"{len(windows)} windows and {len(mels)} mel counts; give one of each for every scale")
        if scales_per_step is not None and not 1 <= scales_per_step <= len(windows):
            raise ConfigError(f"scales_per_step is {scales_per_step}; it must be from 1 to {len(windows)}")
        self.scales = nn.ModuleList(
            _MelScale(sample_rate_hz, window, count, floor) for window, count in zip(windows, mels, strict=True)
        )
        self.scales_per_step = scales_per_step

    def drawn_scales(self, step: int) -> list[int]:
        """Indices of the scales that `step` computes: the same on every machine and after a resume."""
        count = len(self.scales)
        if self.scales_per_step is None:
            return list(range(count))
        return sorted(random.Random(f"mel scales of step {step}").sample(range(count), self.scales_per_step))

    def forward(self, made: Tensor, target: Tensor, step: int = 0) -> Tensor:
        """Loss of `made` against `target`, both [B, T]; `step` matters only with `scales_per_step`."""
        chosen = self.drawn_scales(step)
        with torch.autocast(made.device.type, enabled=False):
            total = sum((self.scales[i](made, target) for i in chosen), made.new_zeros((), dtype=torch.float32))
        return total * (len(self.scales) / len(chosen))


class MultiScaleSpectralLoss(nn.Module):
    """Sum over windows of two mean absolute differences: of log10 power and of magnitude.

    Parameters
    ----------
    windows : sequence of int
        Window of each scale in samples; the hop is a quarter.
    floor : float
        Magnitudes are clamped to at least this before the logarithm.
    """

    def __init__(self, windows: Sequence[int] = (512, 2048), *, floor: float = 1e-5) -> None:
        super().__init__()
        self.magnitudes = nn.ModuleList(Magnitude(window) for window in windows)
        self.floor = floor

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        """Loss of `made` against `target`, both [B, T]."""
        total = made.new_zeros((), dtype=torch.float32)
        with torch.autocast(made.device.type, enabled=False):
            for magnitude in self.magnitudes:
                with torch.no_grad():
                    wanted = magnitude(target)
                    wanted_log = wanted.clamp_min(self.floor).log()
                got = magnitude(made)
                logs = functional.l1_loss(got.clamp_min(self.floor).log(), wanted_log)
                total = total + functional.l1_loss(got, wanted) + logs * (2 / log(10))
        return total


def waveform_loss(made: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of samples."""
    return functional.l1_loss(made.float(), target.detach().float())


Features = Sequence[Sequence[Tensor]]
"""What discriminators make of a waveform: for each, its feature maps, the last of them its logits."""


def feature_matching_loss(made: Features, target: Features) -> Tensor:
    """Sum over discriminators and layers, logits left out, of the mean absolute difference of feature maps."""
    pairs = [
        functional.l1_loss(got.float(), wanted.detach().float())
        for got_maps, wanted_maps in zip(made, target, strict=True)
        for got, wanted in zip(got_maps[:-1], wanted_maps[:-1], strict=True)
    ]
    return torch.stack(pairs).sum()


def generator_loss(made: Features) -> Tensor:
    """Least-squares GAN, generator's side: sum over discriminators of mean (1 - D(made))^2."""
    return torch.stack([(1 - maps[-1].float()).square().mean() for maps in made]).sum()


def discriminator_loss(made: Features, target: Features) -> Tensor:
    """Least-squares GAN, discriminators' side: sum of mean D(made)^2 + mean (1 - D(target))^2.

    `made` must come from a detached waveform.
    """
    fake = torch.stack([maps[-1].float().square().mean() for maps in made]).sum()
    return fake + generator_loss(target)
