"""Snake and its gradients in Triton: one read and one write of every value, float32 arithmetic.

x, out, grad_out, grad_x: [T, C], contiguous, float32, bfloat16 or float16.  alpha: [C], any of them, > 0.
Exact to the rounding of alpha / pi to float32 while |alpha x| < 10,000; bounded beyond.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from streamcodec_kernels._triton_cache import choose_triton_cache

choose_triton_cache()

FORWARD_CONFIGS = [
    triton.Config({"tile": values}, num_warps=warps) for values, warps in ((1024, 4), (2048, 4), (4096, 8), (8192, 8))
]
"""Values in one tile, tried once for each number of channels; the results do not depend on the choice."""

BACKWARD_TILE = 2048
BACKWARD_TILES_PER_PROGRAM = 8
BACKWARD_WARPS = 4
"""Fixed, because the order in which alpha's gradient is added, and so its last bit, depends on them."""


def channel_block(channels: int) -> int:
    """Channels of one tile: a power of two that wastes little, 128 at most."""
    dividing = channels & -channels
    return min(128, dividing if dividing >= 32 else triton.next_power_of_2(channels))


@triton.jit
def half_turns(x: tl.tensor, rate: tl.tensor) -> tl.tensor:
    """X * rate less the nearest whole number, in [-0.5, 0.5] also where float32 has run out of digits."""
    n = (x * rate + 12582912.0) - 12582912.0  # 1.5 * 2^23: the sum rounds to a whole number
    return tl.minimum(tl.maximum(x * rate - n, -0.5), 0.5)


@triton.jit
def sin_half_turns(r: tl.tensor) -> tl.tensor:
    """Sine of pi r for |r| <= 0.5, polynomial by iteratively reweighted least squares, error 2e-7 with rounding."""
    v = r * r
    p = v * 0.0772201269865036 - 0.5980451703071594
    p = p * v + 2.5500314235687256
    p = p * v - 5.1677069664001465
    p = p * v + 3.141592502593994
    return r * p


@triton.jit
def cos_half_turns(r: tl.tensor) -> tl.tensor:
    """Cosine of pi r for |r| <= 0.5, polynomial by iteratively reweighted least squares, error 2e-7 with rounding."""
    v = r * r
    p = v * 0.2196968048810959 - 1.3318802118301392
    p = p * v + 4.058412075042725
    p = p * v - 4.934792995452881
    return p * v + 0.9999999403953552


@triton.jit
def snake_value(x: tl.tensor, alpha: tl.tensor, inverse_alpha: tl.tensor) -> tl.tensor:
    """Snake of x in a dozen instructions, so that also sixteen-bit values are read no slower than memory gives them.

    With n the whole number nearest to alpha x / pi and r what is left, sin^2(alpha x) = v P(v) with v = r^2, within
    6e-9: P by iteratively reweighted least squares.  Bounded also where float32 has run out of digits.
    """
    rate = alpha * 0.3183098861837907
    n = (x * rate + 12582912.0) - 12582912.0  # 1.5 * 2^23: the sum rounds to a whole number
    r = x * rate - n
    v = tl.minimum(r * r, 0.25)
    p = v * -3.272946357727051 + 12.990730285644531
    p = p * v - 30.085952758789062
    p = p * v + 42.72538375854492
    p = p * v - 32.469581604003906
    p = p * v + 9.869603157043457
    return x + (v * inverse_alpha) * p


