"""Snake's Triton kernels: machine code for cards that are not here, and training through autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from cubins import TARGETS, assert_fits, usage  # noqa: E402

from streamcodec_kernels.snake.autograd import snake  # noqa: E402
from streamcodec_kernels.snake.gradient_reference import snake_gradients  # noqa: E402
from streamcodec_kernels.snake.reference import snake as reference  # noqa: E402

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def drawn(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(sum(shape))
    x, grad = (2 * torch.randn(*shape, generator=source) for _ in range(2))
    alpha = torch.rand(shape[-1], generator=source) * 3 + 0.05
    return [t.to(device=device, dtype=dtype) for t in (x, alpha, grad)]


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("pointer", POINTERS.values())
def test_every_configuration_compiles_without_spills(capability: int, pointer: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton kernels need triton")
    from streamcodec_kernels.snake import _triton

    arrays = dict.fromkeys(("x_ptr", "out_ptr", "grad_out_ptr", "grad_x_ptr"), pointer)
    types = {**arrays, "alpha_ptr": "*fp32", "partial_ptr": "*fp32", "rows": "i32"}
    for channels, configs in ((24, _triton.FORWARD_CONFIGS[:1]), (128, _triton.FORWARD_CONFIGS)):
        widths = {"channels": channels, "block_c": _triton.channel_block(channels)}
        for config in configs:
            constants = {**widths, **config.kwargs}
            forward = {name: type_ for name, type_ in types.items() if name in _triton.forward_kernel.arg_names}
            assert_fits(
                usage(_triton.forward_kernel, forward, constants, capability, config.num_warps, tmp_path), capability
            )
        constants = {**widths, "tile": _triton.BACKWARD_TILE, "tiles": _triton.BACKWARD_TILES_PER_PROGRAM}
        backward = {name: type_ for name, type_ in types.items() if name in _triton.backward_kernel.arg_names}
        assert_fits(
            usage(_triton.backward_kernel, backward, constants, capability, _triton.BACKWARD_WARPS, tmp_path),
            capability,
        )


def check_autograd(device: str, dtype: torch.dtype, tolerance: float, *shape: int) -> None:
    x, alpha, grad = drawn(*shape, dtype=dtype, device=device)
    x.requires_grad_()
    alpha.requires_grad_()
    out = snake(x, alpha)
    out.backward(grad)
    flat = [t.detach().float().cpu().numpy().reshape(-1, shape[-1]) for t in (x, grad)]
    scale = alpha.detach().float().cpu().numpy()
    by_x, by_alpha = snake_gradients(flat[0], scale, flat[1])
    assert out.dtype == x.grad.dtype == dtype
    for got, expected in ((out, reference(flat[0], scale)), (x.grad, by_x), (alpha.grad, by_alpha)):
        error = np.abs(got.detach().float().cpu().numpy().reshape(expected.shape) - expected)
        assert error.max() <= tolerance * np.abs(expected).max()


def test_snake_trains_on_the_cpu() -> None:
    check_autograd("cpu", torch.float32, 2e-6, 2, 50, 24)


def test_snake_passes_gradcheck_on_the_cpu() -> None:
    x, alpha, _ = drawn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(snake, (x.requires_grad_(), alpha.requires_grad_()))


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("shape", [(3, 24), (2, 1000, 32), (16, 12_800, 32), (16, 40, 512)])
def test_snake_trains_on_cuda(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    check_autograd("cuda", dtype, tolerance, *shape)


@no_gpu
@pytest.mark.gpu
def test_gradients_on_cuda_have_the_same_bits_every_time() -> None:
    grads = []
    for _ in range(2):
        x, alpha, grad = drawn(8, 5000, 32, device="cuda")
        alpha.requires_grad_()
        snake(x, alpha).backward(grad)
        grads.append(alpha.grad)
    assert torch.equal(*grads)


@no_gpu
@pytest.mark.gpu
def test_in_place_equals_out_of_place_on_cuda_also_while_tuning() -> None:
    from streamcodec_kernels.snake import _triton

    x, alpha, _ = drawn(700, 48, device="cuda")
    out = torch.full_like(x, float("nan"))
    inside = x.clone()
    _triton.snake(inside, alpha, inside)
    _triton.snake(x, alpha, out)
    assert torch.equal(inside, out)
