"""Losses against numbers computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

torch = pytest.importorskip("torch", reason="training needs torch")

from streamcodec.errors import AudioError, ConfigError  # noqa: E402
from streamcodec.training import losses  # noqa: E402
from streamcodec.training.mel_filterbank import hz_to_mel, mel_filterbank, mel_to_hz  # noqa: E402
from streamcodec.training.spectrum import ShortTimeFourier  # noqa: E402

RATE_HZ = 24_000
WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scipy_magnitude(wave: np.ndarray, window: int) -> np.ndarray:
    """[B, T] to [B, frames, bins] in float64."""
    padded = np.pad(wave.astype(np.float64), ((0, 0), (window // 2, window // 2)), mode="reflect")
    _, _, spectrum = scipy.signal.stft(
        padded, window="hann", nperseg=window, noverlap=window * 3 // 4, boundary=None, padded=False, scaling="spectrum"
    )
    return np.abs(spectrum).transpose(0, 2, 1) * (window / 2)  # undo scipy's division by the window's sum


def test_slaney_scale_has_its_published_corners() -> None:
    assert np.allclose(hz_to_mel([0, 200, 1000, 6400]), [0, 3, 15, 42])
    hz = np.array([1.0, 440, 999, 1001, 11_025])
    assert np.allclose(mel_to_hz(hz_to_mel(hz)), hz)


def test_mel_filters_equal_hand_values() -> None:
    # 2 kHz: the scale is linear up to 1 kHz = 15 mel; 4 filters have corners every 3 mel = 200 Hz.
    filters = mel_filterbank(2000, 20, 4)  # bins every 100 Hz
    expected = np.zeros((11, 4))
    for i in range(4):
        expected[2 * i + 1, i] = expected[2 * i + 3, i] = 0.5 * 2 / 400
        expected[2 * i + 2, i] = 2 / 400
    assert np.allclose(filters, expected, atol=1e-9)


@pytest.mark.parametrize(("window", "n_mels"), [(32, 5), (256, 40), (2048, 320)])
def test_mel_filters_have_unit_area_and_none_is_empty(window: int, n_mels: int) -> None:
    filters = mel_filterbank(RATE_HZ, window, n_mels)
    assert filters.shape == (window // 2 + 1, n_mels)
    assert (filters.sum(0) > 0).all()
    fine = mel_filterbank(RATE_HZ, 1 << 16, n_mels).astype(np.float64)
    assert np.allclose(fine.sum(0) * RATE_HZ / (1 << 16), 1, atol=1e-3)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("samples", [2048, 3001])
def test_magnitude_equals_scipy(window: int, samples: int) -> None:
    wave = noise(2, samples)
    got = ShortTimeFourier(window).magnitude(wave)
    expected = scipy_magnitude(wave.numpy(), window)
    assert got.shape == (2, 1 + samples // (window // 4), window // 2 + 1)
    assert np.allclose(got.numpy(), expected[:, : got.shape[1]], atol=2e-5)


@pytest.mark.parametrize("window", [64, 512])
@pytest.mark.parametrize("samples", [1024, 1500])
def test_spectrum_and_its_gradients_equal_torch_stft(window: int, samples: int) -> None:
    fourier, wave = ShortTimeFourier(window), noise(2, samples).requires_grad_()
    twin = wave.detach().clone().requires_grad_()
    stft = torch.stft(twin, window, window // 4, window=torch.hann_window(window), return_complex=True).transpose(1, 2)
    weight = noise(*stft.shape, 2, seed=3, scale=1.0)
    got = fourier.spectrum(wave)
    torch.testing.assert_close(got, torch.view_as_real(stft), atol=2e-5, rtol=1e-4)
    ((got * weight).sum() + (fourier.magnitude(wave) * weight[..., 0]).sum()).backward()
    ((torch.view_as_real(stft) * weight).sum() + (stft.abs() * weight[..., 0]).sum()).backward()
    torch.testing.assert_close(wave.grad, twin.grad, atol=1e-3, rtol=1e-3)


def test_mel_loss_equals_numpy() -> None:
    made, target = noise(2, 4800), noise(2, 4800, seed=1)
    expected = 0.0
    for window, n_mels in zip(WINDOWS, (5, 10, 20, 40, 80, 160, 320), strict=True):
        filters = mel_filterbank(RATE_HZ, window, n_mels)
        a, b = (np.log10(np.maximum(scipy_magnitude(w.numpy(), window) @ filters, 1e-5)) for w in (made, target))
        expected += np.abs(a - b).mean()
    assert losses.MultiScaleMelLoss(RATE_HZ)(made, target).item() == pytest.approx(expected, rel=1e-4)


def test_spectral_loss_equals_numpy() -> None:
    made, target = noise(2, 4800), noise(2, 4800, seed=1)
    expected = 0.0
    for window in (512, 2048):
        a, b = (scipy_magnitude(w.numpy(), window) for w in (made, target))
        logs = [np.log10(np.maximum(m, 1e-5) ** 2) for m in (a, b)]
        expected += np.abs(a - b).mean() + np.abs(logs[0] - logs[1]).mean()
    assert losses.MultiScaleSpectralLoss()(made, target).item() == pytest.approx(expected, rel=1e-4)


def compressed(made: np.ndarray, target: np.ndarray, phase_share: float) -> float:
    """The loss of one window of 512 by numpy."""
    window = torch.hann_window(512)
    spectra = [
        torch.stft(torch.from_numpy(w), 512, 128, window=window, return_complex=True).numpy() / window.norm().item()
        for w in (made, target)
    ]
    a, b = (s / np.sqrt(np.abs(s) ** 2 + 1e-6) ** 0.7 for s in spectra)
    heights = [np.sqrt(np.abs(s) ** 2 + 1e-6) ** 0.3 for s in spectra]
    weight = 1 / (24.7 * (4.37e-3 * np.arange(257) * RATE_HZ / 512 + 1))
    each = (1 - phase_share) * (heights[0] - heights[1]) ** 2 + phase_share * np.abs(a - b) ** 2
    return float((each * (weight / weight.mean())[:, None]).mean())


@pytest.mark.parametrize("phase_share", [0.0, 0.5, 1.0])
def test_compressed_loss_equals_numpy(phase_share: float) -> None:
    made, target = noise(2, 4800), noise(2, 4800, seed=1)
    loss = losses.CompressedSpectralLoss(RATE_HZ, (512,), phase_share=phase_share)
    assert loss(made, target).item() == pytest.approx(compressed(made.numpy(), target.numpy(), phase_share), rel=1e-4)


def test_compressed_loss_hears_a_soft_error_in_a_low_band_before_a_loud_bands_error_of_its_power() -> None:
    t = torch.arange(9600) / RATE_HZ
    loud, soft = 0.3 * torch.sin(2 * np.pi * 500 * t)[None], 0.003 * torch.sin(2 * np.pi * 1500 * t)[None]
    loss = losses.CompressedSpectralLoss(RATE_HZ)
    soft_lost = loss(loud, loud + soft).item()
    loud_changed = loss(loud * 1.01 + soft, loud + soft).item()
    assert soft_lost > 10 * loud_changed


SPECTRAL = [
    losses.MultiScaleMelLoss(RATE_HZ),
    losses.MultiScaleSpectralLoss(),
    losses.CompressedSpectralLoss(RATE_HZ),
]


@pytest.mark.parametrize("loss", SPECTRAL)
def test_spectral_losses_are_zero_for_equals_and_symmetric(loss: torch.nn.Module) -> None:
    a, b = noise(1, 4800), noise(1, 4800, seed=1)
    assert loss(a, a).item() == 0
    assert loss(a, b).item() == pytest.approx(loss(b, a).item(), rel=1e-6)


@pytest.mark.parametrize("loss", SPECTRAL)
def test_gradients_are_finite_on_silence_and_on_full_scale(loss: torch.nn.Module) -> None:
    for made in (torch.zeros(1, 4800), torch.ones(1, 4800), 1e-6 * noise(1, 4800), noise(1, 4800)):
        for target in (torch.zeros(1, 4800), noise(1, 4800, seed=1)):
            wave = made.clone().requires_grad_()
            loss(wave, target).backward()
            assert torch.isfinite(wave.grad).all()


def test_target_gets_no_gradient() -> None:
    made, target = noise(1, 4800).requires_grad_(), noise(1, 4800, seed=1).requires_grad_()
    for loss in (*SPECTRAL, losses.waveform_loss):
        loss(made, target).backward()
        assert target.grad is None
        assert made.grad is not None


@pytest.mark.parametrize("window", [32, 512])
def test_mel_gradient_equals_finite_differences(window: int) -> None:
    loss = losses.MultiScaleMelLoss(RATE_HZ, (window,), (5,))
    made, target = noise(1, 1024).requires_grad_(), noise(1, 1024, seed=1)
    loss(made, target).backward()
    direction = noise(1, 1024, seed=2, scale=1.0)
    with torch.no_grad():
        up, down = (loss(made + s * 1e-3 * direction, target).item() for s in (1, -1))
    assert (made.grad * direction).sum().item() == pytest.approx((up - down) / 2e-3, rel=2e-2)


@pytest.mark.parametrize("loss", SPECTRAL)
def test_spectra_stay_float32_under_autocast(loss: torch.nn.Module) -> None:
    made, target = noise(1, 4800).bfloat16().requires_grad_(), noise(1, 4800, seed=1)
    plain = loss(made.detach().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(made, target)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-6)
    mixed.backward()
    assert torch.isfinite(made.grad).all()


def test_waveform_loss_is_the_mean_absolute_difference() -> None:
    made, target = torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.25]])
    assert losses.waveform_loss(made, target).item() == 0.625


def test_adversarial_losses_equal_hand_values() -> None:
    made = [[torch.tensor([1.0]), torch.tensor([0.5, -0.5])], [torch.tensor([3.0]), torch.tensor([[2.0]])]]
    target = [[torch.tensor([2.0]), torch.tensor([1.0, 0.0])], [torch.tensor([3.5]), torch.tensor([[1.0]])]]
    assert losses.generator_loss(made).item() == pytest.approx((0.25 + 2.25) / 2 + 1)
    assert losses.discriminator_loss(made, target).item() == pytest.approx(0.25 + 4 + 0.5 + 0)
    assert losses.feature_matching_loss(made, target).item() == pytest.approx(1 + 0.5)


def test_wrong_sizes_are_refused_in_one_line() -> None:
    with pytest.raises(AudioError, match="1024 samples are too short for a window of 2048"):
        ShortTimeFourier(2048).magnitude(torch.zeros(1, 1024))
    with pytest.raises(ConfigError, match="one of each"):
        losses.MultiScaleMelLoss(RATE_HZ, (32,), (5, 10))
