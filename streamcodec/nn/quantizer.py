"""Residual vector quantisation, torch.

`ResidualVQ` is the talk's: factorised codes (search in few dimensions) of unit length (van den Oord et al. 2017,
Zeghidour et al. 2021, Kumar et al. 2023).  What is passed on is of unit length too, so that nothing can grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamcodec.config import CodecConfig

if TYPE_CHECKING:
    from streamcodec.nn.ema_quantizer import EmaCodebook


_SCORES = 1 << 24
"""Chains and codes that a beam search compares at once."""


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


class BookOutput(NamedTuple):
    """What one codebook returns: contribution [B, F, latent], codes [B, F] and losses per clip [B]."""

    part: Tensor
    codes: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


def unit(x: Tensor) -> Tensor:
    """Scale rows to unit length; a row shorter than 1e-3 keeps its direction and a bounded gradient."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


class FactorizedCodebook(nn.Module):
    """One codebook: project to D dimensions, find the code of highest cosine, project back.

    With `trainable`, codes are brought to unit length whenever they are used; else they are taken as they are.
    """

    learns_by_gradient = True

    def __init__(self, config: CodecConfig, trainable: bool) -> None:
        super().__init__()
        latent, dim = config.latent_dim, config.code_dim
        self.trainable = trainable
        self.in_proj = nn.Linear(latent, dim)
        self.out_proj = nn.Linear(dim, latent)
        self.codebook = nn.Parameter(F.normalize(torch.randn(config.codebook_size, dim), dim=-1))
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def codes(self) -> Tensor:
        """The code vectors, [N, D]."""
        return F.normalize(self.codebook, dim=-1) if self.trainable else self.codebook

    def search(self, query: Tensor) -> Tensor:
        """Index of the code of highest cosine, the lowest at a tie.  query: [..., D]."""
        return (query @ self.codes().t()).argmax(-1)

    def encode(self, residual: Tensor) -> Tensor:
        """Codes of [B, F, latent]."""
        return self.search(self.in_proj(residual))

    def decode(self, index: Tensor) -> Tensor:
        """Contribution [B, F, latent] of codes."""
        part: Tensor = self.out_proj(F.embedding(index, self.codes()))
        return part

    def forward(self, residual: Tensor) -> BookOutput:
        """Quantise [B, F, latent]."""
        query = unit(self.in_proj(residual))
        with torch.no_grad():
            index = self.search(query)
        code = F.embedding(index, self.codes())
        codebook_loss = (query.detach() - code).square().sum(-1).mean(-1)
        commitment_loss = (query - code.detach()).square().sum(-1).mean(-1)
        passed = query + (code - query).detach()
        return BookOutput(self.out_proj(passed), index, codebook_loss, commitment_loss)

    @torch.no_grad()
    def seed(self, residual: Tensor, only: Tensor) -> None:
        """Replace the codes where `only` [N] is true by random queries of `residual` [rows, latent]."""
        query = unit(self.in_proj(residual))
        pick = torch.randint(query.shape[0], only.shape, device=query.device)
        fresh = F.normalize(query[pick] + 0.01 * torch.randn_like(self.codebook), dim=-1)
        self.codebook.copy_(torch.where(only[:, None], fresh, self.codebook))

    def export(self) -> dict[str, Tensor]:
        """Arrays as `streamcodec.architecture` names them."""
        return {
            "in_weight": self.in_proj.weight.t(),
            "in_bias": self.in_proj.bias,
            "codebook": F.normalize(self.codebook.double(), dim=-1) if self.trainable else self.codebook,
            "out_weight": self.out_proj.weight.t(),
            "out_bias": self.out_proj.bias,
        }

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Take arrays as `streamcodec.architecture` names them."""
        self.in_proj.weight.copy_(arrays["in_weight"].t())
        self.in_proj.bias.copy_(arrays["in_bias"])
        self.codebook.copy_(arrays["codebook"])
        self.out_proj.weight.copy_(arrays["out_weight"].t())
        self.out_proj.bias.copy_(arrays["out_bias"])


class ResidualVQ(nn.Module):
    """K codebooks, each coding what the ones before it left.

    Parameters
    ----------
    books : sequence of modules
        FactorizedCodebook or EmaCodebook, coarse to fine.
    """

    def __init__(self, books: Sequence[FactorizedCodebook | EmaCodebook]) -> None:
        super().__init__()
        self.books = nn.ModuleList(books)

    def forward(self, latent: Tensor, used: Tensor | None = None) -> Quantized:
        """Quantise [B, F, latent] with the first `used[b]` codebooks of clip b (all when None).

        Quantiser dropout (Zeghidour et al. 2021, section III.C) is drawing `used` at random; losses count the
        codebooks in use.  The arithmetic is float32 also under autocast: sixteen bits would choose other codes.
        """
        with torch.autocast(latent.device.type, enabled=False):
            return self._forward(latent.float(), used)

    def _forward(self, latent: Tensor, used: Tensor | None) -> Quantized:
        residual, total = latent, torch.zeros_like(latent)
        codes, codebook_loss, commitment_loss = [], latent.new_zeros(()), latent.new_zeros(())
        for k, book in enumerate(self.books):
            part, index, book_loss, commit_loss = book(residual)
            if not book.learns_by_gradient:
                part = part.detach()  # so that the commitment of every book, not of the first alone, moves the latent
            residual = residual - part
            if used is not None:
                on = (used > k).to(latent.dtype)
                part = part * on[:, None, None]
                book_loss, commit_loss = book_loss * on, commit_loss * on
            total = total + part
            codes.append(index)
            codebook_loss = codebook_loss + book_loss.mean()
            commitment_loss = commitment_loss + commit_loss.mean()
        if not all(book.learns_by_gradient for book in self.books):
            total = total + (latent - latent.detach())
        return Quantized(total, torch.stack(codes, -1), codebook_loss, commitment_loss)

    @torch.no_grad()
    def seed(self, residual: Tensor, only: Tensor) -> None:
        """Replace the codes where `only` [K, N] is true by what each codebook sees of latents [rows, latent]."""
        for book, mask in zip(self.books, only, strict=True):
            book.seed(residual, mask)  # type: ignore[operator]
            residual = residual - book.decode(book.encode(residual))  # type: ignore[operator]

    @torch.no_grad()
    def encode(self, latent: Tensor, n_codebooks: int, beam: int = 1) -> Tensor:
        """Codes of the first `n_codebooks`: [B, F, latent] to int64 [B, F, K].

        With `beam` 1 the nearest code of each codebook in turn; else so many chains of codes are kept
        (`streamcodec_kernels.beam_search`).
        """
        if beam > 1:
            rows = max(1, _SCORES // (beam * len(self.books[0].codes())))  # type: ignore[operator]
            found = [self._beam_search(part, n_codebooks, beam) for part in latent.flatten(0, 1).split(rows)]
            return torch.cat(found).view(*latent.shape[:2], n_codebooks)
        codes = []
        for book in list(self.books)[:n_codebooks]:
            index = book.encode(latent)  # type: ignore[operator]
            latent = latent - book.decode(index)  # type: ignore[operator]
            codes.append(index)
        return torch.stack(codes, -1)

    def _beam_search(self, latent: Tensor, n_codebooks: int, beam: int) -> Tensor:
        """Codes [rows, K] of latents [rows, L]."""
        residual, total = latent[:, None], latent.new_zeros(len(latent), 1)
        chains = torch.zeros(len(latent), 1, 0, dtype=torch.int64, device=latent.device)
        for k, book in enumerate(list(self.books)[:n_codebooks]):
            size = len(book.codes())  # type: ignore[operator]
            parts = book.decode(torch.arange(size, device=latent.device))  # type: ignore[operator]
            scores = residual @ parts.t() - 0.5 * parts.square().sum(-1) + total[..., None]
            left = scores.flatten(1)
            best = []
            for _ in range(1 if k == n_codebooks - 1 else min(beam, left.shape[1])):
                best.append(left.argmax(1, keepdim=True))  # the lowest index at a tie, which topk does not promise
                left = left.scatter(1, best[-1], float("-inf"))
            kept = torch.cat(best, 1)
            chain, code = kept // size, kept % size
            total = scores.flatten(1).gather(1, kept)
            residual = residual.gather(1, chain[..., None].expand(-1, -1, latent.shape[1])) - parts[code]
            before = chains.gather(1, chain[..., None].expand(-1, -1, k))
            chains = torch.cat([before, code[..., None]], -1)
        return chains[:, 0]

    @torch.no_grad()
    def decode(self, codes: Tensor, latent_dim: int) -> Tensor:
        """Latent [B, F, latent_dim] of codes [B, F, K]; zero when K is 0."""
        latent = torch.zeros(*codes.shape[:2], latent_dim, device=codes.device)
        for k, book in enumerate(list(self.books)[: codes.shape[-1]]):
            latent = latent + book.decode(codes[..., k])  # type: ignore[operator]
        return latent
