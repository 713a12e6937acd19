"""Torch autograd functions: over the Numba kernels on the CPU, over the Triton kernels on CUDA."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from streamcodec_kernels.snake_depthwise_snake import _numba

MAX_CHANNELS: int = _numba.BLOCK
"""What the kernels take at most: a row must fit into a block."""


def _check(x: Tensor) -> None:
    if x.device.type != "cpu":
        raise ValueError(f"x is on {x.device}; these kernels run on the CPU and on CUDA")
    if x.dtype == torch.float64:
        raise ValueError("x is float64; these kernels compute in float32")
    if not 1 <= x.shape[-1] <= MAX_CHANNELS:
        raise ValueError(f"x has {x.shape[-1]} channels; these kernels take 1 to {MAX_CHANNELS}")


class _SnakeDepthwiseSnake(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int
    ) -> Tensor:
        x = x.contiguous()
        v, y = torch.empty_like(x), torch.empty_like(x)
        constants = [tensor.contiguous() for tensor in (alpha_in, weight, bias, alpha_out)]
        arrays = [tensor.detach().numpy() for tensor in (x, *constants)]
        _numba.forward(*arrays, dilation, v.numpy(), y.numpy())
        ctx.save_for_backward(x, v, *constants)
        ctx.dilation = dilation
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, v, alpha_in, weight, bias, alpha_out = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        sums = [torch.empty(t.shape, dtype=torch.float64) for t in (alpha_in, weight, bias, alpha_out)]
        inputs = [t.detach().numpy() for t in (grad_y.contiguous(), x, v, alpha_in, weight, bias, alpha_out)]
        _numba.backward(*inputs, ctx.dilation, grad_x.numpy(), *(t.numpy() for t in sums))
        return grad_x, *(t.float() for t in sums), None


class _Snake(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        x, alpha = x.contiguous(), alpha.contiguous()
        y = torch.empty_like(x)
        rows = (-1, x.shape[-1])
        _numba.snake_forward(x.detach().view(rows).numpy(), alpha.detach().numpy(), y.view(rows).numpy())
        ctx.save_for_backward(x, alpha)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_alpha = torch.empty(alpha.shape, dtype=torch.float64)
        rows = (-1, x.shape[-1])
        _numba.snake_backward(
            grad_y.contiguous().view(rows).numpy(),
            x.detach().view(rows).numpy(),
            alpha.detach().numpy(),
            grad_x.view(rows).numpy(),
            grad_alpha.numpy(),
        )
        return grad_x, grad_alpha.float()


def fuses(x: Tensor, taps: int = 7) -> bool:
    """Whether there are kernels for the gradient of `x` and a convolution of so many taps."""
    if not torch.is_grad_enabled() or x.dtype == torch.float64:
        return False
    if x.device.type == "cpu":
        return x.shape[-1] <= MAX_CHANNELS
    return x.is_cuda and taps == 7 and find_spec("triton") is not None


def snake_depthwise_snake(
    x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor, dilation: int
) -> Tensor:
    """Differentiable operation of this package, x [B, T, C] of float32, bfloat16 or float16; float32 arithmetic."""
    if x.is_cuda:
        from streamcodec_kernels.snake_depthwise_snake import cuda

        return cuda.snake_depthwise_snake(x, alpha_in, weight, bias, alpha_out, dilation)
    _check(x)
    apply: Any = _SnakeDepthwiseSnake.apply
    y: Tensor = apply(x.float(), alpha_in, weight, bias, alpha_out, dilation)
    return y.to(x.dtype)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """Differentiable Snake, x [..., C] of float32, bfloat16 or float16, alpha [C]; float32 arithmetic."""
    if x.is_cuda:
        from streamcodec_kernels.snake.autograd import snake as on_cuda

        return on_cuda(x, alpha)
    _check(x)
    apply: Any = _Snake.apply
    y: Tensor = apply(x.float(), alpha)
    return y.to(x.dtype)
