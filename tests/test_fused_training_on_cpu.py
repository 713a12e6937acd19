"""The fused training operations as the network calls them, on the CPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from interpreted_snake_depthwise_snake import drawn, written_out  # noqa: E402

from streamcodec_kernels.snake_depthwise_snake.autograd import fuses, snake, snake_depthwise_snake  # noqa: E402


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("dilation", [1, 9])
def test_training_equals_the_operations_one_by_one(dtype: torch.dtype, tolerance: float, dilation: int) -> None:
    x, *constants, grad = drawn(2, 60, 24)
    x, grad = x.to(dtype), grad.to(dtype)
    ours = [t.clone().requires_grad_() for t in (x, *constants)]
    y = snake_depthwise_snake(*ours, dilation)
    y.backward(grad)
    theirs = [t.double().requires_grad_() for t in (x, *constants)]
    expected = written_out(*theirs, dilation)
    expected.backward(grad.double())
    assert y.dtype == dtype
    for got, wanted in ((y, expected), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))):
        assert (got.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_snake_keeps_the_dtype_of_its_input(dtype: torch.dtype) -> None:
    x, alpha = drawn(2, 60, 24)[:2]
    x = x.to(dtype).requires_grad_()
    y = snake(x, alpha)
    y.float().sum().backward()
    assert y.dtype == x.grad.dtype == dtype


def test_kernels_are_only_claimed_where_they_exist() -> None:
    x = torch.zeros(1, 8, 4)
    assert fuses(x)
    assert fuses(x, taps=5)
    assert not fuses(x.double())
    assert not fuses(x.to("meta"))
    with torch.no_grad():
        assert not fuses(x)
