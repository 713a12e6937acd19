"""Arrays that are on the host, pinned, and on the device; one copy moves all of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT_BYTES = 256


class Buffers:
    """Named arrays in one block of host memory and one of device memory; the same block where the device is the CPU.

    Parameters
    ----------
    arrays : mapping of str to (dtype, shape)
        What the block holds, zeros at the start.
    device : torch.device
        The other side.

    Attributes
    ----------
    host : dict of str to numpy array
        What the host reads and writes.
    device : dict of str to Tensor
        What the device reads and writes.
    """

    def __init__(self, arrays: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], device: torch.device) -> None:
        starts, size = {}, 0
        for name, (dtype, shape) in arrays.items():
            starts[name] = size
            n_bytes = prod(shape) * dtype.itemsize
            size += -(-n_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._on_host = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._on_device = self._on_host if device.type == "cpu" else self._on_host.to(device)

        def views(block: Tensor) -> dict[str, Tensor]:
            return {
                name: block[starts[name] : starts[name] + prod(shape) * dtype.itemsize].view(dtype).view(shape)
                for name, (dtype, shape) in arrays.items()
            }

        self.host: dict[str, NDArray[Any]] = {name: view.numpy() for name, view in views(self._on_host).items()}
        self.device = views(self._on_device)

    def to_device(self) -> None:
        """Copy the host's side to the device, in the order of the current stream."""
        if self._on_device is not self._on_host:
            self._on_device.copy_(self._on_host, non_blocking=True)

    def to_host(self) -> None:
        """Copy the device's side to the host, in the order of the current stream; synchronise before reading it."""
        if self._on_device is not self._on_host:
            self._on_host.copy_(self._on_device, non_blocking=True)
