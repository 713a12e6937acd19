"""Numba: flat loops over blocks of rows that stay in the first-level cache.

Per-channel numbers are repeated to the length of a block, so that every loop runs over one long contiguous
stretch and a tap of the convolution is an offset; LLVM vectorises each of them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from streamcodec_kernels._cache import cached_jit

BLOCK = 1024
"""Values that are worked on at once; a row of channels must fit."""

_INV_PI = 1.0 / math.pi
_PI_HIGH = 3.140625
_PI_LOW = math.pi - _PI_HIGH
_ROUNDER = np.float32(12_582_912.0)

_FASTMATH = {"contract", "nsz", "arcp"}
_jit: Any = njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
_cached_jit: Any = partial(cached_jit, fastmath=_FASTMATH)


@_jit
def _sin_cos(z: Any) -> Any:
    """Return sin and cos of z less the nearest multiple of pi: their signs are off together, squares and products hold.

    Polynomials fitted on [-pi/2, pi/2], error below 1e-6; |z| up to 2^22 pi.
    """
    turns = (z * np.float32(_INV_PI) + _ROUNDER) - _ROUNDER
    r = z - turns * np.float32(_PI_HIGH)
    r = r - turns * np.float32(_PI_LOW)
    q = r * r
    sin = np.float32(2.608450510e-06)
    sin = sin * q + np.float32(-1.981087015e-04)
    sin = sin * q + np.float32(8.333084377e-03)
    sin = sin * q + np.float32(-1.666666028e-01)
    sin = r + r * q * sin
    cos = np.float32(-2.607347070e-07)
    cos = cos * q + np.float32(2.476165551e-05)
    cos = cos * q + np.float32(-1.388839836e-03)
    cos = cos * q + np.float32(4.166664026e-02)
    cos = cos * q + np.float32(-4.999999954e-01)
    return sin, np.float32(1.0) + q * cos


@_jit
def _snake_block(x: Any, alpha: Any, out: Any) -> None:
    for i in range(x.shape[0]):
        sin, _ = _sin_cos(alpha[i] * x[i])
        out[i] = x[i] + sin * sin * alpha[i + BLOCK]


@_jit
def _snake_backward_block(x: Any, alpha: Any, grad_out: Any, grad_x: Any, grad_alpha: Any) -> None:
    for i in range(x.shape[0]):
        sin, cos = _sin_cos(alpha[i] * x[i])
        twice = np.float32(2.0) * sin * cos
        g = grad_out[i]
        inverse = alpha[i + BLOCK]
        grad_x[i] = g + g * twice
        grad_alpha[i] += g * inverse * (x[i] * twice - sin * sin * inverse)


@_jit
def _tap_block(weight: Any, u: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] += weight[i] * u[i]


@_jit
def _seven_taps_block(w: Any, u0: Any, u1: Any, u2: Any, u3: Any, u4: Any, u5: Any, u6: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] = (
            w[i + 7 * BLOCK]
            + w[i] * u0[i]
            + w[i + BLOCK] * u1[i]
            + w[i + 2 * BLOCK] * u2[i]
            + w[i + 3 * BLOCK] * u3[i]
            + w[i + 4 * BLOCK] * u4[i]
            + w[i + 5 * BLOCK] * u5[i]
            + w[i + 6 * BLOCK] * u6[i]
        )


@_jit
def _add_block(x: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] += x[i]


@_jit
def _block_length(channels: int) -> int:
    return channels * max(1, BLOCK // channels)


@_jit
def _repeat(vector: Any, out: Any) -> None:
    channels = vector.shape[0]
    for i in range(out.shape[0]):
        out[i] = vector[i % channels]


@_jit
def _repeat_alpha(alpha: Any) -> Any:
    """Alpha and its inverse, one block each."""
    out = np.zeros(2 * BLOCK, np.float32)
    length = _block_length(alpha.shape[0])
    _repeat(alpha, out[:length])
    _repeat(np.float32(1.0) / alpha, out[BLOCK : BLOCK + length])
    return out


@_jit
def _repeat_taps(weight: Any, bias: Any, backwards: bool) -> Any:
    """The taps and then the bias, one block each."""
    kernel = weight.shape[0]
    out = np.zeros((kernel + 1) * BLOCK, np.float32)
    length = _block_length(bias.shape[0])
    for j in range(kernel):
        tap = weight[kernel - 1 - j] if backwards else weight[j]
        _repeat(tap, out[j * BLOCK : j * BLOCK + length])
    if not backwards:
        _repeat(bias, out[kernel * BLOCK : kernel * BLOCK + length])
    return out


@_jit
def _convolve_block(taps: Any, kernel: int, u: Any, at: int, step: int, out: Any) -> None:
    """Fill out with bias and taps j = 0.. at u[at + j * step], step in values."""
    n = out.shape[0]
    if kernel == 7:
        b, c, d, e, f, g = at + step, at + 2 * step, at + 3 * step, at + 4 * step, at + 5 * step, at + 6 * step
        _seven_taps_block(
            taps,
            u[at : at + n],
            u[b : b + n],
            u[c : c + n],
            u[d : d + n],
            u[e : e + n],
            u[f : f + n],
            u[g : g + n],
            out,
        )
        return
    out[:] = taps[kernel * BLOCK : kernel * BLOCK + n]
    for j in range(kernel):
        _tap_block(taps[j * BLOCK : j * BLOCK + n], u[at + j * step : at + j * step + n], out)


@_jit
def _fold(values: Any, channels: int, out: Any) -> None:
    """Add the block's entries of each channel to out [channels]."""
    for i in range(_block_length(channels)):
        out[i % channels] += values[i]


