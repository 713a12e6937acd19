"""The older codebook recipe, beside the talk's: k-means start, moving averages, random restart.

As in SoundStream (Zeghidour et al. 2021, section III.C) and Jukebox (Dhariwal et al. 2020): codes live in the latent
space itself, the nearest one is taken by Euclidean distance.  With code_dim under latent_dim + 1 they live in the
principal axes of what the codebook sees: codes of few dimensions need less audio to be placed well, and less search.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from streamcodec.config import CodecConfig
from streamcodec.errors import ConfigError
from streamcodec.nn.quantizer import BookOutput

_ROWS = 1 << 14  # searched at a time


class EmaCodebook(nn.Module):
    """One Euclidean codebook that follows the mean of what it codes.

    It exports into the factorised arrays, so every engine runs it: |x - e|^2 is smallest where x.e - |e|^2 / 2 is
    largest, a dot product of one more dimension.  So codes have code_dim - 1 dimensions of their own.
    """

    learns_by_gradient = False
    vectors: Tensor
    basis: Tensor
    uses: Tensor

    def __init__(self, config: CodecConfig, decay: float = 0.99, kmeans_rounds: int = 10) -> None:
        super().__init__()
        if not 2 <= config.code_dim <= config.latent_dim + 1:
            raise ConfigError(
                f"code_dim is {config.code_dim}; Euclidean codebooks need 2 to latent_dim + 1 = {config.latent_dim + 1}"
            )
        self.decay = decay
        self.kmeans_rounds = kmeans_rounds
        self.register_buffer("vectors", torch.randn(config.codebook_size, config.code_dim - 1))
        self.register_buffer("basis", torch.eye(config.latent_dim, config.code_dim - 1))
        self.register_buffer("uses", torch.ones(config.codebook_size))

    def codes(self) -> Tensor:
        """The code vectors, [N, code_dim - 1]."""
        return self.vectors

    def encode(self, residual: Tensor) -> Tensor:
        """Codes of [..., latent], the lowest index at a tie."""
        return self._nearest(residual @ self.basis)

    def _nearest(self, rows: Tensor) -> Tensor:
        half = 0.5 * self.vectors.square().sum(-1)
        return torch.cat([(part @ self.vectors.t() - half).argmax(-1) for part in rows.split(_ROWS)])

    def decode(self, index: Tensor) -> Tensor:
        """Code vectors [..., latent]."""
        return F.embedding(index, self.vectors) @ self.basis.t()

    def forward(self, residual: Tensor) -> BookOutput:
        """Quantise [B, F, latent]; in training mode, follow what was coded."""
        with torch.no_grad():
            index = self.encode(residual)
            code = self.decode(index)
            if self.training:
                self._follow(residual.flatten(0, -2).float() @ self.basis, index.flatten())
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
        finite = torch.isfinite(total).all()  # never read on the host, which would wait for the device
        mass = self.uses * self.decay
        uses = mass + (1 - self.decay) * count
        average = (self.vectors * mass[:, None] + (1 - self.decay) * total) / uses.clamp_min(1e-5)[:, None]
        self.uses.copy_(torch.where(finite, uses, self.uses))
        self.vectors.copy_(torch.where(finite & (uses[:, None] > 1e-5), average, self.vectors))

    @torch.no_grad()
    def seed(self, residual: Tensor, only: Tensor) -> None:
        """Replace codes where `only` [N] is true: all of them by k-means, some by random rows of `residual`.

        When all are replaced, the axes are placed anew too.
        """
        dims = self.vectors.shape[1]
        if bool(only.all()) and dims < residual.shape[1]:
            self.basis.copy_(torch.linalg.eigh(residual.t() @ residual)[1].flip(1)[:, :dims])
        rows = residual @ self.basis
        pick = torch.randint(len(rows), only.shape, device=rows.device)
        self.vectors.copy_(torch.where(only[:, None], rows[pick], self.vectors))
        self.uses.masked_fill_(only, 1.0)
        if not bool(only.all()):
            return
        for _ in range(self.kmeans_rounds):
            index = self._nearest(rows)
            count = torch.zeros_like(self.uses).index_add_(0, index, torch.ones_like(rows[:, 0]))
            total = torch.zeros_like(self.vectors).index_add_(0, index, rows)
            means = total / count.clamp_min(1)[:, None]
            self.vectors.copy_(torch.where(count[:, None] > 0, means, self.vectors))

    def export(self) -> dict[str, Tensor]:
        """Arrays as `streamcodec.architecture` names them."""
        latent, dims = self.basis.shape
        last = torch.zeros(dims + 1, device=self.basis.device)
        last[-1] = 1
        in_weight = F.pad(self.basis, (0, 1))
        return {
            "in_weight": in_weight,
            "in_bias": last,
            "codebook": torch.cat([self.vectors, -0.5 * self.vectors.square().sum(-1, keepdim=True)], 1),
            "out_weight": in_weight.t(),
            "out_bias": torch.zeros(latent, device=self.basis.device),
        }

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Take arrays that `export` made."""
        self.vectors.copy_(arrays["codebook"][:, :-1])
        self.basis.copy_(arrays["in_weight"][:, :-1])


def is_euclidean(arrays: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether the codebooks of a checkpoint's arrays are of this kind."""
    bias, weight = arrays["quantizer.0.in_bias"], arrays["quantizer.0.in_weight"]
    return bool(bias[-1] == 1 and not bias[:-1].any() and not weight[:, -1].any())
