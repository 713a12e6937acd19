"""Initial weights at unit scale, for shapes whose first stride reads the waveform: a transform codec beside a network.

Some channels carry the waveform, as in `passthrough.py`: the samples of a block, then the lowest cosines of a frame.
Nothing else reaches these channels, units add nothing to them, and their Snakes hardly bend.  All other channels are
random, of unit variance, with Snakes that bend: the network is nonlinear from the first step, and no level has to grow.
The waveform is amplified on the way in and back on the way out by fixed factors of the first and the last weights,
outside of what learns.
"""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import Tensor

from streamcodec.nn.layers import Conv, ConvTranspose, Residual, Snake, Stack
from streamcodec.nn.passthrough import cosine_transform, spread
from streamcodec.nn.quantizer import ResidualVQ

GAIN = 10.0
"""Of the waveform inside the network."""

_LOG_ALPHA = math.log(0.002)  # of carrying channels: cosine coefficients of speech reach 8
_WRITTEN = 4e-4  # share of the random weights that write the waveform
_CARRIED = 2  # times as many cosines are carried to the latent as it has room for


@torch.no_grad()
def start_clean(encoder: Stack, quantizer: ResidualVQ, decoder: Stack) -> None:
    """Set the initial weights of a causal codec's three parts, which are kept plain."""
    blocks, kept = _start_encoder(encoder)
    _start_decoder(decoder, blocks, kept)
    spread(quantizer, kept, GAIN)


def _start_encoder(encoder: Stack) -> tuple[list[Tensor], int]:
    """Set the encoder; returns what each stride makes of the rows it carries, and how many channels the latent carries.

    Each is [channels, stride * channels before].
    """
    *downs, to_latent = [module for module in encoder if isinstance(module, Conv)]
    latent = to_latent.layer.out_channels
    downs[0].weight.gain = GAIN
    used, blocks = 1, list[Tensor]()
    for module, units in _with_units(encoder):
        if isinstance(module, Conv) and module is not to_latent:
            layer, wanted = module.layer, used * module.layer.stride
            room = min(wanted, layer.out_channels)
            if module is downs[-1]:
                room = min(room, _CARRIED * latent)
            blocks.append(cosine_transform(room, wanted) if module is downs[-1] else torch.eye(room, wanted))
            _draw(module, (layer.kernel * layer.in_channels) ** -0.5, room)
            module.weight.direction[layer.stride :, :used, :room] = blocks[-1].t().view(layer.stride, used, room)
            used = room
        elif isinstance(module, Conv):
            _draw(module, (module.layer.kernel * module.layer.in_channels) ** -0.5, min(used, latent))
            module.weight.direction[-1, :used, : min(used, latent)] = torch.eye(used, min(used, latent))
        else:
            _leave_alone(module, used, units)
    return blocks, min(used, latent)


def _start_decoder(decoder: Stack, blocks: list[Tensor], used: int) -> None:
    """Undo the blocks, last first."""
    *_, last = (module for module in decoder if isinstance(module, ConvTranspose))
    last.weight.gain = 1 / GAIN
    for module, units in _with_units(decoder):
        if isinstance(module, Conv):
            _draw(module, (module.layer.kernel * module.layer.in_channels) ** -0.5, used)
            module.weight.direction[-1, :used, :used] = torch.eye(used)
        elif isinstance(module, ConvTranspose):
            block, stride = blocks.pop()[:used], module.layer.stride
            made = block.shape[1] // stride
            _draw(module, (2 * module.layer.in_channels) ** -0.5, made, _WRITTEN if module is last else 0.0)
            module.weight.direction[:used, :stride, :made] = block.view(used, stride, made)
            used = made
        else:
            _leave_alone(module, used, units)


def _with_units(stack: Stack) -> list[tuple[object, int]]:
    """Modules in order, a residual unit with the number of units in its row."""
    runs = [list(run) for _, run in groupby(stack, lambda module: isinstance(module, Residual))]
    return [(module, len(run)) for run in runs for module in run]


def _draw(conv: Conv | ConvTranspose, deviation: float, carried: int, share: float = 0.0) -> None:
    """Random weights, but `share` of them into the first `carried` channels."""
    conv.weight.direction.normal_(std=deviation)
    conv.weight.direction[..., :carried] *= share


def _leave_alone(module: object, carried: int, units: int) -> None:
    """A Snake that hardly bends the carried channels, or a unit, one of `units`, that adds nothing to them."""
    if isinstance(module, Snake):
        module.log_alpha[:carried] = _LOG_ALPHA
    elif isinstance(module, Residual):
        module.dilated.weight.direction.normal_(std=module.dilated.layer.kernel**-0.5)
        _draw(module.mix, 0.5 * (units * module.mix.layer.in_channels) ** -0.5, carried)
