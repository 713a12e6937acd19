"""Residual vector quantisation, torch.

`ResidualVQ` is the talk's: factorised codes (search in few dimensions) of unit length (van den Oord et al. 2017,
Zeghidour et al. 2021, Kumar et al. 2023).  What is passed on is of unit length too, so that nothing can grow.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamcodec.config import CodecConfig


class Quantized(NamedTuple):
    """What a quantiser returns.

    Parameters
    ----------
    latent : Tensor
        [B, F, latent], with the straight-through gradient.
    codes : Tensor
        int64 [B, F, K].
    codebook_loss, commitment_loss : Tensor
        Scalars, unweighted.
    """

    latent: Tensor
    codes: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


def unit(x: Tensor) -> Tensor:
    """Scale rows to unit length; a row shorter than 1e-3 keeps its direction and a bounded gradient."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


class FactorizedCodebook(nn.Module):
    """One codebook: project to D dimensions, find the code of highest cosine, project back."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        latent, dim = config.latent_dim, config.code_dim
        self.in_proj = nn.Linear(latent, dim)
        self.out_proj = nn.Linear(dim, latent)
        self.codebook = nn.Parameter(F.normalize(torch.randn(config.codebook_size, dim), dim=-1))
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def search(self, query: Tensor) -> Tensor:
        """Index of the code of highest cosine, the lowest at a tie.  query: [..., D]."""
        return (query @ F.normalize(self.codebook, dim=-1).t()).argmax(-1)

    def embed(self, codes: Tensor) -> Tensor:
        """Unit-length code vectors, [..., D]."""
        return F.embedding(codes, F.normalize(self.codebook, dim=-1))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantise [B, F, latent]: contribution, codes, codebook loss and commitment loss per clip [B]."""
        query = unit(self.in_proj(residual))
        with torch.no_grad():
            codes = self.search(query)
        code = self.embed(codes)
        codebook_loss = (query.detach() - code).square().sum(-1).mean(-1)
        commitment_loss = (query - code.detach()).square().sum(-1).mean(-1)
        passed = query + (code - query).detach()
        return self.out_proj(passed), codes, codebook_loss, commitment_loss

    @torch.no_grad()
    def seed(self, residual: Tensor, only: Tensor | None = None) -> None:
        """Replace codes (all, or those where `only` [N] is true) by random queries of `residual` [rows, latent]."""
        query = unit(self.in_proj(residual))
        pick = torch.randint(query.shape[0], (self.codebook.shape[0],), device=query.device)
        fresh = query[pick] + 0.01 * torch.randn_like(self.codebook)
        replace = torch.ones_like(pick, dtype=torch.bool) if only is None else only
        self.codebook.copy_(torch.where(replace[:, None], F.normalize(fresh, dim=-1), self.codebook))


class ResidualVQ(nn.Module):
    """K factorised codebooks, each coding what the ones before it left."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.books = nn.ModuleList(FactorizedCodebook(config) for _ in range(config.n_codebooks))

    def forward(self, latent: Tensor, used: Tensor | None = None) -> Quantized:
        """Quantise [B, F, latent] with the first `used[b]` codebooks of clip b (all when None).

        Quantiser dropout (Zeghidour et al. 2021, section III.C) is drawing `used` at random; losses count the codebooks in use.
        """
        residual, total = latent, torch.zeros_like(latent)
        codes, codebook_loss, commitment_loss = [], latent.new_zeros(()), latent.new_zeros(())
        for k, book in enumerate(self.books):
            part, index, book_loss, commit_loss = book(residual)
            if used is not None:
                on = (used > k).to(latent.dtype)
                part = part * on[:, None, None]
                book_loss, commit_loss = book_loss * on, commit_loss * on
            total = total + part
            residual = residual - part
            codes.append(index)
            codebook_loss = codebook_loss + book_loss.mean()
            commitment_loss = commitment_loss + commit_loss.mean()
        return Quantized(total, torch.stack(codes, -1), codebook_loss, commitment_loss)

    @torch.no_grad()
    def encode(self, latent: Tensor, n_codebooks: int) -> Tensor:
        """Codes of the first `n_codebooks`: [B, F, latent] to int64 [B, F, K]."""
        codes = []
        for book in list(self.books)[:n_codebooks]:
            index = book.search(book.in_proj(latent))
            latent = latent - book.out_proj(book.embed(index))
            codes.append(index)
        return torch.stack(codes, -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Latent of codes [B, F, K]; zero when K is 0."""
        latent = self.books[0].out_proj.weight.new_zeros(*codes.shape[:2], self.books[0].out_proj.out_features)
        for k, book in enumerate(list(self.books)[: codes.shape[-1]]):
            latent = latent + book.out_proj(book.embed(codes[..., k]))
        return latent
