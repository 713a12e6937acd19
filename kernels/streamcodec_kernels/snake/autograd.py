"""Snake for training with torch: the Triton kernels where x is on a CUDA device, plain torch operations elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _FusedSnake(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        from streamcodec_kernels.snake._triton import snake as launch

        rows = x.contiguous().view(-1, x.shape[-1])
        out = torch.empty_like(rows)
        launch(rows, alpha.contiguous(), out)
        ctx.save_for_backward(rows, alpha)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        from streamcodec_kernels.snake._triton import snake_backward as launch

        rows, alpha = ctx.saved_tensors
        grad_out = gradients[0].contiguous()
        grad_x = torch.empty_like(rows)
        grad_alpha = launch(rows, alpha.contiguous(), grad_out.view(rows.shape), grad_x)
        return grad_x.view(grad_out.shape), grad_alpha.to(alpha.dtype)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """Snake, x + sin^2(alpha x) / alpha, differentiable by both.

    Parameters
    ----------
    x : Tensor
        [..., C]; float32, bfloat16 or float16.
    alpha : Tensor
        [C], > 0.

    Returns
    -------
    Tensor
        Shape and dtype of `x`.  The arithmetic is float32 on CUDA, that of `x` elsewhere.
    """
    if x.is_cuda:
        fused: Tensor = _FusedSnake.apply(x, alpha)  # type: ignore[no-untyped-call]
        return fused
    narrow = alpha.to(x.dtype)
    return x + torch.sin(narrow * x).square() / narrow
