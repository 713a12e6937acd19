"""The fused operations of training, forward and backward, against the card's copy rate and eager torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streamcodec.bench.gpu.ceilings import Ceilings
from streamcodec.bench.gpu.timers import median_ms
from streamcodec.errors import BackendError
from streamcodec.nn.layers import depthwise_taps, snake
from streamcodec_kernels.snake_depthwise_snake import autograd as fused

Call = Callable[..., Tensor]
TAPS = 7
ERROR = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
"""Largest difference from float64, as a share of the largest value."""
_CHECK_CLIPS, _CHECK_ROWS = 16, 4992  # multiples of 16 like what is timed, so that both run the same machine code
_TORCH_REPEATS = 10


@dataclass(frozen=True)
class TrainingCase:
    """One operation on one shape.

    Parameters
    ----------
    kernel : {"snake", "snake_depthwise_snake"}
        Operation.
    dtype : torch.dtype
        Of the activations.
    shape : tuple of int
        [B, T, C] of them.
    dilation : int
        Of the depthwise convolution; nothing to "snake".
    """

    kernel: str
    dtype: torch.dtype
    shape: tuple[int, int, int]
    dilation: int = 1


@dataclass(frozen=True)
class TrainingTime:
    """Forward or backward of one case.

    Parameters
    ----------
    kernel, direction, dtype, shape, dilation
        What ran.
    ours_ms, torch_ms : float
        Time of the fused operation, and of the same in eager torch.
    gb_per_s, copy_share : float
        Least traffic over the time, also as a share of the card's copy rate.
    """

    kernel: str
    direction: str
    dtype: str
    shape: tuple[int, int, int]
    dilation: int
    ours_ms: float
    torch_ms: float
    gb_per_s: float
    copy_share: float


def functions(case: TrainingCase) -> tuple[Call, Call]:
    """The fused operation, and the same in plain torch."""
    if case.kernel == "snake":
        return fused.snake, lambda x, alpha: snake(x, alpha.to(x.dtype))
    past = (TAPS - 1) * case.dilation

    def in_torch(x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor) -> Tensor:
        alpha_in, weight, bias, alpha_out = (tensor.to(x.dtype) for tensor in (alpha_in, weight, bias, alpha_out))
        u = F.pad(snake(x, alpha_in), (0, 0, past, 0))
        return snake(depthwise_taps(u, weight, bias, case.dilation, x.shape[1]), alpha_out)

    def ours(x: Tensor, alpha_in: Tensor, weight: Tensor, bias: Tensor, alpha_out: Tensor) -> Tensor:
        return fused.snake_depthwise_snake(x, alpha_in, weight, bias, alpha_out, case.dilation)

    return ours, in_torch


def inputs(
    kernel: str, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """Drawn arguments that want gradients, and the gradient of the output."""
    source = torch.Generator(device).manual_seed(0)
    channels = shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=source)

    x, grad = (normal(*shape).to(dtype) for _ in range(2))
    alpha_in, alpha_out = (normal(channels).abs() + 0.3 for _ in range(2))
    given = [x, alpha_in]
    if kernel != "snake":
        given += [normal(TAPS, channels) / TAPS**0.5, normal(channels), alpha_out]
    return [tensor.requires_grad_() for tensor in given], grad


def check(case: TrainingCase, device: torch.device) -> None:
    """Refuse an operation that does not compute what float64 computes, forward and backward.

    Raises
    ------
    BackendError
        It differs.
    """
    ours, theirs = functions(case)
    clips, rows, channels = case.shape
    shape = min(_CHECK_CLIPS, clips), min(_CHECK_ROWS, rows), channels
    given, grad = inputs(case.kernel, case.dtype, shape, device)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    y, expected = ours(*given), theirs(*exact)
    got = [y, *torch.autograd.grad(y, given, grad)]
    wanted = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    error = 0.0
    for a, b in zip(got, wanted, strict=True):
        error = max(error, float((a - b).detach().abs().max() / b.detach().abs().max()))
    if not error < ERROR[case.dtype]:
        raise BackendError(f"{case} is wrong: it differs by {error:.1e} of the largest value; nothing is reported")


def time_case(case: TrainingCase, ceilings: Ceilings, device: torch.device) -> list[TrainingTime]:
    """Check one case, then time both directions."""
    check(case, device)
    given, grad = inputs(case.kernel, case.dtype, case.shape, device)
    times = []
    for function, repeats in zip(functions(case), (50, _TORCH_REPEATS), strict=True):
        y = function(*given)
        forward = median_ms(lambda f=function: f(*given), device, repeats)  # type: ignore[misc]
        backward = median_ms(
            lambda y=y: torch.autograd.grad(y, given, grad, retain_graph=True),  # type: ignore[misc]
            device,
            repeats,
        )
        times.append((forward, backward))
    values = grad.numel() * grad.element_size()
    found = []
    for direction, arrays, ours_ms, torch_ms in zip(("forward", "backward"), (2, 3), *times, strict=True):
        gb_per_s = arrays * values / (1e6 * ours_ms)
        found.append(
            TrainingTime(
                case.kernel,
                direction,
                str(case.dtype).removeprefix("torch."),
                case.shape,
                case.dilation,
                ours_ms,
                torch_ms,
                gb_per_s,
                gb_per_s / ceilings.copy_gb_per_s,
            )
        )
    return found
