"""Where training starts, and the noisy channel that stands for the quantiser."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_training import CONFIG, stepped  # noqa: E402

from streamcodec.config import PRESETS  # noqa: E402
from streamcodec.errors import ConfigError  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402
from streamcodec.nn.passthrough import cosine_transform  # noqa: E402
from streamcodec.nn.rate_channel import RateChannel, noise_for_rate  # noqa: E402

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
