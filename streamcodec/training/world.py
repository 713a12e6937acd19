"""The processes that train together: none, or those that torchrun started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Place of a process among those that train one model.

    Parameters
    ----------
    rank, size : int
        Which one, of how many.
    device : torch.device
        Where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str, environment: Mapping[str, str]) -> World:
        """Join what torchrun announced (RANK, WORLD_SIZE, LOCAL_RANK), or be alone."""
        size = int(environment.get("WORLD_SIZE", "1"))
        rank = int(environment.get("RANK", "0"))
        if device == "cuda":
            place = torch.device("cuda", int(environment.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(place)
        else:
            place = torch.device(device)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
        return cls(rank, size, place)

    def rows(self, batch: int) -> range:
        """Which rows of a batch are this process's."""
        share = batch // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def share(self, tensor: Tensor) -> Tensor:
        """Take the first process's values, in place."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def agree(self, number: float) -> float:
        """The first process's number."""
        if self.size == 1:
            return number
        return float(self.share(torch.tensor([number], device=self.device)))

    def gather(self, tensor: Tensor) -> Tensor:
        """Rows of all processes, in the order of their ranks; every process has as many."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
