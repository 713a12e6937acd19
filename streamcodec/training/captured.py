"""A step of training as one CUDA graph: thousands of small launches cost the host nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Calls that run as they are, so that every kernel is compiled and tuned before the recording."""


class CapturedStep:
    """A function of tensors on one CUDA device, whose shapes stay as they are, recorded at its fourth call.

    Every call does the function's work once: the first ones as it is, the others by a replay.  The function must not
    read the device's numbers on the host, and change only tensors that stay where they are.  What it returns is
    overwritten by the next call.

    Parameters
    ----------
    function : callable
        Takes tensors; whatever it returns is returned.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._inputs: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Any = None
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> Any:
        """Do the step."""
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            return self._function(*inputs)
        if self._graph is None:
            self._inputs = [tensor.clone() for tensor in inputs]
            self._graph = torch.cuda.CUDAGraph()
            # other threads may use the device meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = self._function(*self._inputs)
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result
