"""One step of the decoder's last layers for B streams on CUDA; shared arguments: see `streamcodec_kernels.ring`."""

from __future__ import annotations

from torch import Tensor


def state_shape(channels: int, kernel: int, rows: int) -> tuple[int, int]:
    """Rows and channels of one stream's state for steps of `rows` rows."""
    return kernel - 1 + rows, channels


def waveform_conv(
    x: Tensor,
    alpha: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Tensor,
    frame: Tensor,
    active: Tensor,
    out: Tensor,
) -> None:
    """Write tanh(conv(snake(x))); products are float32.

    Parameters
    ----------
    x : Tensor
        [B, T, C].
    alpha : Tensor
        [C], > 0.
    weight, bias : Tensor
        [kernel, C, 1] and [1].
    state : Tensor
        [B, *state_shape(C, kernel, T)].
    frame, active : Tensor
        int32 [B] and bool [B], read.
    out : Tensor
        [B, T, 1].
    """
    from streamcodec_kernels.waveform_conv import _triton

    _triton.waveform_conv(x, alpha, weight, bias, state, frame, active, out)
