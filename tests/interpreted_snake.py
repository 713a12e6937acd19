"""Snake's Triton kernels against the reference; run by test_triton_interpreter.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from streamcodec_kernels.snake._triton import snake, snake_backward  # noqa: E402
from streamcodec_kernels.snake.gradient_reference import snake_gradients  # noqa: E402
from streamcodec_kernels.snake.reference import snake as reference  # noqa: E402

TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
SHAPES = [(1, 1), (64, 24), (129, 32), (33, 100), (5, 256), (1100, 3)]


def drawn(rows: int, channels: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(rows * 1000 + channels)
    x = 3 * torch.randn(rows, channels, generator=source)
    alpha = torch.rand(channels, generator=source) * 3 + 0.05
    return x.to(dtype), alpha.to(dtype), torch.randn(rows, channels, generator=source).to(dtype)


def poisoned(like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(like, float("nan"))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("rows", "channels"), SHAPES)
def test_forward_and_backward_equal_the_reference(rows: int, channels: int, dtype: torch.dtype) -> None:
    x, alpha, grad = drawn(rows, channels, dtype)
    out, grad_x = poisoned(x), poisoned(x)
    snake(x, alpha, out)
    grad_alpha = snake_backward(x, alpha, grad, grad_x)
    plain = [t.float().numpy() for t in (x, alpha, grad)]
    expected = reference(*plain[:2])
    by_x, by_alpha = snake_gradients(*plain)
    assert np.abs(out.float().numpy() - expected).max() <= TOLERANCE[dtype] * max(1, np.abs(expected).max())
    assert np.abs(grad_x.float().numpy() - by_x).max() <= TOLERANCE[dtype] * max(1, np.abs(by_x).max())
    assert np.allclose(grad_alpha.numpy(), by_alpha, atol=3e-5 * np.abs(by_alpha).max(), rtol=1e-5)


def test_angles_are_reduced_well_up_to_ten_thousand_and_bounded_beyond() -> None:
    x = torch.tensor([[0.0, -0.0, 1e-20, 1.0, 1234.5, -9999.0, 1e8, -3e30]]).T.contiguous()
    alpha, out = torch.ones(1), poisoned(x)
    snake(x, alpha, out)
    expected = reference(x.numpy(), alpha.numpy())
    assert np.allclose(out[:6].numpy(), expected[:6], rtol=1e-6, atol=1e-6)
    assert torch.isfinite(out).all()
    assert ((out - x)[6:].abs() <= 1.0 + 1e-7 * x[6:].abs()).all()


def test_in_place_equals_out_of_place() -> None:
    x, alpha, _ = drawn(65, 32, torch.float32)
    out = poisoned(x)
    snake(x, alpha, out)
    snake(x, alpha, x)
    assert torch.equal(x, out)


def test_the_gradient_by_alpha_has_the_same_bits_every_time() -> None:
    x, alpha, grad = drawn(1000, 32, torch.float32)
    first = snake_backward(x, alpha, grad, torch.empty_like(x))
    assert torch.equal(first, snake_backward(x, alpha, grad, torch.empty_like(x)))


def test_no_rows_are_no_work() -> None:
    x, alpha = torch.empty(0, 16), torch.ones(16)
    snake(x, alpha, torch.empty_like(x))
    assert torch.equal(snake_backward(x, alpha, x, torch.empty_like(x)), torch.zeros(16))
