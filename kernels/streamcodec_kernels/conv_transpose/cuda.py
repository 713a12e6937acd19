"""One step of a transposed convolution for B streams on CUDA, as the two-tap convolution that it is.

With kernel = 2 * stride, output rows i * stride to (i + 1) * stride - 1 are a product of input rows i - 1 and i.  So
what a stream keeps is its last input row (as the contract has it), and no output row is added to twice.
"""

from __future__ import annotations

from torch import Tensor

from streamcodec_kernels.conv import cuda as conv_step


def arrange(weight: Tensor, bias: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Weight and bias as `conv_transpose` takes them, made once when a model is loaded.

    Parameters
    ----------
    weight, bias : Tensor
        [Cin, kernel, Cout], kernel <= 2 * stride, and [Cout].

    Returns
    -------
    tuple of Tensor
        Weight [2, Cin, stride * Cout] and bias [stride * Cout].
    """
    inputs, kernel, outputs = weight.shape
    if not 0 < kernel <= 2 * stride:
        raise ValueError(f"the kernel is {kernel} and the stride {stride}; a kernel from 1 to 2 * stride is supported")
    taps = weight.new_zeros(inputs, 2 * stride, outputs)
    taps[:, :kernel] = weight
    halves = taps.view(inputs, 2, stride * outputs).flip(1)  # the past row first
    return halves.transpose(0, 1).contiguous(), bias.repeat(stride)


def state_shape(in_channels: int) -> tuple[int, int]:
    """Rows and channels of one stream's state."""
    return conv_step.state_shape(in_channels, 2, 1, 1)


def conv_transpose(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    state: Tensor,
    frame: Tensor,
    active: Tensor,
    out: Tensor,
    precision: str = "ieee",
    with_tanh: bool = False,
) -> None:
    """Write the transposed convolution of x, or of snake(x), or the tanh of it.

    Parameters
    ----------
    x : Tensor
        [B, T, Cin].
    alpha : Tensor or None
        [Cin], > 0, of the Snake before; None: no Snake.
    weight, bias : Tensor
        As `arrange` makes them.
    state : Tensor
        [B, *state_shape(Cin)]: input rows, after Snake.
    frame, active : Tensor
        int32 [B] and bool [B], read.
    out : Tensor
        [B, T * stride, Cout].
    precision : str
        Products of float32 weights: "ieee", "tf32x3" or "tf32".
    with_tanh : bool
        Whether out gets the hyperbolic tangent.
    """
    folded = out.view(x.shape[0], x.shape[1], weight.shape[2])
    conv_step.conv(x, alpha, weight, bias, 1, state, frame, active, folded, precision, with_tanh)
