"""Where training starts, and the noisy channel that stands for the quantiser."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_models import STRIDED  # noqa: E402
from small_training import CONFIG, stepped  # noqa: E402

from streamcodec.cli.loopback import sample_path  # noqa: E402
from streamcodec.config import PRESETS  # noqa: E402
from streamcodec.errors import ConfigError  # noqa: E402
from streamcodec.evaluation.sound_files import read_sound  # noqa: E402
from streamcodec.metrics.si_sdr import si_sdr  # noqa: E402
from streamcodec.metrics.waveforms import resampled  # noqa: E402
from streamcodec.nn.layers import Residual, Snake  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402
from streamcodec.nn.passthrough import cosine_transform  # noqa: E402
from streamcodec.nn.rate_channel import RateChannel, noise_for_rate  # noqa: E402
from streamcodec.training import shapes  # noqa: E402

pytestmark = pytest.mark.usefixtures("small_preset")


def snr_db(signal, approximation):
    return float(10 * torch.log10(signal.square().sum() / (signal - approximation).square().sum()))


def low_tone(samples: int):
    time_s = torch.arange(samples) / 24_000
    return (0.1 * torch.sin(2 * torch.pi * 440 * time_s) + 0.05 * torch.sin(2 * torch.pi * 1330 * time_s))[None]


def test_an_untrained_model_already_passes_low_tones():
    torch.manual_seed(0)
    model = CodecModel(PRESETS["tiny-24k"], trainable=True)
    wave = low_tone(9600)
    with torch.no_grad():
        assert snr_db(wave, model.decode_latent(model.encode_latent(wave))) > 8


@pytest.fixture(scope="module")
def clean():
    """An untrained voice-24k, speech [1, T] at -23 dBFS, what it makes of it, and what passes its layers."""
    torch.manual_seed(0)
    model, seen = CodecModel(PRESETS["voice-24k"], trainable=True), []
    for module in (*model.encoder, *model.decoder):
        module.register_forward_hook(lambda module, given, out: seen.append((module, given[0], out)))
    speech = torch.from_numpy(resampled(*read_sound(sample_path()), 24_000)[: 100 * 480]).float()[None]
    speech *= 10 ** (-23 / 20) / speech.square().mean().sqrt()
    with torch.no_grad():
        made = model.decode_latent(model.encode_latent(speech))
    return model, speech, made, seen


def test_an_untrained_voice_24k_already_passes_speech(clean):
    _, speech, made, _ = clean
    assert si_sdr(speech[0].numpy(), made[0].numpy(), 24_000) > 11


def test_activations_of_the_clean_start_are_neither_small_nor_large(clean):
    for module, _, out in clean[-1][:-2]:
        assert 0.5 < out.square().mean().sqrt() < 3, module
        assert out.abs().max() < 40, module


def test_the_clean_start_is_nonlinear_beside_the_waveform_and_linear_on_its_way(clean):
    for module, given, out in clean[-1]:
        if isinstance(module, Residual):
            torch.testing.assert_close(out[..., 0], given[..., 0], atol=0, rtol=0)
        if isinstance(module, Snake):
            bent = (out - given)[0]
            assert bent[:, 0].abs().max() < 0.05 * given[..., 0].abs().max()
            x, y = (rows[0] - rows[0].mean(0) for rows in (given, out))
            rest = y - (x * y).sum(0) / x.square().sum(0) * x
            share = rest.square().sum(0) / y.square().sum(0)
            assert 0.01 < share[-16:].mean() < 0.4, module  # channels that carry nothing


def test_the_gain_of_the_clean_start_is_in_the_exported_weights_and_nowhere_else(clean):
    model, speech, made, _ = clean
    plain = CodecModel(model.config)
    plain.load_arrays(model.export_arrays())
    assert {module.weight.gain for module in (*plain.encoder, *plain.decoder) if hasattr(module, "weight")} == {1.0}
    with torch.no_grad():
        torch.testing.assert_close(plain.decode_latent(plain.encode_latent(speech)), made, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantizer", ["factorized", "ema"])
def test_a_run_of_a_strided_shape_learns_resumes_and_exports(monkeypatch, quantizer):
    monkeypatch.setattr(shapes, "PRESETS", {"small": replace(STRIDED, strides=(5, 8, 8), codebook_size=16)})
    changes = {"adversarial_weight": 0.0, "unquantized_steps": 3, "quantizer": quantizer}
    trainer, resumed = stepped(5, **changes), stepped(0, **changes)
    resumed.load_state(trainer.state())
    before = {name: value.clone() for name, value in trainer.average.items()}
    for run in (trainer, resumed):
        stepped(2, run)
    assert trainer.skipped_steps == 0
    for name, value in trainer.average.items():
        assert value.isfinite().all(), name
        torch.testing.assert_close(resumed.average[name], value, atol=1e-6, rtol=1e-5)
    for layer in ("encoder.0.weight.direction", "decoder.0.weight.direction", "decoder.11.weight.direction"):
        assert not torch.equal(trainer.average[layer], before[layer])
    averaged = trainer.averaged_model()
    plain = CodecModel(trainer.config, quantizer=quantizer)
    plain.load_arrays(averaged.export_arrays())
    wave = low_tone(20 * trainer.config.hop_samples)
    with torch.no_grad():
        expected = averaged.decode_latent(averaged.encode_latent(wave))
        torch.testing.assert_close(plain.decode_latent(plain.encode_latent(wave)), expected, atol=1e-5, rtol=0)


def test_the_cosine_transform_is_orthonormal():
    basis = cosine_transform(16, 16)
    torch.testing.assert_close(basis @ basis.t(), torch.eye(16), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_transform(4, 16), basis[:4])


def test_the_rate_channel_lets_through_what_rate_distortion_theory_says():
    """A Gaussian source in white noise, then its Wiener filter (Cover and Thomas 2006, section 10.3)."""
    torch.manual_seed(0)
    scale = torch.linspace(1, 3, 16)
    latent = torch.randn(3, 4000, 16) * scale
    latent = latent / latent.square().mean(-1, keepdim=True).sqrt()
    channel = RateChannel(16, decay=0.0)
    bits = torch.tensor([8.0, 24.0, 64.0])
    passed = channel(latent, bits)
    spread = torch.linalg.eigvalsh(channel.moments)
    errors = (passed - latent).square().mean((1, 2))
    for clip, rate in enumerate(bits.tolist()):
        noise = next(n for n in torch.logspace(3, -4, 7001) if 0.5 * torch.log2(1 + spread / n).sum() >= rate)
        expected = (spread * noise / (spread + noise)).mean()
        torch.testing.assert_close(errors[clip], expected, atol=0.0, rtol=0.05)


def test_the_rate_channel_follows_the_level_of_a_frame():
    torch.manual_seed(0)
    latent = torch.randn(1, 4000, 16)
    latent[:, ::2] *= 100
    error = (RateChannel(16, decay=0.0)(latent, torch.tensor([30.0])) - latent).square().mean(-1)[0]
    torch.testing.assert_close(error[::2].mean(), error[1::2].mean() * 1e4, atol=0.0, rtol=0.1)


def test_noise_of_a_rate_has_the_gradient_of_finite_differences():
    spread = torch.linspace(0.05, 3, 12, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(noise_for_rate(spread, 20.0), spread)
    for i in (0, 5, 11):
        nudge = torch.zeros(12, dtype=torch.float64)
        nudge[i] = 1e-5
        with torch.no_grad():
            slope = (noise_for_rate(spread + nudge, 20.0) - noise_for_rate(spread - nudge, 20.0)) / 2e-5
        torch.testing.assert_close(gradient[i], slope, atol=0.0, rtol=1e-5)


def test_a_fixed_encoder_stays_at_its_average_while_the_decoder_learns():
    trainer = stepped(3, encoder_steps=2, unquantized_steps=4)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for name, value in trainer.model.encoder.state_dict().items():
        torch.testing.assert_close(value, trainer.average[f"encoder.{name}"])
    stepped(3, trainer)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("decoder."))


def test_codebooks_seeded_from_a_fixed_encoder_do_not_move():
    trainer = stepped(5, encoder_steps=2, unquantized_steps=4, quantizer="ema")
    seeded = [book.vectors.clone() for book in trainer.model.quantizer.books]
    stepped(3, trainer)
    assert all(torch.equal(book.vectors, old) for book, old in zip(trainer.model.quantizer.books, seeded, strict=True))


def test_a_run_may_take_an_encoder_and_seed_codebooks_of_another_kind():
    torch.manual_seed(1)
    start = CodecModel(CONFIG, trainable=True)
    trainer = stepped(0, quantizer="ema", unquantized_steps=2)
    trainer.load_model(start)
    for name, value in start.encoder.state_dict().items():
        assert torch.equal(trainer.model.encoder.state_dict()[name], value)
    with pytest.raises(ConfigError, match="unquantized_steps"):
        stepped(0, quantizer="ema", unquantized_steps=0).load_model(start)
