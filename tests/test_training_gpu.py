"""Training on a card: steps recorded as a CUDA graph do what the same steps do launch by launch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from small_training import SETTINGS, Crops  # noqa: E402

from streamcodec.training.captured import WARM_UP_CALLS  # noqa: E402
from streamcodec.training.trainer import Trainer  # noqa: E402
from streamcodec.training.world import World  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("small_preset"),
]
PHASE = WARM_UP_CALLS + 3


@pytest.mark.parametrize("quantizer", ["factorized", "ema"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_equal_launched_ones(quantizer: str, precision: str) -> None:
    """Without a quantiser, with it, and against discriminators: three recordings."""
    settings = SETTINGS.changed(
        {
            "steps": 3 * PHASE,
            "batch": 8,
            "crop_frames": 8,
            "quantizer": quantizer,
            "precision": precision,
            "unquantized_steps": PHASE,
            "adversarial_from_step": 2 * PHASE,
            "discriminators": ("period", "stft"),
        }
    )
    runs = []
    for capture in (False, True):
        trainer = Trainer(settings, World(0, 1, torch.device("cuda", 0)), capture)
        start = torch.cat([weight.detach().flatten().clone() for weight in trainer.model.parameters()])
        crops = Crops(settings)
        terms = [trainer.train_step(torch.from_numpy(crops.batch(step))) for step in range(3 * PHASE)]
        assert trainer.skipped_steps == 0
        end = torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])
        runs.append(([{name: float(term) for name, term in each.items()} for each in terms], end))
    (launched, end), (recorded, other_end) = runs
    assert "discriminator" in recorded[-1]
    for wanted, got in zip(launched, recorded, strict=True):
        del wanted["gradient"], got["gradient"]  # a code that falls otherwise moves its norm by a quarter
        assert got == pytest.approx(wanted, rel=0.1, abs=1e-2)  # atomic sums differ from run to run
    assert (other_end - end).abs().mean() < 0.2 * (end - start).abs().mean()


def test_a_recorded_step_skips_a_gradient_that_is_not_finite() -> None:
    settings = SETTINGS.changed({"unquantized_steps": 0, "reseed_steps": 0, "steps": 100})
    trainer = Trainer(settings, World(0, 1, torch.device("cuda", 0)))
    crops = Crops(settings)
    for step in range(PHASE):
        trainer.train_step(torch.from_numpy(crops.batch(step)))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    wave = torch.from_numpy(crops.batch(PHASE))
    wave[0, 100] = float("nan")
    trainer.train_step(wave)
    assert trainer.skipped_steps >= 1
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    trainer.train_step(torch.from_numpy(crops.batch(PHASE + 1)))
    assert not torch.equal(trainer.model.decoder[0].bias, before["decoder.0.bias"])
