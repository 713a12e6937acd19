"""Short-time Fourier transforms that train fast on a CPU core.

Hann window, hop of a quarter window, centred frames with reflected ends: the numbers of
`torch.stft(..., center=True, pad_mode="reflect")`.  Rows of one hop are laid side by side instead of gathered, and
the gradient is one inverse real transform (torch's own is a complex one of twice the size).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from streamcodec.errors import AudioError, ConfigError

_FLOOR = 1e-7  # of a magnitude, so that its gradient is finite on silence
_OVERLAP = 4


def _analyse(rows: Tensor, window: Tensor) -> Tensor:
    """Rows of one hop [B, R, hop] to complex spectra [B, R - 3, bins]."""
    count = rows.shape[1] - _OVERLAP + 1
    frames = torch.cat([rows[:, i : i + count] for i in range(_OVERLAP)], dim=-1)
    spectra: Tensor = torch.fft.rfft(frames.mul_(window))
    return spectra


def _adjoint(gradient: Tensor, window: Tensor) -> Tensor:
    """Gradient of complex spectra, d/d real + i d/d imaginary, to the gradient of rows; overwrites its input."""
    gradient[..., 1:-1] *= 0.5
    gradient[..., :: gradient.shape[-1] - 1].imag.zero_()  # a real signal has none there; cuFFT would not ignore it
    frames: Tensor = torch.fft.irfft(gradient, n=len(window), norm="forward").mul_(window)
    batch, count, samples = frames.shape
    hop = samples // _OVERLAP
    rows = frames.new_zeros(batch, count + _OVERLAP - 1, hop)
    for i in range(_OVERLAP):
        rows[:, i : i + count] += frames[..., i * hop : (i + 1) * hop]
    return rows


class _Spectrum(torch.autograd.Function):
    """Rows to spectra with real and imaginary part in the last dimension."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, window: Tensor) -> Tensor:
        ctx.save_for_backward(window)
        return torch.view_as_real(_analyse(rows, window))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (window,) = ctx.saved_tensors
        return _adjoint(torch.view_as_complex(gradients[0].clone(memory_format=torch.contiguous_format)), window), None


class _Magnitude(torch.autograd.Function):
    """Rows to magnitudes; |s| has the gradient s / max(|s|, floor), zero at zero."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, window: Tensor) -> Tensor:
        spectrum = _analyse(rows, window)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        magnitude = power.sqrt_().clamp_min_(_FLOOR)
        ctx.save_for_backward(spectrum, magnitude, window)
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        spectrum, magnitude, window = ctx.saved_tensors
        return _adjoint(spectrum * (gradients[0] / magnitude), window), None


class ShortTimeFourier(nn.Module):
    """Spectra or magnitudes of waveforms, in float32 also under autocast.

    Parameters
    ----------
    window_samples : int
        Window length, a multiple of 4.
    """

    window: Tensor

    def __init__(self, window_samples: int) -> None:
        super().__init__()
        if window_samples < 4 or window_samples % _OVERLAP:
            raise ConfigError(f"the window is {window_samples} samples; it must be a multiple of {_OVERLAP}")
        self.window_samples = window_samples
        self.hop_samples = window_samples // _OVERLAP
        self.bins = window_samples // 2 + 1
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)
        self.register_buffer("window", torch.tensor(window, dtype=torch.float32), persistent=False)

    def _rows(self, wave: Tensor) -> Tensor:
        samples, half = wave.shape[-1], self.window_samples // 2
        if samples <= half:
            raise AudioError(f"{samples} samples are too short for a window of {self.window_samples}; give over {half}")
        rows = samples // self.hop_samples + _OVERLAP
        padded = functional.pad(wave.float()[:, None], (half, half), mode="reflect")
        return padded[:, 0, : rows * self.hop_samples].reshape(len(wave), rows, self.hop_samples)

    def spectrum(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, 1 + T // hop_samples, bins, 2], real and imaginary."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum: Tensor = _Spectrum.apply(self._rows(wave), self.window)  # type: ignore[no-untyped-call]
        return spectrum

    def magnitude(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, 1 + T // hop_samples, bins]."""
        with torch.autocast(wave.device.type, enabled=False):
            magnitude: Tensor = _Magnitude.apply(self._rows(wave), self.window)  # type: ignore[no-untyped-call]
        return magnitude
