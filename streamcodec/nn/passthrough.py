"""Initial weights that pass the waveform through, so that training starts from a transform codec and not from noise.

As residual autoencoding does with space-to-channel shortcuts (DC-AE, Chen et al. 2024), but in the weights alone: every
strided convolution first hands each sample of a block to a channel of its own, the last one takes a cosine transform of
the frame's samples, the latent keeps the lowest coefficients, and the decoder undoes it in reverse.  All other weights
keep their random start and are scaled down where they would disturb the path.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from streamcodec.nn.layers import Conv, ConvTranspose, Residual, Snake, Stack
from streamcodec.nn.quantizer import FactorizedCodebook, ResidualVQ

_NOISE = 0.02  # of random weights on the path
_LOG_ALPHA = -2.5  # a Snake that hardly bends
_QUERY_SCALE = 1.2  # coefficients of speech at -23 dBFS, times this, stay below the constant 1 of the query


def cosine_transform(rows: int, samples: int) -> Tensor:
    """First `rows` of the orthonormal DCT-II of `samples`, [rows, samples]."""
    n = torch.arange(samples, dtype=torch.float64) + 0.5
    k = torch.arange(rows, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / samples * k * n) * math.sqrt(2 / samples)
    basis[0] *= math.sqrt(0.5)
    return basis.float()


@torch.no_grad()
def pass_through(encoder: Stack, quantizer: ResidualVQ, decoder: Stack) -> None:
    """Set the initial weights of a causal codec's three parts."""
    _quieten(encoder)
    _quieten(decoder)
    convs = [module for module in encoder if isinstance(module, Conv)]
    ups = [module for module in decoder if isinstance(module, ConvTranspose)]
    ends = [module for module in decoder if isinstance(module, Conv)]
    used, first, downs, last = 1, convs[0], convs[1:-1], convs[-1]
    _put(first, first.layer.kernel - 1, torch.ones(1, 1))
    for down, up in zip(downs, reversed(ups), strict=True):
        stride, room = down.layer.stride, down.layer.out_channels
        wanted = used * stride
        mix = torch.eye(wanted) if wanted <= room else cosine_transform(room, wanted)
        for j in range(stride):
            part = mix[:, j * used : (j + 1) * used]  # channels made of sample j's channels
            _put(down, stride + j, part.t())
            up.weight.direction[: part.shape[0], j, :used] = part
        used = min(wanted, room)
    kept = min(used, last.layer.out_channels)
    _put(last, last.layer.kernel - 1, torch.eye(used, kept))
    _put(ends[0], ends[0].layer.kernel - 1, torch.eye(kept, used))
    _put(ends[-1], ends[-1].layer.kernel - 1, torch.ones(1, 1))
    changed: list[Conv | ConvTranspose] = [*convs, *ups, *ends]
    for conv in changed:
        conv.weight.load(conv.weight.direction)
    _spread(quantizer, kept)


def _quieten(stack: Stack) -> None:
    for module in stack:
        if isinstance(module, Residual):
            module.mix.weight.scale(0.25)
        elif isinstance(module, Snake):
            module.log_alpha.fill_(_LOG_ALPHA)
        elif isinstance(module, Conv | ConvTranspose):
            module.weight.load(module.weight() * _NOISE)


def _put(conv: Conv, tap: int, block: Tensor) -> None:
    """Write a corner [inputs, outputs] of one tap."""
    conv.weight.direction[tap, : block.shape[0], : block.shape[1]] = block


def _spread(quantizer: ResidualVQ, kept: int) -> None:
    """Give each codebook the next few coefficients, and a constant that makes their level visible to the search.

    A query of constant 1 and small v points to v, nearly as far as v is long; unit length alone would hide the level.
    """
    at = 0
    for book in quantizer.books:
        if not isinstance(book, FactorizedCodebook):
            continue
        width = book.in_proj.out_features - 1
        if width < 1:
            continue
        index = torch.arange(at, at + width) % kept
        nn.init.normal_(book.in_proj.weight, std=_NOISE)
        nn.init.normal_(book.out_proj.weight, std=_NOISE / _QUERY_SCALE)
        book.in_proj.weight[torch.arange(width), index] = _QUERY_SCALE
        book.out_proj.weight[index, torch.arange(width)] = 1 / _QUERY_SCALE
        book.in_proj.bias[-1] = 1
        at += width
