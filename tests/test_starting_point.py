"""Where training starts, and the noisy channel that stands for the quantiser."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_training import CONFIG, stepped  # noqa: E402

from streamcodec.config import PRESETS  # noqa: E402
from streamcodec.errors import ConfigError  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402
from streamcodec.nn.passthrough import cosine_transform  # noqa: E402
from streamcodec.nn.quantizer import noisy_channel  # noqa: E402
from streamcodec.training import shapes as shapes_module  # noqa: E402


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setattr(shapes_module, "PRESETS", {"small": CONFIG})


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


def test_the_noisy_channel_has_the_stated_distortion_and_shrinks_as_an_ideal_quantiser():
    torch.manual_seed(0)
    latent = torch.randn(3, 500, 64)
    distortion = torch.tensor([0.0, 0.1, 0.5])
    passed = noisy_channel(latent, distortion)
    errors = (passed - latent).square().mean((1, 2)) / latent.square().mean((1, 2))
    torch.testing.assert_close(errors, distortion, atol=0.01, rtol=0.05)
    powers = passed.square().mean((1, 2)) / latent.square().mean((1, 2))
    torch.testing.assert_close(powers, 1 - distortion, atol=0.02, rtol=0.05)


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
