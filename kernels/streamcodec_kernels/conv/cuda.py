"""One step of a dense convolution for B streams on CUDA; what the arguments share is in `streamcodec_kernels.ring`."""

from __future__ import annotations

from torch import Tensor


def state_shape(in_channels: int, kernel: int, stride: int, rows: int) -> tuple[int, int]:
    """Rows and channels of one stream's state of `conv` for steps of `rows` input rows."""
    history = kernel - stride
    return history + min(history, rows), in_channels


def conv(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    stride: int,
    state: Tensor,
    frame: Tensor,
    active: Tensor,
    out: Tensor,
    precision: str = "ieee",
    with_tanh: bool = False,
) -> None:
    """Write the convolution of x, or of snake(x), or the tanh of it; the state keeps rows as the convolution sees them.

    Parameters
    ----------
    x : Tensor
        [B, T, Cin], T a multiple of the stride.
    alpha : Tensor or None
        [Cin], > 0, of the Snake before the convolution; None: no Snake.
    weight, bias : Tensor
        [kernel, Cin, Cout], kernel >= stride, and [Cout].
    stride : int
        Input rows to one output row.
    state : Tensor
        [B, *state_shape(Cin, kernel, stride, T)].
    frame, active : Tensor
        int32 [B] and bool [B], read.
    out : Tensor
        [B, T / stride, Cout].
    precision : str
        Products of float32 weights: "ieee", "tf32x3" or "tf32".
    with_tanh : bool
        Whether out gets the hyperbolic tangent.
    """
    from streamcodec_kernels.conv import _triton

    _triton.conv(x, alpha, weight, bias, stride, state, frame, active, out, precision, with_tanh)
