"""What training minimises: spectral distances of waveforms, and the two sides of the adversarial game.

As in "High-Fidelity Audio Compression with Improved RVQGAN" (Kumar et al. 2023): sums over scales, discriminators and
layers, means over everything else.  Waveforms are [B, T] in [-1, 1].  Spectra are always computed in float32, also
under autocast.  Only the first argument, what the model made, gets a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamcodec.errors import ConfigError
from streamcodec.training.mel_filterbank import mel_filterbank
from streamcodec.training.spectrum import ShortTimeFourier


class _MelScale(nn.Module):
    """Mean absolute difference of log10 mel magnitudes at one scale."""

    filters: Tensor

    def __init__(self, sample_rate_hz: int, window_samples: int, n_mels: int, floor: float) -> None:
        super().__init__()
        self.fourier = ShortTimeFourier(window_samples)
        self.floor = floor
        self.register_buffer(
            "filters", torch.from_numpy(mel_filterbank(sample_rate_hz, window_samples, n_mels)), persistent=False
        )

    def _log_mel(self, wave: Tensor) -> Tensor:
        mel: Tensor = self.fourier.magnitude(wave) @ self.filters
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
    floor : float
        Magnitudes are clamped to at least this.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        mels: Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        *,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if len(windows) != len(mels) or not windows:
            raise ConfigError(f"{len(windows)} windows and {len(mels)} mel counts; give one of each for every scale")
        self.scales = nn.ModuleList(
            _MelScale(sample_rate_hz, window, count, floor) for window, count in zip(windows, mels, strict=True)
        )

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        """Loss of `made` against `target`, both [B, T]."""
        with torch.autocast(made.device.type, enabled=False):
            return sum((scale(made, target) for scale in self.scales), made.new_zeros((), dtype=torch.float32))


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
        self.transforms = nn.ModuleList(ShortTimeFourier(window) for window in windows)
        self.floor = floor

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        """Loss of `made` against `target`, both [B, T]."""
        total = made.new_zeros((), dtype=torch.float32)
        with torch.autocast(made.device.type, enabled=False):
            for fourier in self.transforms:
                assert isinstance(fourier, ShortTimeFourier)
                with torch.no_grad():
                    wanted = fourier.magnitude(target)
                    wanted_log = wanted.clamp_min(self.floor).log()
                got = fourier.magnitude(made)
                logs = functional.l1_loss(got.clamp_min(self.floor).log(), wanted_log)
                total = total + functional.l1_loss(got, wanted) + logs * (2 / log(10))
        return total


class CompressedSpectralLoss(nn.Module):
    """Sum over windows of squared differences of spectra whose magnitudes are raised to a power, phase kept.

    With c the exponent, m = |S|^c and p the phase: (1 - s) (m - m')^2 + s |m e^ip - m' e^ip'|^2, the loss of speech
    enhancement (Braun and Tashev 2021, "A consolidated view of loss functions for supervised deep learning-based speech
    enhancement", eq. 9).  Compression lets soft parts of the spectrum count as an ear lets them.  Bins weigh as one
    over the ear's bandwidth there (Glasberg and Moore 1990, eq. 3), so that each auditory band counts the same.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the waveforms.
    windows : sequence of int
        Window of each scale in samples; the hop is a quarter.
    exponent : float
        c.
    phase_share : float
        s, from 0 (magnitudes only) to 1.
    floor : float
        Softens the power of magnitudes below it; a magnitude of white noise is its RMS.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        windows: Sequence[int] = (256, 512, 1024),
        *,
        exponent: float = 0.3,
        phase_share: float = 0.5,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 <= phase_share <= 1:
            raise ConfigError(f"phase_share is {phase_share}; it must be from 0 to 1")
        self.transforms = nn.ModuleList(ShortTimeFourier(window) for window in windows)
        self.exponent = exponent
        self.phase_share = phase_share
        self.floor = floor
        for i, window in enumerate(windows):
            hz = torch.arange(window // 2 + 1) * (sample_rate_hz / window)
            weight = 1 / (24.7 * (4.37e-3 * hz + 1))
            self.register_buffer(f"weight_{i}", (weight / weight.mean())[:, None], persistent=False)

    def _power(self, fourier: ShortTimeFourier, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed spectra [B, F, bins, 2] and their magnitudes [B, F, bins, 1]."""
        spectrum = fourier.spectrum(wave) / fourier.window.square().sum().sqrt()
        softened = spectrum.square().sum(-1, keepdim=True) + self.floor**2
        gain = softened ** ((self.exponent - 1) / 2)
        return spectrum * gain, softened.sqrt() * gain

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        """Loss of `made` against `target`, both [B, T]."""
        total = made.new_zeros((), dtype=torch.float32)
        with torch.autocast(made.device.type, enabled=False):
            for i, fourier in enumerate(self.transforms):
                assert isinstance(fourier, ShortTimeFourier)
                with torch.no_grad():
                    wanted, wanted_magnitude = self._power(fourier, target)
                got, magnitude = self._power(fourier, made)
                phase = (got - wanted).square().sum(-1, keepdim=True)
                level = (magnitude - wanted_magnitude).square()
                weight: Tensor = getattr(self, f"weight_{i}")
                total = total + (torch.lerp(level, phase, self.phase_share) * weight).mean()
        return total


def waveform_loss(made: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of samples."""
    return functional.l1_loss(made.float(), target.detach().float())


Features = Sequence[Sequence[Tensor]]
"""What discriminators make of a waveform: for each, its feature maps, the last of them its logits."""


def feature_matching_loss(made: Features, target: Features) -> Tensor:
    """Sum over discriminators and layers, logits left out, of the mean absolute difference of feature maps."""
    pairs = [
        (got - wanted.detach()).abs().mean(dtype=torch.float32)
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
