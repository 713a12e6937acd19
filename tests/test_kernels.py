"""Every kernel equals its reference on drawn shapes, and leaves the state that the reference leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcodec_kernels.code_lookup._numba import code_lookup
from streamcodec_kernels.code_lookup.reference import code_lookup as code_lookup_reference
from streamcodec_kernels.conv._numba import conv
from streamcodec_kernels.conv.reference import conv as conv_reference
from streamcodec_kernels.conv_transpose._numba import conv_transpose
from streamcodec_kernels.conv_transpose.reference import conv_transpose as conv_transpose_reference
from streamcodec_kernels.matmul._numba import matmul
from streamcodec_kernels.matmul._tile import PANEL
from streamcodec_kernels.matmul.reference import matmul as matmul_reference
from streamcodec_kernels.nearest_code._numba import nearest_code
from streamcodec_kernels.nearest_code.reference import nearest_code as nearest_code_reference
from streamcodec_kernels.residual_unit._numba import residual_unit
from streamcodec_kernels.residual_unit.reference import residual_unit as residual_unit_reference
from streamcodec_kernels.snake._numba import snake
from streamcodec_kernels.snake.reference import snake as snake_reference
from streamcodec_kernels.tanh._numba import tanh
from streamcodec_kernels.tanh.reference import tanh as tanh_reference

drawn = settings(max_examples=40, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
channels = st.one_of(st.integers(1, 40), st.sampled_from([64, 100]))
kernels = st.sampled_from([1, 2, 3, 4, 7])


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def poisoned(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


@drawn
@given(st.integers(1, 30), channels, seeds, st.sampled_from([1e-6, 1.0, 30.0, 3000.0]))
def test_snake_keeps_its_error_bound(rows: int, width: int, seed: int, scale: float) -> None:
    x, alpha = scale * normal(seed, rows, width), np.exp(normal(seed + 1, width))
    out = poisoned(rows, width)
    snake(x, alpha, out)
    bound = (1e-6 + 2.5e-7 * np.abs(alpha * x)) / alpha + 1e-7 * np.abs(x)
    assert np.all(np.abs(out - snake_reference(x, alpha)) <= bound)


def test_snake_works_in_place_and_passes_on_what_is_not_finite() -> None:
    x = np.array([[0.0, 1.0, np.inf, np.nan]], np.float32)
    expected = snake_reference(x[:, :2], np.ones(2, np.float32))
    snake(x, np.ones(4, np.float32), x)
    np.testing.assert_allclose(x[:, :2], expected, atol=2e-6)
    assert np.isnan(x[0, 3])


@drawn
@given(st.integers(1, 100), seeds, st.sampled_from([1e-30, 1e-3, 1.0, 20.0, 1e30]))
def test_tanh_is_within_3e_7(count: int, seed: int, scale: float) -> None:
    x, out = np.float32(scale) * normal(seed, count), poisoned(count)
    tanh(x, out)
    np.testing.assert_allclose(out, tanh_reference(x), rtol=0, atol=3e-7)


@drawn
@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 80), st.integers(1, 140), st.integers(0, 90), seeds)
def test_matmul_equals_window_by_window(
    streams: int, rows: int, depth: int, columns: int, step: int, seed: int
) -> None:
    x = normal(seed, streams, (rows - 1) * step + depth)
    weight, bias = normal(seed + 1, depth, columns), normal(seed, columns)
    expected = np.stack([matmul_reference(one, step, rows, weight, bias) for one in x])
    out = poisoned(streams, rows, columns)
    matmul(x, step, weight, bias, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 * depth**0.5)
    matmul(x, step, weight, bias, out, accumulate=True)
    np.testing.assert_allclose(out, 2 * expected, rtol=1e-5, atol=2e-5 * depth**0.5)


@drawn
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 80), st.integers(1, 9), seeds)
def test_matmul_with_float16_weights_rounds_nothing_else(
    streams: int, rows: int, depth: int, panels: int, seed: int
) -> None:
    x, weight = normal(seed, streams, rows * depth), normal(seed + 1, depth, panels * PANEL).astype(np.float16)
    whole, half = poisoned(streams, rows, panels * PANEL), poisoned(streams, rows, panels * PANEL)
    bias = normal(seed, panels * PANEL)
    matmul(x, depth, weight.astype(np.float32), bias, whole)
    matmul(x, depth, weight, bias, half)
    np.testing.assert_array_equal(half, whole)


@drawn
@given(st.integers(1, 12), channels, channels, kernels, st.integers(1, 8), st.sampled_from([1, 2, 3, 9]), seeds)
def test_conv_equals_tap_by_tap(
    blocks: int, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, seed: int
) -> None:
    x, weight, bias = normal(seed, blocks * stride, inputs), normal(seed, kernel, inputs, outputs), normal(1, outputs)
    state = normal(seed + 1, max(0, (kernel - 1) * dilation + 1 - stride), inputs)
    expected, expected_state = conv_reference(x, weight, bias, stride, dilation, state)
    out = poisoned(blocks, outputs)
    conv(x, weight, bias, stride, dilation, state, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=3e-4)
    np.testing.assert_array_equal(state, expected_state)


@drawn
@given(st.integers(1, 12), channels, st.integers(1, 40), st.integers(1, 17), st.integers(1, 8), seeds)
def test_transposed_conv_equals_overlap_add(
    rows: int, inputs: int, outputs: int, kernel: int, stride: int, seed: int
) -> None:
    x, weight, bias = normal(seed, rows, inputs), normal(seed, inputs, kernel, outputs), normal(1, outputs)
    state = normal(seed + 1, -(-kernel // stride) - 1, inputs)
    expected, expected_state = conv_transpose_reference(x, weight, bias, stride, state)
    out = poisoned(rows * stride, outputs)
    conv_transpose(x, weight, bias, stride, state, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=3e-4)
    np.testing.assert_array_equal(state, expected_state)


@drawn
@given(st.integers(1, 90), channels, kernels, st.sampled_from([1, 2, 3, 9]), seeds)
def test_residual_unit_equals_tap_by_tap(rows: int, width: int, kernel: int, dilation: int, seed: int) -> None:
    x, depthwise, mix = normal(seed, rows, width), normal(seed, kernel, width), normal(seed, width, width)
    alpha1, alpha2 = np.exp(0.5 * normal(2, 2, width))
    state = normal(seed + 1, (kernel - 1) * dilation, width)
    arguments = (x, alpha1, depthwise, normal(3, width), dilation, alpha2, mix, normal(4, width), state)
    expected, expected_state = residual_unit_reference(*arguments)
    out = poisoned(rows, width)
    residual_unit(*arguments, out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=3e-4)
    np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=1e-5)


def books(seed: int, count: int, size: int, dimension: int, latent: int) -> tuple[np.ndarray, ...]:
    codebook = normal(seed, count, size, dimension)
    codebook /= np.linalg.norm(codebook, axis=-1, keepdims=True)
    return (
        normal(seed + 1, count, latent, dimension),
        normal(seed + 2, count, dimension),
        codebook,
        normal(seed + 3, count, dimension, latent),
        normal(seed + 4, count, latent),
    )


@drawn
@given(
    st.integers(1, 5),
    st.sampled_from([2, 8, 16, 64, 1024]),
    st.integers(1, 20),
    st.integers(1, 70),
    st.integers(0, 999),
)
def test_nearest_code_walks_the_whole_chain(count: int, size: int, dimension: int, latent: int, seed: int) -> None:
    arrays = books(seed, count, size, dimension, latent)
    vector, codes = normal(seed + 5, latent), np.full(count, -1, np.int16)
    nearest_code(vector, *arrays, codes)
    if dimension > 1:  # one dimension has ties by nature, broken by the rounding of the reference
        np.testing.assert_array_equal(codes, nearest_code_reference(vector, *arrays))


@pytest.mark.parametrize("size", [2, 8, 16, 64, 1024])
def test_ties_go_to_the_lowest_index(size: int) -> None:
    in_weight, in_bias, codebook, out_weight, out_bias = books(0, 2, size, 4, 8)
    codebook[:, size // 2 - 1 :] = codebook[:, size // 2 - 1 : size // 2]
    codes = np.full(2, -1, np.int16)
    for seed in range(40):
        nearest_code(normal(seed, 8), in_weight, in_bias, codebook, out_weight, out_bias, codes)
        assert np.all(codes < max(1, size // 2))
    nearest_code(np.zeros(8, np.float32), in_weight, 0 * in_bias, codebook, out_weight, 0 * out_bias, codes)
    assert codes[0] == 0


def test_nearest_code_of_nan_is_a_valid_code() -> None:
    codes = np.full(3, -1, np.int16)
    nearest_code(np.full(8, np.nan, np.float32), *books(0, 3, 16, 4, 8), codes)
    np.testing.assert_array_equal(codes, 0)


@drawn
@given(st.integers(0, 5), st.sampled_from([2, 64]), st.integers(1, 20), st.integers(1, 70), st.integers(0, 999))
def test_code_lookup_sums_the_projected_codes(count: int, size: int, dimension: int, latent: int, seed: int) -> None:
    _, _, codebook, out_weight, out_bias = books(seed, 5, size, dimension, latent)
    codes = np.random.default_rng(seed).integers(0, size, count).astype(np.int16)
    out = poisoned(latent)
    code_lookup(codes, codebook, out_weight, out_bias, out)
    np.testing.assert_allclose(out, code_lookup_reference(codes, codebook, out_weight, out_bias), atol=3e-5)
