"""One training step against its parts taken by hand: weights of the losses, gradient, clipping, moving average."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_training import ALONE, CONFIG, SETTINGS, Crops, stepped  # noqa: E402

from streamcodec.training import draws, losses  # noqa: E402
from streamcodec.training.optimizer import Adam  # noqa: E402
from streamcodec.training.reconstruction import loss_weights  # noqa: E402
from streamcodec.training.settings import TrainSettings  # noqa: E402
from streamcodec.training.trainer import Trainer  # noqa: E402

pytestmark = pytest.mark.usefixtures("small_preset")


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


def test_losses_weigh_as_in_the_talk() -> None:
    talk = {"mel": 15, "feature": 2, "adversarial": 1, "codebook": 1, "commitment": 0.25}
    assert talk.items() <= loss_weights(TrainSettings()).items()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_total_and_gradient_equal_the_weighted_losses_by_hand(share: float) -> None:
    """Also where codebooks are dropped and frames are lost on the way to the decoder."""
    settings = SETTINGS.changed({"unquantized_steps": 0, "quantizer_dropout": share, "lost_clips": share, "seed": 4})
    trainer = Trainer(settings, ALONE)
    used, heard = draws.codebooks_used(settings, CONFIG.n_codebooks, 0), draws.frames_heard(settings, 0)
    assert (bool((used < CONFIG.n_codebooks).any()), bool((heard == 0).any())) == (share > 0, share > 0)
    model, judges = copy.deepcopy(trainer.model), copy.deepcopy(trainer.opponent.discriminators)
    wave = torch.from_numpy(Crops(trainer.settings).batch(0))
    terms = trainer.train_step(wave)
    quantized = model.quantizer(model.encode_latent(wave), used)
    made = model.decode_latent(quantized.latent * heard[..., None])
    judged, real = judges(made), judges(wave)
    expected = {
        "mel": 15 * losses.MultiScaleMelLoss(CONFIG.sample_rate_hz)(made, wave),
        "spectral": losses.MultiScaleSpectralLoss()(made, wave),
        "codebook": quantized.codebook_loss,
        "commitment": 0.25 * quantized.commitment_loss,
        "adversarial": losses.generator_loss(judged),
        "feature": 2 * losses.feature_matching_loss(judged, real),
    }
    total = sum(expected.values())
    assert float(terms["total"]) == pytest.approx(total.item(), rel=1e-4)
    total.backward()
    wanted = norm([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert float(terms["gradient"]) == pytest.approx(wanted, rel=1e-3)
    for (name, weight), twin in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(twin.grad, weight.grad, atol=1e-4 * wanted, rtol=1e-2, msg=name)


def test_gradient_is_clipped_to_its_norm_and_told_before() -> None:
    layer = torch.nn.Linear(3, 2)
    adam = Adam(layer, 1.0)
    for gradient, after in ((4.0, 1.0), (0.1, 0.1 * 8**0.5)):
        for weight in layer.parameters():
            weight.grad = torch.full_like(weight, gradient)
        assert float(adam.step(1.0)) == pytest.approx(gradient * 8**0.5)
        assert norm([weight.grad for weight in layer.parameters()]) == pytest.approx(after, rel=1e-5)


def test_snakes_alphas_move_at_their_share_of_the_rate() -> None:
    trainer = Trainer(SETTINGS.changed({"snake_rate_share": 10.0, "warmup_steps": 0, "unquantized_steps": 0}), ALONE)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    stepped(1, trainer)
    for name, weight in trainer.model.named_parameters():
        moved = float((weight.detach() - before[name]).abs().max())  # a first step of Adam is the rate long
        rate = SETTINGS.learning_rate * (10 if name.endswith("log_alpha") else 1)
        assert moved == pytest.approx(rate, rel=0.05), name


@pytest.mark.parametrize("decay", [0.05, 0.999])
def test_moving_average_follows_its_formula(decay: float) -> None:
    trainer = Trainer(SETTINGS.changed({"ema_decay": decay, "reseed_steps": 0, "unquantized_steps": 0}), ALONE)
    expected = {name: value.double().clone() for name, value in trainer.model.state_dict().items()}
    for step in range(4):
        stepped(1, trainer)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in trainer.model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * value.double()
    for name, value in trainer.averaged_model().state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("recorded", [False, True])
def test_state_of_a_run_on_another_kind_of_device_goes_on(recorded: bool) -> None:
    """Torch keeps with an optimiser's state whether it could be recorded, and refuses to record one that could not."""
    one, other = stepped(2), stepped(2)
    state = copy.deepcopy(one.state())
    for name in ("optimizer", "discriminator_optimizer"):
        for group in state[name]["param_groups"]:
            group["capturable"] = recorded
            group["lr"] = torch.tensor(group["lr"])
    one.load_state(state)
    for trainer in (one, other):
        stepped(1, trainer)
    assert all(torch.equal(value, other.average[name]) for name, value in one.average.items())
    assert not any(group["capturable"] for group in one.state()["optimizer"]["param_groups"])
