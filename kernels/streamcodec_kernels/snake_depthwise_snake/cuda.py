"""Torch autograd function over the Triton kernels, for CUDA tensors of float32, bfloat16 or float16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _SnakeDepthwiseSnake(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int
    ) -> Tensor:
        from streamcodec_kernels.snake_depthwise_snake import _triton

        if weight.shape[0] != _triton.TAPS:
            raise ValueError(f"the kernel has {weight.shape[0]} taps; the fused one takes {_triton.TAPS}")
        ctx.dilation = dilation
        ctx.dtypes = [tensor.dtype for tensor in (alpha_in, weight, bias, alpha_out)]
        x = x.contiguous()
        alpha_in, weight, bias, alpha_out = (t.float().contiguous() for t in (alpha_in, weight, bias, alpha_out))
        y = torch.empty_like(x)
        _triton.forward(x, alpha_in, weight, bias, alpha_out, dilation, y)
        ctx.save_for_backward(x, alpha_in, weight, bias, alpha_out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from streamcodec_kernels.snake_depthwise_snake import _triton

        x, alpha_in, weight, bias, alpha_out = ctx.saved_tensors
        grad_y, grad_x = gradients[0].contiguous(), torch.empty_like(x)
        sums = _triton.backward(grad_y, x, alpha_in, weight, bias, alpha_out, ctx.dilation, grad_x)
        return grad_x, *(each.to(dtype) for each, dtype in zip(sums, ctx.dtypes, strict=True)), None


def snake_depthwise_snake(
    x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int
) -> Tensor:
    """Differentiable operation of this package, x [B, T, C]; keeps x and nothing else for the way back."""
    y: Tensor = _SnakeDepthwiseSnake.apply(x, alpha_in, weight, bias, alpha_out, dilation)  # type: ignore[no-untyped-call]
    return y
