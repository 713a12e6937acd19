"""The older codebook recipe, beside the talk's: k-means start, moving averages, random restart.

As in SoundStream (Zeghidour et al. 2021, section III.C) and Jukebox (Dhariwal et al. 2020): codes live in the latent
space itself, the nearest one is taken by Euclidean distance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from streamcodec.config import CodecConfig
from streamcodec.errors import ConfigError
from streamcodec.nn.quantizer import BookOutput


class EmaCodebook(nn.Module):
    """One Euclidean codebook that follows the mean of what it codes.

    It exports into the factorised arrays, so every engine runs it: |x - e|^2 is smallest where x.e - |e|^2 / 2 is
    largest, a dot product of one more dimension.  So its config has code_dim = latent_dim + 1.
    """

    learns_by_gradient = False
    vectors: Tensor
    uses: Tensor

    def __init__(self, config: CodecConfig, decay: float = 0.99, kmeans_rounds: int = 10) -> None:
        super().__init__()
        if config.code_dim != config.latent_dim + 1:
            raise ConfigError(
                f"code_dim is {config.code_dim}; a Euclidean codebook needs latent_dim + 1 = {config.latent_dim + 1}"
            )
        self.decay = decay
        self.kmeans_rounds = kmeans_rounds
        self.register_buffer("vectors", torch.randn(config.codebook_size, config.latent_dim))
        self.register_buffer("uses", torch.ones(config.codebook_size))

    def encode(self, residual: Tensor) -> Tensor:
        """Codes of [..., latent], the lowest index at a tie."""
        return (residual @ self.vectors.t() - 0.5 * self.vectors.square().sum(-1)).argmax(-1)

    def decode(self, index: Tensor) -> Tensor:
        """Code vectors [..., latent]."""
        return F.embedding(index, self.vectors)

    def forward(self, residual: Tensor) -> BookOutput:
        """Quantise [B, F, latent]; in training mode, follow what was coded."""
        with torch.no_grad():
            index = self.encode(residual)
            code = self.decode(index)
            if self.training:
                self._follow(residual.flatten(0, -2).float(), index.flatten())
        commitment_loss = (residual - code).square().mean((-1, -2))
        return BookOutput(
            residual + (code - residual).detach(), index, torch.zeros_like(commitment_loss), commitment_loss
        )

    def _follow(self, rows: Tensor, index: Tensor) -> None:
        count = torch.zeros_like(self.uses).index_add_(0, index, torch.ones_like(rows[:, 0]))
        total = torch.zeros_like(self.vectors).index_add_(0, index, rows)
        if dist.is_initialized():
            dist.all_reduce(count)
            dist.all_reduce(total)
        if not bool(torch.isfinite(total).all()):
            return
        mass = self.uses * self.decay
        self.uses.copy_(mass + (1 - self.decay) * count)
        average = (self.vectors * mass[:, None] + (1 - self.decay) * total) / self.uses.clamp_min(1e-5)[:, None]
        self.vectors.copy_(torch.where(self.uses[:, None] > 1e-5, average, self.vectors))

    @torch.no_grad()
    def seed(self, residual: Tensor, only: Tensor) -> None:
        """Replace codes where `only` [N] is true: all of them by k-means, some by random rows of `residual`."""
        pick = torch.randint(residual.shape[0], only.shape, device=residual.device)
        self.vectors.copy_(torch.where(only[:, None], residual[pick], self.vectors))
        self.uses.masked_fill_(only, 1.0)
        if not bool(only.all()):
            return
        for _ in range(self.kmeans_rounds):
            index = self.encode(residual)
            count = torch.zeros_like(self.uses).index_add_(0, index, torch.ones_like(residual[:, 0]))
            total = torch.zeros_like(self.vectors).index_add_(0, index, residual)
            means = total / count.clamp_min(1)[:, None]
            self.vectors.copy_(torch.where(count[:, None] > 0, means, self.vectors))

    def export(self) -> dict[str, Tensor]:
        """Arrays as `streamcodec.architecture` names them."""
        latent = self.vectors.shape[1]
        eye = torch.eye(latent, latent + 1, device=self.vectors.device)
        last = torch.zeros(latent + 1, device=self.vectors.device)
        last[-1] = 1
        return {
            "in_weight": eye,
            "in_bias": last,
            "codebook": torch.cat([self.vectors, -0.5 * self.vectors.square().sum(-1, keepdim=True)], 1),
            "out_weight": eye.t(),
            "out_bias": torch.zeros(latent, device=self.vectors.device),
        }

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Take arrays that `export` made."""
        self.vectors.copy_(arrays["codebook"][:, :-1])
