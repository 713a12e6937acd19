"""Initial weights that pass the waveform through, so that training starts from a transform codec and not from noise.

As residual autoencoding does with space-to-channel shortcuts (DC-AE, Chen et al. 2024), but in the weights alone: every
strided convolution first hands each sample of a block to a channel of its own, the last one takes a cosine transform of
the frame's samples, the latent keeps the lowest coefficients, and the decoder undoes it in reverse.  The waveform is
amplified on the way in and back on the way out, so that residual units see signals near 1, where Snake bends.  Weights
that would disturb the path are scaled down; all others keep their random start.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from streamcodec.nn.layers import Conv, ConvTranspose, Residual, Snake, Stack
from streamcodec.nn.quantizer import FactorizedCodebook, ResidualVQ

_NOISE = 0.02  # of random weights on the path
_LOG_ALPHA = -4.5  # a Snake that hardly bends
_GAIN = 5.0  # of the waveform inside
_DAMP = 0.2  # of the cosine transform, whose low coefficients would else bend too far
_QUERY_LEVEL = 1.2  # coefficients of speech at -23 dBFS, times this, stay below the query's constant 1


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
    for module in (*encoder, *decoder):
        if isinstance(module, Residual):
            module.mix.weight.scale(0.25)
        elif isinstance(module, Snake):
            module.log_alpha.fill_(_LOG_ALPHA)
    convs = [module for module in encoder if isinstance(module, Conv)]
    ups = [module for module in decoder if isinstance(module, ConvTranspose)]
    ends = [module for module in decoder if isinstance(module, Conv)]
    used, first, downs, last = 1, convs[0], convs[1:-1], convs[-1]
    _clear(first, 1)
    _put(first, first.layer.kernel - 1, torch.full((1, 1), _GAIN))
    for down, up in zip(downs, reversed(ups), strict=True):
        stride, room = down.layer.stride, down.layer.out_channels
        wanted = used * stride
        transforms = down is downs[-1]
        mix = (
            _DAMP * cosine_transform(min(room, wanted), wanted) if transforms else torch.eye(min(room, wanted), wanted)
        )
        _clear(down, mix.shape[0])
        _clear(up, used)
        for j in range(stride):
            part = mix[:, j * used : (j + 1) * used]  # channels made of sample j's channels
            _put(down, stride + j, part.t())
            up.weight.direction[: part.shape[0], j, :used] = part / _DAMP**2 if transforms else part
        used = min(wanted, room)
    kept = min(used, last.layer.out_channels)
    _clear(last, kept)
    _put(last, last.layer.kernel - 1, torch.eye(used, kept))
    _clear(ends[0], used)
    _put(ends[0], ends[0].layer.kernel - 1, torch.eye(kept, used))
    _clear(ends[-1], 1)
    _put(ends[-1], ends[-1].layer.kernel - 1, torch.full((1, 1), 1 / _GAIN))
    changed: list[Conv | ConvTranspose] = [*convs, *ups, *ends]
    for conv in changed:
        conv.weight.load(conv.weight.direction)
    spread(quantizer, kept, _GAIN * _DAMP)


def _clear(conv: Conv | ConvTranspose, outputs: int) -> None:
    """Scale down what reaches the first `outputs` channels, which the path will use."""
    conv.weight.direction[..., :outputs] *= _NOISE


def _put(conv: Conv, tap: int, block: Tensor) -> None:
    """Write a corner [inputs, outputs] of one tap."""
    conv.weight.direction[tap, : block.shape[0], : block.shape[1]] = block


@torch.no_grad()
def spread(quantizer: ResidualVQ, kept: int, gain: float) -> None:
    """Give each codebook the next few coefficients, and a constant that makes their level visible to the search.

    A query of constant 1 and small v points to v, nearly as far as v is long; unit length alone would hide the level.
    The first `kept` of a latent are a frame's cosine coefficients times `gain`.
    """
    at, scale = 0, _QUERY_LEVEL / gain
    for book in quantizer.books:
        if not isinstance(book, FactorizedCodebook):
            continue
        width = book.in_proj.out_features - 1
        if width < 1:
            continue
        index = torch.arange(at, at + width) % kept
        nn.init.normal_(book.in_proj.weight, std=_NOISE)
        nn.init.normal_(book.out_proj.weight, std=_NOISE / scale)
        book.in_proj.weight[torch.arange(width), index] = scale
        book.out_proj.weight[index, torch.arange(width)] = 1 / scale
        book.in_proj.bias[-1] = 1
        at += width
