"""Hyperbolic tangent, LANES values at a time: 1 - 2 / (e^2x + 1), the exponential by a polynomial.

Error: at most 3e-7.
"""

from __future__ import annotations

from math import factorial, log
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import INDICES, LANES, VECTOR, Emitter, flat, intrinsic, ir

POWER_OF_TWO = tuple(log(2) ** n / factorial(n) for n in range(8))
"""2^f for |f| <= 1/2: the first terms of its series."""


@intrinsic
def tanh_values(typing: Any, x: Any, x_at: Any, count: Any) -> Any:
    """Replace x[x_at: + count] by its hyperbolic tangent."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        values = emit.pointer(signature.args[0], args[0], args[1])

        def block(at: Any, mask: Any) -> None:
            x = emit.load(emit.at(values, at), mask)
            for bound, order in ((10.0, "<"), (-10.0, ">")):
                limit = emit.constant(bound)
                x = builder.select(builder.fcmp_unordered(order, x, limit), x, limit)
            y = builder.fmul(x, emit.constant(2 / log(2)))
            whole = emit.round(y)
            fraction = emit.polynomial(builder.fsub(y, whole), POWER_OF_TWO)
            exponent = builder.shl(builder.fptosi(whole, INDICES), ir.Constant(INDICES, [23] * LANES))
            power = builder.bitcast(builder.add(builder.bitcast(fraction, INDICES), exponent), VECTOR)
            one = emit.constant(1.0)
            result = builder.fsub(one, builder.fdiv(emit.constant(2.0), builder.fadd(power, one)))
            emit.store(result, emit.at(values, at), mask)

        emit.blocks(args[2], block)
        return context.get_dummy_value()

    return types.void(x, x_at, count), generate


@cached_jit
def _run(x: Any) -> None:
    tanh_values(x, 0, x.size)


def tanh(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Hyperbolic tangent.  x, out: contiguous float32 of one shape, may be the same array."""
    np.copyto(out, x)
    _run(flat(out))
