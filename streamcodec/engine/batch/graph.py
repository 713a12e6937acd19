"""A sequence of device operations as one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP_RUNS = 3


def captured(step: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """Run `step` a few times on `stream`, so that every kernel is compiled and tuned, then record it as a CUDA graph.

    `step` may use only tensors that stay where they are.  What is returned launches the record on the current
    stream; nothing of `step` runs in Python again.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    stream.synchronize()
    return graph.replay