@_cached_jit
def forward(x: Any, alpha_in: Any, weight: Any, bias: Any, alpha_out: Any, dilation: int, v: Any, y: Any) -> None:
    """Fill v and y from x, float32 [B, T, C] each, C up to BLOCK, as the package describes."""
    clips, rows, channels = x.shape
    kernel = weight.shape[0]
    length = _block_length(channels)
    alphas_in, alphas_out = _repeat_alpha(alpha_in), _repeat_alpha(alpha_out)
    taps = _repeat_taps(weight, bias, False)
    step = dilation * channels
    past = (kernel - 1) * step
    total = rows * channels
    u = np.zeros(past + total, np.float32)
    for clip in range(clips):
        x_flat, v_flat, y_flat = x[clip].reshape(total), v[clip].reshape(total), y[clip].reshape(total)
        for at in range(0, total, length):
            end = min(at + length, total)
            _snake_block(x_flat[at:end], alphas_in, u[past + at : past + end])
            _convolve_block(taps, kernel, u, at, step, v_flat[at:end])
            _snake_block(v_flat[at:end], alphas_out, y_flat[at:end])


@_cached_jit
def backward(
    grad_y: Any,
    x: Any,
    v: Any,
    alpha_in: Any,
    weight: Any,
    bias: Any,
    alpha_out: Any,
    dilation: int,
    grad_x: Any,
    grad_alpha_in: Any,
    grad_weight: Any,
    grad_bias: Any,
    grad_alpha_out: Any,
) -> None:
    """Fill grad_x [B, T, C] and the float64 sums grad_alpha_in, grad_bias, grad_alpha_out [C] and grad_weight."""
    clips, rows, channels = x.shape
    kernel = weight.shape[0]
    length = _block_length(channels)
    alphas_in, alphas_out = _repeat_alpha(alpha_in), _repeat_alpha(alpha_out)
    taps = _repeat_taps(weight, bias, True)
    step = dilation * channels
    past = (kernel - 1) * step
    total = rows * channels
    u = np.zeros(past + total, np.float32)
    grad_v = np.zeros(total + past, np.float32)
    grad_u = np.empty(length, np.float32)
    grad_alpha_in[:] = 0.0
    grad_weight[:] = 0.0
    grad_bias[:] = 0.0
    grad_alpha_out[:] = 0.0
    sums = np.empty((kernel + 3, length), np.float32)
    for clip in range(clips):
        sums[:] = np.float32(0.0)
        x_flat, v_flat = x[clip].reshape(total), v[clip].reshape(total)
        grad_y_flat, grad_x_flat = grad_y[clip].reshape(total), grad_x[clip].reshape(total)
        for at in range(0, total, length):
            end = min(at + length, total)
            n = end - at
            _snake_block(x_flat[at:end], alphas_in, u[past + at : past + end])
            _snake_backward_block(v_flat[at:end], alphas_out, grad_y_flat[at:end], grad_v[at:end], sums[kernel, :n])
            _add_block(grad_v[at:end], sums[kernel + 1, :n])
            for j in range(kernel):
                _tap_block(grad_v[at:end], u[at + j * step : at + j * step + n], sums[j, :n])
        for at in range(0, total, length):
            end = min(at + length, total)
            n = end - at
            _convolve_block(taps, kernel, grad_v, at, step, grad_u[:n])
            _snake_backward_block(x_flat[at:end], alphas_in, grad_u[:n], grad_x_flat[at:end], sums[kernel + 2, :n])
        for j in range(kernel):
            _fold(sums[j], channels, grad_weight[j])
        _fold(sums[kernel], channels, grad_alpha_out)
        _fold(sums[kernel + 1], channels, grad_bias)
        _fold(sums[kernel + 2], channels, grad_alpha_in)


@_cached_jit
def snake_forward(x: Any, alpha: Any, y: Any) -> None:
    """Fill y = snake(x, alpha); x, y: float32 [rows, C]."""
    rows, channels = x.shape
    length = _block_length(channels)
    alphas = _repeat_alpha(alpha)
    x_flat, y_flat = x.reshape(rows * channels), y.reshape(rows * channels)
    for at in range(0, rows * channels, length):
        end = min(at + length, rows * channels)
        _snake_block(x_flat[at:end], alphas, y_flat[at:end])


@_cached_jit
def snake_backward(grad_y: Any, x: Any, alpha: Any, grad_x: Any, grad_alpha: Any) -> None:
    """Fill grad_x [rows, C] and the float64 sums grad_alpha [C]."""
    rows, channels = x.shape
    length = _block_length(channels)
    alphas = _repeat_alpha(alpha)
    grad_alpha[:] = 0.0
    sums = np.zeros(length, np.float32)
    x_flat = x.reshape(rows * channels)
    grad_y_flat, grad_x_flat = grad_y.reshape(rows * channels), grad_x.reshape(rows * channels)
    for at in range(0, rows * channels, length):
        end = min(at + length, rows * channels)
        _snake_backward_block(x_flat[at:end], alphas, grad_y_flat[at:end], grad_x_flat[at:end], sums[: end - at])
    _fold(sums, channels, grad_alpha)
