"""The training kernel against its specification, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

from streamcodec_kernels.snake_depthwise_snake import _numba
from streamcodec_kernels.snake_depthwise_snake.reference import forward as specified

torch = pytest.importorskip("torch", reason="gradients are checked by torch's autograd")

from streamcodec_kernels.snake_depthwise_snake import autograd  # noqa: E402

CASES = [  # clips, rows, channels, kernel, dilation
    (1, 1, 1, 1, 1),
    (2, 37, 1, 7, 9),
    (3, 5, 5, 3, 3),
    (1, 13, 3, 7, 1),
    (2, 1100, 1, 4, 2),
    (1, 71, 48, 7, 3),
    (2, 3, 1000, 2, 1),
    (1, 5, 1024, 7, 1),
    (2, 3, 4, 7, 9),
]


def drawn(clips: int, rows: int, channels: int, kernel: int) -> list[np.ndarray]:
    """x, alpha_in, weight, bias, alpha_out in float64, each exact in float32 too."""
    rng = np.random.default_rng(rows * channels + kernel)
    arrays = [
        rng.standard_normal((clips, rows, channels)),
        np.exp(rng.standard_normal(channels)),
        rng.standard_normal((kernel, channels)),
        rng.standard_normal(channels),
        np.exp(rng.standard_normal(channels)),
    ]
    return [array.astype(np.float32).astype(np.float64) for array in arrays]


def exact(x, alpha_in, weight, bias, alpha_out, dilation):
    """The same written with torch, so that autograd gives its gradients."""
    u = x + torch.sin(alpha_in * x).square() / alpha_in
    past = (weight.shape[0] - 1) * dilation
    u = torch.cat([torch.zeros(x.shape[0], past, x.shape[2], dtype=x.dtype), u], 1)
    v = bias + sum(weight[j] * u[:, j * dilation : j * dilation + x.shape[1]] for j in range(weight.shape[0]))
    return v + torch.sin(alpha_out * v).square() / alpha_out


def assert_close(got: np.ndarray, wanted: np.ndarray, what: str, terms: int = 1) -> None:
    """Compare; a sum of many `terms` of either sign may be off by what rounding each of them leaves."""
    error, scale = np.abs(got - wanted).max(), np.abs(wanted).max()
    assert error <= 1e-5 * max(scale, terms**0.5), f"{what} is off by {error} of {scale}"


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_its_specification(case: tuple[int, ...]) -> None:
    arrays, dilation = drawn(*case[:4]), case[4]
    y_wanted, v_wanted = specified(*arrays, dilation)
    single = [array.astype(np.float32) for array in arrays]
    v, y = (np.full(arrays[0].shape, np.nan, np.float32) for _ in range(2))
    before = [array.copy() for array in single]
    _numba.forward(*single, dilation, v, y)
    assert_close(v, v_wanted, "v")
    assert_close(y, y_wanted, "y")
    assert all(np.array_equal(a, b) for a, b in zip(single, before, strict=True)), "an input was written to"


@pytest.mark.parametrize("case", CASES)
def test_backward_equals_float64_autograd(case: tuple[int, ...]) -> None:
    arrays, dilation = drawn(*case[:4]), case[4]
    y, v = specified(*arrays, dilation)
    grad_y = np.random.default_rng(9).standard_normal(y.shape).astype(np.float32)
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
    made = exact(*leaves, dilation)
    assert_close(made.detach().numpy(), y, "the test's own formula")
    made.backward(torch.from_numpy(grad_y).double())
    x, *constants = (array.astype(np.float32) for array in arrays)
    grad_x = np.full(x.shape, np.nan, np.float32)
    sums = [np.full(array.shape, np.nan) for array in constants]
    _numba.backward(grad_y, x, v.astype(np.float32), *constants, dilation, grad_x, *sums)
    for name, got, leaf in zip(("x", "alpha_in", "weight", "bias", "alpha_out"), (grad_x, *sums), leaves, strict=True):
        assert_close(got, leaf.grad.numpy(), f"gradient of {name}", case[0] * case[1])


@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (1025, 1), (70, 48), (3, 1000), (2, 1024)])
def test_lone_snake_equals_float64_autograd(rows: int, channels: int) -> None:
    x64, alpha64, *_ = (torch.from_numpy(array).requires_grad_() for array in drawn(1, rows, channels, 1))
    x, alpha = (leaf.detach().float().requires_grad_() for leaf in (x64, alpha64))
    wanted = x64 + torch.sin(alpha64 * x64).square() / alpha64
    got = autograd.snake(x, alpha)
    assert_close(got.detach().numpy(), wanted.detach().numpy(), "y")
    weight = torch.from_numpy(np.random.default_rng(5).standard_normal(got.shape))
    wanted.backward(weight)
    got.backward(weight.float())
    assert_close(x.grad.numpy(), x64.grad.numpy(), "gradient of x")
    assert_close(alpha.grad.numpy(), alpha64.grad.numpy(), "gradient of alpha", rows)


def test_snake_of_large_and_tiny_values_keeps_its_precision() -> None:
    x = np.array([[0.0, 1e-20, -1e-6, 3e2, -3e2, 5e3]], np.float32).T.copy()
    alpha = np.array([1.0], np.float32)
    y = np.full_like(x, np.nan)
    _numba.snake_forward(x, alpha, y)
    wanted = x.astype(np.float64) + np.sin(x.astype(np.float64)) ** 2
    assert np.all(np.abs(y - wanted) <= 2e-6 + 3e-7 * np.abs(x))


def test_what_is_not_contiguous_gives_the_same_values_and_gradients() -> None:
    arrays = [torch.from_numpy(array).float() for array in drawn(2, 9, 4, 3)]
    x = arrays[0].transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    same = arrays[0].clone().requires_grad_()
    grad = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    made, wanted = (autograd.snake_depthwise_snake(leaf, *arrays[1:], 2) for leaf in (x, same))
    assert torch.equal(made, wanted)
    made.backward(grad)
    wanted.backward(grad.contiguous())
    assert torch.equal(x.grad, same.grad)


def test_what_the_kernels_cannot_take_is_refused_clearly() -> None:
    wide = torch.zeros(1, 2, 1025)
    ones = torch.ones(1025)
    with pytest.raises(ValueError, match="1025 channels; these kernels take 1 to 1024"):
        autograd.snake(wide, ones)
    with pytest.raises(ValueError, match="1025 channels"):
        autograd.snake_depthwise_snake(wide, ones, torch.zeros(7, 1025), ones, ones, 1)
    with pytest.raises(ValueError, match="x is float64"):
        autograd.snake(torch.zeros(1, 2, 3, dtype=torch.float64), torch.ones(3))
