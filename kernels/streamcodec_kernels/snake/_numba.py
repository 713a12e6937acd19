"""Snake by range reduction and a polynomial, LANES values at a time.

sin^2 has period pi, so with u = alpha x / pi and r = u - round(u) it is sin^2(pi r), a polynomial of r^2.
Error: at most (1e-6 + 2.5e-7 |alpha x|) / alpha, the second part from rounding alpha x / pi to float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import Emitter, flat, intrinsic

SINE_SQUARED = (9.869524955749512, -32.46514129638672, 42.64342498779297, -29.426273345947266, 10.581298828125)
"""sin^2(pi r) = r^2 P(r^2) for |r| <= 1/2 within 4.4e-7: P by iteratively reweighted least squares."""


def snake_constants(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the kernel reads for a layer: alpha / pi, then 1 / alpha.  alpha: [C].  Returns [2 C]."""
    wide = alpha.astype(np.float64)
    return np.concatenate([wide / np.pi, 1 / wide]).astype(np.float32)


def emit_snake(emit: Emitter, x: Any, rate: Any, gain: Any) -> Any:
    """Snake of one vector.  rate: alpha / pi.  gain: 1 / alpha."""
    builder = emit.builder
    u = builder.fmul(x, rate)
    r = builder.fsub(u, emit.round(u))
    v = builder.fmul(r, r)
    return emit.fma(builder.fmul(v, gain), emit.polynomial(v, SINE_SQUARED), x)


@intrinsic
def snake_rows(
    typing: Any, x: Any, x_at: Any, out: Any, out_at: Any, rows: Any, channels: Any, constants: Any, constants_at: Any
) -> Any:
    """Snake of `rows` rows of `channels` from x[x_at:] to out[out_at:], constants as `snake_constants` lays them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        source = emit.pointer(signature.args[0], args[0], args[1])
        target = emit.pointer(signature.args[2], args[2], args[3])
        row_count, channel_count = args[4], args[5]
        rate = emit.pointer(signature.args[6], args[6], args[7])
        gain = emit.at(rate, channel_count)

        def block(channel: Any, mask: Any) -> None:
            rates = emit.load(emit.at(rate, channel), mask)
            gains = emit.load(emit.at(gain, channel), mask)
            with emit.loop(channel, builder.mul(row_count, channel_count), channel_count) as at:
                value = emit.load(emit.at(source, at), mask)
                emit.store(emit_snake(emit, value, rates, gains), emit.at(target, at), mask)

        emit.blocks(channel_count, block)
        return context.get_dummy_value()

    return types.void(x, x_at, out, out_at, rows, channels, constants, constants_at), generate


@cached_jit
def _run(x: Any, out: Any, rows: int, channels: int, constants: Any) -> None:
    snake_rows(x, 0, out, 0, rows, channels, constants, 0)


def snake(x: NDArray[np.float32], alpha: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Snake of contiguous float32 arrays.

    x, out: [T, C], may be the same array.  alpha: [C], > 0.
    """
    rows, channels = x.shape
    if alpha.shape != (channels,) or out.shape != x.shape:
        raise ValueError(f"x is {x.shape}, alpha {alpha.shape}, out {out.shape}; they must be [T, C], [C], [T, C]")
    _run(flat(x), flat(out), rows, channels, snake_constants(alpha))
