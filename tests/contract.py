"""What every streaming layer promises: steps over any split of a clip give what `forward` gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hypothesis import strategies

if TYPE_CHECKING:
    from torch import Tensor

    from streamcodec.nn.layers import Stack

TOLERANCE = 1e-5

chunkings = strategies.lists(strategies.integers(0, 9), min_size=1, max_size=7)
"""Lengths of the chunks that a clip is cut into, in units of what a layer takes at once; empty ones too."""


def assert_step_equals_forward(stack: Stack, x: Tensor, chunks: Sequence[int], restarted: int | None = None) -> None:
    """Run `x` [B, T, C] by `chunks` of rows (their sum is T) and whole, and compare.

    Stream `restarted` has its state zeroed half way, so the rest of it must come out as a clip of its own, and its
    neighbours must not notice.
    """
    import torch

    assert sum(chunks) == x.shape[1]
    middle = len(chunks) // 2
    with torch.no_grad():
        state = stack.init_state(x.shape[0])
        assert state.shape == (x.shape[0], stack.state_values)
        parts, before = [], x.clone()
        for number, piece in enumerate(x.split(list(chunks), 1)):
            if number == middle and restarted is not None:
                state[restarted] = 0
            parts.append(stack.step(piece, state))
        assert torch.equal(x, before), "the input was written to"
        cut = sum(chunks[:middle])
        for stream in range(x.shape[0]):
            clip = x[stream : stream + 1]
            if stream == restarted:
                expected = torch.cat([stack(clip[:, :cut]), stack(clip[:, cut:])], 1)
            else:
                expected = stack(clip)
            made = torch.cat([part[stream : stream + 1] for part in parts], 1)
            assert made.shape == expected.shape
            error = float((made - expected).abs().max()) if made.numel() else 0.0
            assert error <= TOLERANCE, f"{stack.layers}: stream {stream} is off by {error} for chunks {list(chunks)}"
