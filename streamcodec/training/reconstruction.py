"""The part of the loss that compares waveforms, as settings weigh it."""

from __future__ import annotations

from torch import Tensor, nn

from streamcodec.training import losses
from streamcodec.training.settings import TrainSettings


def loss_weights(settings: TrainSettings) -> dict[str, float]:
    """Weight of each term of the generator's loss, by its name."""
    return {
        "mel": settings.mel_weight,
        "spectral": settings.spectral_weight,
        "waveform": settings.waveform_weight,
        "compressed": settings.compressed_weight,
        "codebook": settings.codebook_weight,
        "commitment": settings.commitment_weight,
        "adversarial": settings.adversarial_weight,
        "feature": settings.feature_weight,
    }


class Reconstruction(nn.Module):
    """Terms that compare what the model made with its target; those of weight 0 are left out."""

    def __init__(self, settings: TrainSettings, sample_rate_hz: int) -> None:
        super().__init__()
        self.weights = loss_weights(settings)
        scales = ((1024,), (80,)) if settings.single_scale_mel else ()
        self.mel = losses.MultiScaleMelLoss(sample_rate_hz, *scales, floor=settings.mel_floor)
        self.spectral = losses.MultiScaleSpectralLoss()
        self.compressed = losses.CompressedSpectralLoss(sample_rate_hz, phase_share=settings.phase_share)

    def forward(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Unweighted terms of `made` against `target`, both [B, T]."""
        terms = {}
        if self.weights["mel"]:
            terms["mel"] = self.mel(made, target)
        if self.weights["spectral"]:
            terms["spectral"] = self.spectral(made, target)
        if self.weights["waveform"]:
            terms["waveform"] = losses.waveform_loss(made, target)
        if self.weights["compressed"]:
            terms["compressed"] = self.compressed(made, target)
        return terms
