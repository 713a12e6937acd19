"""AdamW as training uses it: Snake's alphas at a rate of their own, no step on a gradient that is not finite.

Nothing here reads the device's numbers on the host, so a step can be a CUDA graph and the host never waits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Adam:
    """The optimiser of one module.

    Parameters
    ----------
    module : nn.Module
        Whose parameters, those that learn.
    snake_rate_share : float
        Learning rate of Snake's alphas over that of the rest.

    Attributes
    ----------
    skipped : Tensor
        Steps left out because the gradient was not finite.
    """

    def __init__(self, module: nn.Module, snake_rate_share: float) -> None:
        self.module = module
        self.device = next(module.parameters()).device
        learning = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        self._shares = []
        groups: list[dict[str, Any]] = []
        for of_snake, share in ((False, 1.0), (True, snake_rate_share)):
            weights = [weight for name, weight in learning if name.endswith("log_alpha") == of_snake]
            if weights:
                groups.append({"params": weights, "lr": self._holder(0.0)})
                self._shares.append(share)
        self._adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.8, 0.99), weight_decay=1e-3, fused=True)
        self.skipped = torch.zeros((), device=self.device)

    def _holder(self, rate: float) -> float | Tensor:
        """On CUDA the rate lies on the device, where a recorded step finds its present value."""
        return torch.tensor(rate, device=self.device) if self.device.type == "cuda" else rate

    def set_rate(self, rate: float) -> None:
        """Learning rate of the next steps."""
        for group, share in zip(self._adam.param_groups, self._shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    def zero_grad(self) -> None:
        """Forget gradients."""
        self._adam.zero_grad()

    def step(self, clip: float) -> Tensor:
        """Step along gradients clipped to a norm of `clip` unless they are not finite; return their norm before."""
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        lost = (~torch.isfinite(norm)).float()
        recording = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        for group in self._adam.param_groups:
            group["capturable"] = recording  # torch demands it then, warns of it else; a state may hold either
        self._adam.found_inf = lost  # type: ignore[attr-defined]  # what GradScaler tells a fused optimiser
        self._adam.step()
        self.skipped += lost
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._adam.load_state_dict(state)
        for group in self._adam.param_groups:
            group["lr"] = self._holder(float(group["lr"]))
