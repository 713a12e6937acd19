"""The fused training kernels: machine code for cards that are not here, and training on one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from cubins import TARGETS, assert_fits, compiled, loop_variables, usage  # noqa: E402

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("pointer", ["*fp32", "*bf16", "*fp16"])
def test_every_configuration_compiles_without_spills(capability: int, pointer: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton kernels need triton")
    from streamcodec_kernels.snake_depthwise_snake import _triton

    types = dict.fromkeys(("alpha_in_ptr", "weight_ptr", "bias_ptr", "alpha_out_ptr", "sums_ptr"), "*fp32")
    types |= dict.fromkeys(("x_ptr", "y_ptr", "grad_y_ptr", "grad_x_ptr"), pointer)
    types |= dict.fromkeys(("batch", "rows", "stretches", "dilation"), "i32")
    for channels, steps in ((32, _triton.LONG_STEPS), (256, _triton.SHORT_STEPS)):
        block = _triton.channel_block(channels)
        constants = {"channels": channels, "block_c": block, "tile_lanes": _triton.TILE // block, "steps": steps}
        for kernel, warps, carried in (
            (_triton.forward_kernel, _triton.FORWARD_WARPS, 7),
            (_triton.backward_kernel, _triton.BACKWARD_WARPS, 24),
        ):
            arguments = {name: type_ for name, type_ in types.items() if name in kernel.arg_names}
            found = usage(kernel, arguments, constants, capability, warps, tmp_path)
            assert_fits(found, capability)
            assert found.registers <= 96
            assert 65_536 // (found.registers * 32 * warps) * warps >= 20  # warps on a multiprocessor
            # rows, sums and loads: the compiler has merged none
            assert loop_variables(compiled(kernel, arguments, constants, capability, warps)) == [carried]


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dilation", [1, 3, 9])
@pytest.mark.parametrize("shape", [(2, 100, 24), (8, 12_800, 32), (8, 40, 256)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2)])
def test_training_on_cuda_equals_the_operations_one_by_one(
    shape: tuple[int, ...], dilation: int, dtype: torch.dtype, tolerance: float
) -> None:
    from interpreted_snake_depthwise_snake import drawn, written_out

    from streamcodec_kernels.snake_depthwise_snake.cuda import snake_depthwise_snake

    x, *constants, grad = (t.cuda() for t in drawn(*shape))
    x, grad = x.to(dtype), grad.to(dtype)
    ours = [t.clone().requires_grad_() for t in (x, *constants)]
    y = snake_depthwise_snake(*ours, dilation)
    y.backward(grad)
    theirs = [t.double().requires_grad_() for t in (x, *constants)]
    expected = written_out(*theirs, dilation)
    expected.backward(grad.double())
    for got, wanted in ((y, expected), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))):
        assert (got.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@no_gpu
@pytest.mark.gpu
def test_gradients_on_cuda_have_the_same_bits_every_time() -> None:
    from interpreted_snake_depthwise_snake import drawn

    from streamcodec_kernels.snake_depthwise_snake.cuda import snake_depthwise_snake

    x, *constants, grad = (t.cuda() for t in drawn(8, 5000, 32))
    runs = []
    for _ in range(2):
        inputs = [t.clone().requires_grad_() for t in (x, *constants)]
        snake_depthwise_snake(*inputs, 3).backward(grad)
        runs.append([t.grad for t in inputs])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
