"""One round of the adversarial game, with one pass over each waveform for both sides.

The usual order (update the discriminators, pass the waveforms again, update the generator) costs four forward passes.
Here both gradients come from the same two: the generator's goes to the waveform only, the discriminators' to the
weights only, and both sides are then updated at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from streamcodec.training.discriminators import Discriminators
from streamcodec.training.losses import discriminator_loss, feature_matching_loss, generator_loss


@dataclass(frozen=True)
class Round:
    """What one round found.

    Parameters
    ----------
    generator, feature_matching, discriminator : Tensor
        The losses, unweighted scalars without a graph.
    wave_gradient : Tensor
        [B, T], gradient of adversarial_weight * generator + feature_weight * feature_matching by the made waveform.
    """

    generator: Tensor
    feature_matching: Tensor
    discriminator: Tensor
    wave_gradient: Tensor


def play_round(
    discriminators: Discriminators,
    made: Tensor,
    target: Tensor,
    *,
    adversarial_weight: float = 1.0,
    feature_weight: float = 2.0,
    train_discriminators: bool = True,
) -> Round:
    """Judge waveforms, and add the discriminators' gradients to their parameters' `grad`.

    For the generator add `(made * round.wave_gradient).sum()` to its other losses and call backward.  With several
    processes, average the parameters' `grad` over them before the optimiser's step.

    Parameters
    ----------
    discriminators : Discriminators
        Judges.
    made, target : Tensor
        [B, T].
    adversarial_weight, feature_weight : float
        Weights within `wave_gradient`.
    train_discriminators : bool
        Whether this round trains the judges too.
    """
    wave = made.detach().requires_grad_()
    with parametrize.cached():
        with torch.set_grad_enabled(train_discriminators):
            of_target = discriminators(target.detach())
        with torch.enable_grad():
            of_made = discriminators(wave)
        generator, matching = generator_loss(of_made), feature_matching_loss(of_made, of_target)
        weighted = adversarial_weight * generator + feature_weight * matching
        (gradient,) = torch.autograd.grad(weighted, wave, retain_graph=train_discriminators)
        judged = discriminator_loss(of_made, of_target)
        if train_discriminators:
            judged.backward(inputs=list(discriminators.parameters()))
    return Round(generator.detach(), matching.detach(), judged.detach(), gradient)
