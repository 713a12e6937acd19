"""The loop over the table, and the two calls that a stream makes: one compilation serves every network."""

from __future__ import annotations

from typing import Any

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import copy_values, jit
from streamcodec_kernels.code_lookup._numba import lookup_codes
from streamcodec_kernels.conv._numba import tap_products, windows_step
from streamcodec_kernels.nearest_code._numba import nearest_codes
from streamcodec_kernels.program.layout import COLUMN, RESIDUAL, TANH
from streamcodec_kernels.residual_unit._numba import residual_unit_step
from streamcodec_kernels.tanh._numba import tanh_values

_OP = COLUMN["OP"]
_SOURCE = COLUMN["SOURCE"]
_TARGET = COLUMN["TARGET"]
_SEEN = COLUMN["SEEN"]
_BLOCK = COLUMN["BLOCK"]
_ROWS_IN = COLUMN["ROWS_IN"]
_CHANNELS_IN = COLUMN["CHANNELS_IN"]
_ROWS_OUT = COLUMN["ROWS_OUT"]
_COLUMNS_OUT = COLUMN["COLUMNS_OUT"]
_HISTORY = COLUMN["HISTORY"]
_STATE = COLUMN["STATE"]
_SNAKE = COLUMN["SNAKE"]
_WEIGHT = COLUMN["WEIGHT"]
_BIAS = COLUMN["BIAS"]
_ZEROS = COLUMN["ZEROS"]
_FIRST = COLUMN["FIRST"]
_STEP = COLUMN["STEP"]
_DEPTH = COLUMN["DEPTH"]
_TAPS = COLUMN["TAPS"]
_TAP_STEP = COLUMN["TAP_STEP"]
_TAP_WEIGHTS = COLUMN["TAP_WEIGHTS"]
_ACCUMULATE = COLUMN["ACCUMULATE"]
_KERNEL = COLUMN["KERNEL"]
_DILATION = COLUMN["DILATION"]
_BLOCK_ROWS = COLUMN["BLOCK_ROWS"]
_DEPTHWISE = COLUMN["DEPTHWISE"]
_DEPTHWISE_BIAS = COLUMN["DEPTHWISE_BIAS"]
_SNAKE2 = COLUMN["SNAKE2"]


@jit
def _run(table: Any, scratch: Any, state: Any, weights: Any) -> None:
    for i in range(table.shape[0]):
        op = table[i]
        if op[_OP] == RESIDUAL:
            residual_unit_step(
                scratch,
                op[_SOURCE],
                op[_SEEN],
                op[_BLOCK],
                op[_ROWS_IN],
                op[_CHANNELS_IN],
                op[_KERNEL],
                op[_DILATION],
                op[_BLOCK_ROWS],
                state,
                op[_STATE],
                weights,
                op[_SNAKE],
                op[_DEPTHWISE],
                op[_DEPTHWISE_BIAS],
                op[_SNAKE2],
                op[_WEIGHT],
                op[_BIAS],
            )
        elif op[_OP] == TANH:
            tanh_values(scratch, op[_SOURCE], op[_ROWS_IN] * op[_CHANNELS_IN])
        else:
            windows_step(
                scratch,
                op[_SOURCE],
                op[_ROWS_IN] * op[_CHANNELS_IN],
                op[_CHANNELS_IN],
                op[_SEEN],
                op[_HISTORY],
                state,
                op[_STATE],
                weights,
                op[_SNAKE],
            )
            tap_products(
                scratch,
                op[_SEEN] + op[_FIRST],
                op[_STEP],
                op[_ROWS_OUT],
                weights,
                op[_WEIGHT],
                op[_DEPTH],
                op[_COLUMNS_OUT],
                op[_BIAS],
                op[_TARGET],
                op[_ACCUMULATE] != 0,
                op[_TAPS],
                op[_TAP_STEP],
                op[_TAP_WEIGHTS],
                op[_ZEROS],
            )


@cached_jit
def encode(
    frames: Any,
    states: Any,
    codes: Any,
    table: Any,
    weights: Any,
    scratch: Any,
    latent: int,
    size: int,
    dimension: int,
    books_at: int,
    query_at: int,
) -> None:
    """Encode one frame of each stream: frames [B, hop], states [B, values], codes [B, K], written."""
    for b in range(frames.shape[0]):
        copy_values(scratch, 0, frames[b], 0, frames.shape[1])
        _run(table, scratch, states[b], weights)
        nearest_codes(scratch, 0, query_at, latent, size, dimension, weights, books_at, codes[b])


@cached_jit
def decode(
    codes: Any,
    states: Any,
    frames: Any,
    table: Any,
    weights: Any,
    scratch: Any,
    latent: int,
    size: int,
    dimension: int,
    books_at: int,
) -> bool:
    """Decode one frame of each stream, codes [B, K] to frames [B, hop]; false, and nothing done, if a code is none."""
    for b in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            if codes[b, k] < 0 or codes[b, k] >= size:
                return False
    for b in range(codes.shape[0]):
        lookup_codes(codes[b], scratch, 0, latent, size, dimension, weights, books_at)
        _run(table, scratch, states[b], weights)
        copy_values(frames[b], 0, scratch, 0, frames.shape[1])
    return True
