"""One step of a residual unit for B streams on CUDA; what the arguments share is in `streamcodec_kernels.ring`."""

from __future__ import annotations

from torch import Tensor


def state_shape(channels: int, kernel: int, dilation: int, rows: int) -> tuple[int, int]:
    """Rows and channels of one stream's state for steps of `rows` rows."""
    return (kernel - 1) * dilation + rows, channels


def residual_unit(
    x: Tensor,
    alpha1: Tensor,
    depthwise: Tensor,
    depthwise_bias: Tensor,
    dilation: int,
    alpha2: Tensor,
    mix: Tensor,
    mix_bias: Tensor,
    state: Tensor,
    frame: Tensor,
    active: Tensor,
    out: Tensor,
    precision: str = "ieee",
) -> None:
    """Write x + mix(snake(depthwise(snake(x)))) and take the rows after the first Snake into the state.

    Parameters
    ----------
    x, out : Tensor
        [B, T, C], two tensors.
    alpha1, alpha2 : Tensor
        [C], > 0.
    depthwise, depthwise_bias : Tensor
        [kernel, C] and [C], the last tap at the present row.
    dilation : int
        Rows between two taps.
    mix, mix_bias : Tensor
        [C, C], in to out, and [C].
    state : Tensor
        [B, *state_shape(C, kernel, dilation, T)].
    frame, active : Tensor
        int32 [B] and bool [B], read.
    precision : str
        Products of float32 weights: "ieee", "tf32x3" or "tf32".
    """
    from streamcodec_kernels.residual_unit import _triton

    _triton.residual_unit(
        x, alpha1, depthwise, depthwise_bias, dilation, alpha2, mix, mix_bias, state, frame, active, out, precision
    )
