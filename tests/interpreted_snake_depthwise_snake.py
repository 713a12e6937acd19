"""The fused training kernels against the reference; run by test_triton_interpreter.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from streamcodec_kernels.snake_depthwise_snake import _triton, reference  # noqa: E402

CASES = [
    (torch.float32, 1, 1, 1, 1),
    (torch.float32, 2, 37, 16, 1),
    (torch.float32, 1, 60, 24, 3),
    (torch.float32, 1, 23, 40, 9),
    (torch.bfloat16, 1, 20, 8, 1),
]


def drawn(batch: int, rows: int, channels: int) -> list[torch.Tensor]:
    """x, alpha_in, weight, bias, alpha_out and grad_y."""
    source = torch.Generator().manual_seed(batch + 10 * rows + channels)
    x, grad = (torch.randn(batch, rows, channels, generator=source) for _ in range(2))
    alphas = [torch.rand(channels, generator=source) * 2 + 0.1 for _ in range(2)]
    weight, bias = 0.4 * torch.randn(7, channels, generator=source), 0.1 * torch.randn(channels, generator=source)
    return [x, alphas[0], weight, bias, alphas[1], grad]


def written_out(x: torch.Tensor, a: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, b: torch.Tensor, d: int):
    """The operation in torch, for its gradients."""
    u = torch.nn.functional.pad(x + torch.sin(a * x) ** 2 / a, (0, 0, 6 * d, 0))
    v = bias + sum(w[j] * u[:, j * d : j * d + x.shape[1]] for j in range(7))
    return v + torch.sin(b * v) ** 2 / b


@pytest.mark.parametrize(("dtype", "batch", "rows", "channels", "dilation"), CASES)
def test_forward_and_backward_equal_the_reference(
    dtype: torch.dtype, batch: int, rows: int, channels: int, dilation: int
) -> None:
    x, *constants, grad = drawn(batch, rows, channels)
    x, grad = x.to(dtype), grad.to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    y, grad_x = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
    _triton.forward(x, *constants, dilation, y)
    sums = _triton.backward(grad, x, *constants, dilation, grad_x)
    expected, _ = reference.forward(x.double().numpy(), *(c.double().numpy() for c in constants), dilation)
    assert np.abs(y.double().numpy() - expected).max() <= tolerance * np.abs(expected).max()
    inputs = [t.double().requires_grad_() for t in (x, *constants)]
    written_out(*inputs, dilation).backward(grad.double())
    for got, wanted in zip((grad_x, *sums), (t.grad for t in inputs), strict=True):
        assert got.shape == wanted.shape
        assert (got.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_long_lanes_equal_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    x, *constants, grad = drawn(1, 70, 8)
    results = []
    for steps in (16, 64):
        monkeypatch.setattr(_triton, "steps_for", lambda rows, dilation, steps=steps: steps)
        y, grad_x = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
        _triton.forward(x, *constants, 1, y)
        results.append([y, grad_x, *_triton.backward(grad, x, *constants, 1, grad_x)])
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


def test_no_rows_are_no_work() -> None:
    _, *constants, _ = drawn(1, 1, 8)
    x = torch.empty(2, 0, 8)
    _triton.forward(x, *constants, 1, torch.empty_like(x))
    sums = _triton.backward(x, x, *constants, 1, torch.empty_like(x))
    assert all((each == 0).all() for each in sums)
