"""The loop over the table: one compilation serves every network."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamcodec_kernels._cache import cached_jit
from streamcodec_kernels._simd import copy_values, flush_denormals, inline_jit, restore_denormals, values_at
from streamcodec_kernels.beam_search._numba import beam_codes
from streamcodec_kernels.code_lookup._numba import lookup_codes
from streamcodec_kernels.conv._numba import tap_products, windows_step
from streamcodec_kernels.nearest_code._numba import nearest_codes
from streamcodec_kernels.program.layout import COLUMN, COLUMNS, GROUP_STREAMS, RESIDUAL, SETTING, SETTINGS, TANH
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
_HALF = COLUMN["HALF"]
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

_STREAM = SETTING["STREAM"]
_ACTIVATION = SETTING["ACTIVATION"]
_QUERY = SETTING["QUERY"]
_BEAM = SETTING["BEAM"]
_LATENT = SETTING["LATENT"]
_CODES = SETTING["CODES"]
_DIMENSION = SETTING["DIMENSION"]
_BOOKS = SETTING["BOOKS"]
_GUIDES = SETTING["GUIDES"]
_OPERATIONS = SETTING["OPERATIONS"]
_TABLE_ADDRESS = SETTING["TABLE_ADDRESS"]
_WEIGHTS_ADDRESS = SETTING["WEIGHTS_ADDRESS"]
_WEIGHTS_VALUES = SETTING["WEIGHTS_VALUES"]
_HALF_WEIGHTS_ADDRESS = SETTING["HALF_WEIGHTS_ADDRESS"]
_HALF_WEIGHTS_VALUES = SETTING["HALF_WEIGHTS_VALUES"]

_WIDTH = len(COLUMNS)
_SETTING_COUNT = len(SETTINGS)


@inline_jit
def _residual_units(op: Any, scratch: Any, states: Any, weights: Any, streams: int, stream_step: int) -> None:
    for stream in range(streams):
        residual_unit_step(
            scratch,
            op[_SOURCE] + stream * stream_step,
            op[_SEEN],
            op[_BLOCK],
            op[_ROWS_IN],
            op[_CHANNELS_IN],
            op[_KERNEL],
            op[_DILATION],
            op[_BLOCK_ROWS],
            states[stream],
            op[_STATE],
            weights,
            op[_SNAKE],
            op[_DEPTHWISE],
            op[_DEPTHWISE_BIAS],
            op[_SNAKE2],
            op[_WEIGHT],
            op[_BIAS],
        )


@inline_jit
def _products(op: Any, scratch: Any, matrix: Any, weights: Any, streams: int, stream_step: int) -> None:
    tap_products(
        scratch,
        op[_SEEN] + op[_FIRST],
        op[_STEP],
        op[_ROWS_OUT],
        matrix,
        op[_WEIGHT],
        op[_DEPTH],
        op[_COLUMNS_OUT],
        weights,
        op[_BIAS],
        op[_ZEROS],
        op[_TARGET],
        op[_ACCUMULATE] != 0,
        op[_TAPS],
        op[_TAP_STEP],
        op[_TAP_WEIGHTS],
        streams,
        stream_step,
        stream_step,
    )


@inline_jit
def _layer(op: Any, weights: Any, half_weights: Any, scratch: Any, states: Any, streams: int, stream_step: int) -> None:
    if op[_OP] == RESIDUAL:
        _residual_units(op, scratch, states, weights, streams, stream_step)
    elif op[_OP] == TANH:
        for stream in range(streams):
            tanh_values(scratch, op[_SOURCE] + stream * stream_step, op[_ROWS_IN] * op[_CHANNELS_IN])
    else:
        for stream in range(streams):
            windows_step(
                scratch,
                op[_SOURCE] + stream * stream_step,
                op[_ROWS_IN] * op[_CHANNELS_IN],
                op[_CHANNELS_IN],
                op[_SEEN] + stream * stream_step,
                op[_HISTORY],
                states[stream],
                op[_STATE],
                weights,
                op[_SNAKE],
            )
        if op[_HALF]:
            _products(op, scratch, half_weights, weights, streams, stream_step)
        else:
            _products(op, scratch, weights, weights, streams, stream_step)


@cached_jit
def step(
    is_encoder: bool, frames: Any, states: Any, codes: Any, settings_at: int, scratch_at: int, scratch_values: int
) -> bool:
    """Advance streams by one frame: frames [B, hop] to codes [B, K], or the other way.

    False, and nothing done, if a code to decode is none.  Two directions in one function, so that the kernels are
    compiled once.  Streams go through the network GROUP_STREAMS at a time.  Settings and scratch go by address: Numba
    would allocate a handle for every array it is given.
    """
    settings = values_at(settings_at, _SETTING_COUNT, np.int64)
    scratch = values_at(scratch_at, scratch_values, np.float32)
    operations = settings[_OPERATIONS]
    table = values_at(settings[_TABLE_ADDRESS], operations * _WIDTH, np.int64)
    weights = values_at(settings[_WEIGHTS_ADDRESS], settings[_WEIGHTS_VALUES], np.float32)
    half_weights = values_at(settings[_HALF_WEIGHTS_ADDRESS], settings[_HALF_WEIGHTS_VALUES], np.uint16)
    stream_step, start, books_at = settings[_STREAM], settings[_ACTIVATION], settings[_BOOKS]
    latent, size, dimension = settings[_LATENT], settings[_CODES], settings[_DIMENSION]
    if not is_encoder:
        for stream in range(codes.shape[0]):
            for k in range(codes.shape[1]):
                if codes[stream, k] < 0 or codes[stream, k] >= size:
                    return False
    control_word = flush_denormals()
    for first in range(0, frames.shape[0], GROUP_STREAMS):
        streams = min(GROUP_STREAMS, frames.shape[0] - first)
        some_frames, some_states = frames[first : first + streams], states[first : first + streams]
        some_codes = codes[first : first + streams]
        for stream in range(streams):
            at = start + stream * stream_step
            if is_encoder:
                copy_values(scratch, at, some_frames[stream], 0, frames.shape[1])
            else:
                lookup_codes(some_codes[stream], scratch, at, latent, size, dimension, weights, books_at)
        for i in range(operations):
            op = table[i * _WIDTH : (i + 1) * _WIDTH]
            _layer(op, weights, half_weights, scratch, some_states, streams, stream_step)
        if is_encoder:
            query_at = settings[_QUERY]
            nearest_codes(scratch, start, query_at, stream_step, latent, size, dimension, weights, books_at, some_codes)
        else:
            for stream in range(streams):
                copy_values(some_frames[stream], 0, scratch, start + stream * stream_step, frames.shape[1])
    restore_denormals(control_word)
    return True


@cached_jit
def beam_step(codes: Any, beam: int, settings_at: int, scratch_at: int, scratch_values: int) -> None:
    """Fill codes [B, K] by a beam search of the latents that `step`, given codes [B, 0], has left in scratch.

    B is at most GROUP_STREAMS.  A function of its own, compiled where it is first called: few encoders use it.
    """
    settings = values_at(settings_at, _SETTING_COUNT, np.int64)
    scratch = values_at(scratch_at, scratch_values, np.float32)
    weights = values_at(settings[_WEIGHTS_ADDRESS], settings[_WEIGHTS_VALUES], np.float32)
    control_word = flush_denormals()
    for stream in range(codes.shape[0]):
        beam_codes(
            scratch,
            settings[_ACTIVATION] + stream * settings[_STREAM],
            settings[_BEAM],
            beam,
            settings[_LATENT],
            settings[_CODES],
            settings[_DIMENSION],
            weights,
            settings[_BOOKS],
            settings[_GUIDES],
            codes[stream],
        )
    restore_denormals(control_word)
