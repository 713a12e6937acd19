"""The generator's opponent: discriminators with their optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streamcodec.training.adversarial import play_round
from streamcodec.training.discriminators import Discriminators
from streamcodec.training.optimizer import Adam
from streamcodec.training.settings import TrainSettings
from streamcodec.training.shapes import discriminator_config
from streamcodec.training.world import World


class Opponent:
    """Discriminators that learn against the model.

    Parameters
    ----------
    settings : TrainSettings
        Kinds, size, weights, learning rate.
    world : World
        Where, and with whom.

    Attributes
    ----------
    skipped : Tensor
        Steps left out because the gradient was not finite.
    """

    def __init__(self, settings: TrainSettings, world: World) -> None:
        self.settings = settings
        self.world = world
        self.discriminators = Discriminators(discriminator_config(settings)).to(world.device)
        self._adam = Adam(self.discriminators, 1.0)
        self.skipped = self._adam.skipped

    def set_rate(self, share: float) -> None:
        """Learning rate of the next steps, as a share of its peak."""
        self._adam.set_rate(self.settings.discriminator_learning_rate * share)

    def play(self, made: Tensor, wave: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Learn once from [B, T] each; return the loss terms and the gradient of the model's side by `made`."""
        settings = self.settings
        self._adam.zero_grad()
        with torch.autocast(made.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            found = play_round(
                self.discriminators,
                made,
                wave,
                adversarial_weight=settings.adversarial_weight,
                feature_weight=settings.feature_weight,
            )
        if self.world.size > 1:
            for weight in self.discriminators.parameters():
                if weight.grad is not None:
                    self.world.sum(weight.grad).div_(self.world.size)
        self._adam.step(settings.gradient_clip)
        terms = {
            "discriminator": found.discriminator,
            "adversarial": found.generator,
            "feature": found.feature_matching,
        }
        return terms, found.wave_gradient

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "discriminator_optimizer": self._adam.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`, or start fresh where it has no discriminators."""
        if "discriminators" in state:
            self.discriminators.load_state_dict(state["discriminators"])
            self._adam.load_state_dict(state["discriminator_optimizer"])