@triton.jit
def snake_slopes(x: tl.tensor, alpha: tl.tensor, inverse_alpha: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Derivatives of Snake by x and by alpha."""
    r = half_turns(x, alpha * 0.3183098861837907)
    s = sin_half_turns(r)
    double = 2.0 * s * cos_half_turns(r)  # sin(2 alpha x)
    return 1.0 + double, (x * double - s * s * inverse_alpha) * inverse_alpha


@triton.jit
def forward_kernel(
    x_ptr: tl.tensor, alpha_ptr: tl.tensor, out_ptr: tl.tensor, rows: int,
    channels: tl.constexpr, block_c: tl.constexpr, tile: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of tile / block_c rows and block_c channels."""
    first = tl.program_id(0) * (tile // block_c)
    row = tl.arange(0, tile // block_c)
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)
    offset = row[:, None] * channels + channel[None, :]
    mask = (row < rows - first)[:, None] & (channel < channels)[None, :]
    x = tl.load(x_ptr + first.to(tl.int64) * channels + offset, mask=mask, other=0.0).to(tl.float32)
    alpha = tl.load(alpha_ptr + channel, mask=channel < channels, other=1.0).to(tl.float32)[None, :]
    out_ptr += first.to(tl.int64) * channels
    tl.store(out_ptr + offset, snake_value(x, alpha, 1.0 / alpha).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    x_ptr: tl.tensor, alpha_ptr: tl.tensor, grad_out_ptr: tl.tensor, grad_x_ptr: tl.tensor, partial_ptr: tl.tensor,
    rows: int, channels: tl.constexpr, block_c: tl.constexpr, tile: tl.constexpr, tiles: tl.constexpr,
) -> None:  # fmt: skip
    """So many tiles one below the other; their sum of alpha's gradient is row program_id(0) of `partial`."""
    channel = tl.program_id(1) * block_c + tl.arange(0, block_c)
    alpha = tl.load(alpha_ptr + channel, mask=channel < channels, other=1.0).to(tl.float32)[None, :]
    inverse = 1.0 / alpha
    first = tl.program_id(0).to(tl.int64) * (tiles * (tile // block_c))
    total = tl.zeros([tile // block_c, block_c], tl.float32)
    for i in range(tiles):
        row = first + i * (tile // block_c) + tl.arange(0, tile // block_c)
        offset = row[:, None] * channels + channel[None, :]
        mask = (row < rows)[:, None] & (channel < channels)[None, :]
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_out_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        by_x, by_alpha = snake_slopes(x, alpha, inverse)
        tl.store(grad_x_ptr + offset, (grad * by_x).to(grad_x_ptr.dtype.element_ty), mask=mask)
        total += grad * by_alpha
    tl.store(
        partial_ptr + tl.program_id(0).to(tl.int64) * channels + channel, tl.sum(total, axis=0), mask=channel < channels
    )


_tuned_forward = triton.autotune(configs=FORWARD_CONFIGS, key=["channels"])(forward_kernel)


def snake(x: Tensor, alpha: Tensor, out: Tensor) -> None:
    """Write x + sin^2(alpha x) / alpha; x and out may be the same array."""
    rows, channels = x.shape
    if not rows:
        return
    block = channel_block(channels)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(rows, meta["tile"] // block), triton.cdiv(channels, block)

    if x.is_cuda and x.data_ptr() != out.data_ptr():  # trials in place would apply it again and again
        _tuned_forward[grid](x, alpha, out, rows, channels=channels, block_c=block, enable_fp_fusion=True)
    else:  # nor has the interpreter a clock to tune by
        forward_kernel[grid](x, alpha, out, rows, channels=channels, block_c=block, tile=1024, enable_fp_fusion=True)


def snake_backward(x: Tensor, alpha: Tensor, grad_out: Tensor, grad_x: Tensor) -> Tensor:
    """Write the gradient by x and return the one by alpha [C], float32, the same bits on every run."""
    rows, channels = x.shape
    block = channel_block(channels)
    programs = triton.cdiv(rows, BACKWARD_TILES_PER_PROGRAM * (BACKWARD_TILE // block))
    partial = torch.empty(programs, channels, dtype=torch.float32, device=x.device)
    if rows:
        backward_kernel[programs, triton.cdiv(channels, block)](
            x, alpha, grad_out, grad_x, partial, rows,
            channels=channels, block_c=block, tile=BACKWARD_TILE, tiles=BACKWARD_TILES_PER_PROGRAM,
            num_warps=BACKWARD_WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return partial.sum(0)
