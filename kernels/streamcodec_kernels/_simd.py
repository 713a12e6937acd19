"""Building blocks for kernels written in vector instructions: what a register holds, loads, stores, loops.

Numba's loops leave vectorisation to LLVM's guesses.  Kernels here emit it instead, as `numba.extending.intrinsic`
functions that build LLVM IR on `LANES` float32 at a time, so registers are blocked as written on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import ir as _ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as _cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic as _intrinsic
from numba.np.arrayobj import populate_array as _populate_array
from numpy.typing import NDArray

from streamcodec_kernels._processor import converts_halves, has_features, is_x86, rounds_vectors

ir: Any = _ir
"""`llvmlite.ir`."""

FLOAT = ir.FloatType()
INT = ir.IntType(64)
INT32 = ir.IntType(32)

_TRIPLE, _, _FEATURES = cpu_target.target_context.codegen().magic_tuple()

WIDE_REGISTERS: bool = has_features(_FEATURES, "avx512f")
"""Whether the machine compiled for has AVX-512: 32 registers of 16 float32, else 16 of 8 are assumed."""

LANES: int = 16 if WIDE_REGISTERS else 8
"""float32 in one vector register."""

VECTOR = ir.VectorType(FLOAT, LANES)
HALF_FLOATS: bool = converts_halves(_TRIPLE, _FEATURES)
"""Whether the machine compiled for converts float16 in an instruction."""

ROUNDS: bool = rounds_vectors(_TRIPLE, _FEATURES)
"""Whether the machine compiled for rounds a vector to whole numbers in an instruction."""

INDICES = ir.VectorType(INT32, LANES)

cgutils: Any = _cgutils
populate_array: Any = _populate_array

intrinsic: Callable[[Callable[..., Any]], Any] = _intrinsic
"""Decorator of a function that writes LLVM IR: `numba.extending.intrinsic`."""

jit: Callable[[Callable[..., Any]], Any] = numba.njit(nogil=True, error_model="numpy", boundscheck=False)
"""Decorator of every kernel: no Python objects, so other threads run meanwhile."""

inline_jit: Callable[[Callable[..., Any]], Any] = numba.njit(
    nogil=True, error_model="numpy", boundscheck=False, inline="always"
)
"""`jit` for what is called from one place only: part of its caller, not compiled for itself."""


def round_up(count: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that holds `count`."""
    return -(-count // multiple) * multiple


def flat(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """View a contiguous float32 array as one row of values; never a copy, so it can be written to."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(f"the array is {array.dtype}, strides {array.strides}; give a contiguous float32 one")
    return array.reshape(-1)


class Emitter:
    """Writes vector instructions at the builder's position.

    Parameters
    ----------
    context, builder
        What an intrinsic's code generator is given.
    """

    def __init__(self, context: Any, builder: Any) -> None:
        self.context = context
        self.builder = builder

    def pointer(self, array_type: Any, array: Any, offset: Any) -> Any:
        """Address of `array[offset]`."""
        return self.builder.gep(self.context.make_array(array_type)(self.context, self.builder, array).data, [offset])

    def at(self, pointer: Any, offset: Any) -> Any:
        """`pointer` moved by `offset` values; an int or an IR integer."""
        return self.builder.gep(pointer, [INT(offset) if isinstance(offset, int) else offset])

    def constant(self, value: float) -> Any:
        """All lanes `value`."""
        return ir.Constant(VECTOR, [value] * LANES)

    def splat(self, scalar: Any) -> Any:
        """All lanes the scalar (float32 or int32)."""
        kind = ir.VectorType(scalar.type, LANES)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, INT32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(INDICES, [0] * LANES))

    def mask(self, count: Any) -> Any:
        """Lanes below `count` (64-bit integer)."""
        lanes = ir.Constant(INDICES, list(range(LANES)))
        return self.builder.icmp_signed("<", lanes, self.splat(self.builder.trunc(count, INT32)))

    def call(self, name: str, result: Any, *operands: Any) -> Any:
        """Call an LLVM intrinsic by its full name."""
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, operands)

    def load(self, pointer: Any, mask: Any = None) -> Any:
        """LANES values from an address of any alignment; lanes outside the mask are zero and not touched."""
        address = self.builder.bitcast(pointer, VECTOR.as_pointer())
        if mask is None:
            value = self.builder.load(address)
            value.align = 4
            return value
        name = f"llvm.masked.load.v{LANES}f32.p0v{LANES}f32"
        return self.call(name, VECTOR, address, INT32(4), mask, self.constant(0.0))

    def load_half(self, pointer: Any) -> Any:
        """LANES values from an address of float16 bits."""
        kind = ir.VectorType(ir.HalfType() if HALF_FLOATS else ir.IntType(16), LANES)
        value = self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()))
        value.align = 2
        if HALF_FLOATS:
            return self.builder.fpext(value, VECTOR)
        return self._from_half_bits(self.builder.zext(value, INDICES))

    def _bits(self, value: int) -> Any:
        """All lanes the integer."""
        return ir.Constant(INDICES, [value] * LANES)

    def _from_half_bits(self, bits: Any) -> Any:
        """float32 of float16 bits by integer arithmetic: LLVM would call a function that no library may have."""
        builder = self.builder
        magnitude = builder.shl(builder.and_(bits, self._bits(0x7FFF)), self._bits(13))
        exponent = builder.and_(magnitude, self._bits(0x7C00 << 13))
        normal = builder.add(magnitude, self._bits((127 - 15) << 23))
        infinite = builder.add(normal, self._bits((127 - 15) << 23))
        smallest = ir.Constant(VECTOR, [2.0**-14] * LANES)  # 1.m * 2^-14 - 2^-14: no denormal is computed with
        raised = builder.bitcast(builder.add(magnitude, self._bits((127 - 14) << 23)), VECTOR)
        denormal = builder.bitcast(builder.fsub(raised, smallest), INDICES)
        is_infinite = builder.icmp_unsigned("==", exponent, self._bits(0x7C00 << 13))
        is_denormal = builder.icmp_unsigned("==", exponent, self._bits(0))
        value = builder.select(is_denormal, denormal, builder.select(is_infinite, infinite, normal))
        sign = builder.shl(builder.and_(bits, self._bits(0x8000)), self._bits(16))
        return builder.bitcast(builder.or_(value, sign), VECTOR)

    def store(self, value: Any, pointer: Any, mask: Any = None) -> None:
        """LANES values to an address of any alignment; lanes outside the mask are not touched."""
        address = self.builder.bitcast(pointer, VECTOR.as_pointer())
        if mask is None:
            self.builder.store(value, address).align = 4
        else:
            name = f"llvm.masked.store.v{LANES}f32.p0v{LANES}f32"
            self.call(name, ir.VoidType(), value, address, INT32(4), mask)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """A * b + c."""
        return self.call(f"llvm.fmuladd.v{LANES}f32", VECTOR, a, b, c)

    def sum(self, start: Any, a: Any) -> Any:
        """Start plus all lanes, in any order."""
        signature = ir.FunctionType(FLOAT, [FLOAT, VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, [start, a], fastmath=("reassoc",))

    def variable(self, initial: Any) -> Any:
        """Address of a local vector that loops may change; LLVM keeps it in a register."""
        address = cgutils.alloca_once(self.builder, initial.type)
        self.builder.store(initial, address)
        return address

    def round(self, a: Any) -> Any:
        """Nearest whole number, the even one of two."""
        if ROUNDS:
            return self.call(f"llvm.rint.v{LANES}f32", VECTOR, a)
        builder, ulp_is_one = self.builder, self.constant(2.0**23)
        bits = builder.bitcast(a, INDICES)
        sign = builder.and_(bits, self._bits(-(2**31)))
        magnitude = builder.bitcast(builder.xor(bits, sign), VECTOR)
        whole = builder.fsub(builder.fadd(magnitude, ulp_is_one), ulp_is_one)
        signed = builder.bitcast(builder.or_(builder.bitcast(whole, INDICES), sign), VECTOR)
        return builder.select(builder.fcmp_ordered("<", magnitude, ulp_is_one), signed, a)

    def polynomial(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        """Coefficients from the lowest power up, by Horner's rule."""
        value = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.constant(coefficient))
        return value

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any) -> Iterator[Any]:
        """A counting loop; yields the index, a 64-bit integer."""
        with cgutils.for_range_slice(
            self.builder, start, stop, INT(step) if isinstance(step, int) else step, intp=INT
        ) as (index, _):
            yield index

    def rows(self, count: Any, group: int, body: Callable[[Any, int], None]) -> None:
        """Run `body(first, rows)` for groups of `group` rows, then for the rest one by one."""
        whole = self.builder.sub(count, self.builder.urem(count, INT(group)))
        with self.loop(INT(0), whole, group) as row:
            body(row, group)
        with self.loop(whole, count, 1) as row:
            body(row, 1)

    def blocks(self, count: Any, body: Callable[[Any, Any], None]) -> None:
        """Run `body(offset, mask)` for every LANES of `count` values; only a last, short block has a mask."""
        whole = self.builder.and_(count, INT(-LANES))
        with self.loop(INT(0), whole, LANES) as offset:
            body(offset, None)
        rest = self.builder.sub(count, whole)
        with self.builder.if_then(self.builder.icmp_signed(">", rest, INT(0))):
            body(whole, self.mask(rest))


def _control_word(builder: Any, name: str, word: Any) -> None:
    signature = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(word, ir.IntType(8).as_pointer())])


@intrinsic
def flush_denormals(typing: Any) -> Any:
    """Let denormal numbers count as zero on this thread, where that is faster (x86); returns what to restore."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not is_x86(_TRIPLE):
            return INT32(0)
        word = cgutils.alloca_once(builder, INT32)
        _control_word(builder, "stmxcsr", word)
        before = builder.load(word)
        builder.store(builder.or_(before, INT32(0x8040)), word)  # flush to zero, denormals are zero
        _control_word(builder, "ldmxcsr", word)
        return before

    return types.int32(), generate


@intrinsic
def restore_denormals(typing: Any, before: Any) -> Any:
    """Undo `flush_denormals`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if is_x86(_TRIPLE):
            word = cgutils.alloca_once(builder, INT32)
            builder.store(args[0], word)
            _control_word(builder, "ldmxcsr", word)
        return context.get_dummy_value()

    return types.void(types.int32), generate


@intrinsic
def copy_values(typing: Any, target: Any, target_at: Any, source: Any, source_at: Any, count: Any) -> Any:
    """target[target_at : + count] = source[source_at : + count]; the two do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emitter(context, builder)
        to = emit.pointer(signature.args[0], args[0], args[1])
        came_from = emit.pointer(signature.args[2], args[2], args[3])
        cgutils.raw_memcpy(builder, to, came_from, args[4], 4)
        return context.get_dummy_value()

    return types.void(target, target_at, source, source_at, count), generate


@intrinsic
def values_at(typing: Any, address: Any, count: Any, kind: Any) -> Any:
    """`count` values of the type `kind` at a memory address, which must outlive them, as an array; none is copied."""
    array_type = types.Array(kind.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(array_type)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        populate_array(
            array,
            data=builder.inttoptr(args[0], array.data.type),
            shape=[args[1]],
            strides=[INT(size)],
            itemsize=INT(size),
            meminfo=None,
        )
        return array._getvalue()

    return array_type(types.int64, types.int64, kind), generate
