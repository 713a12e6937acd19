"""The residual quantiser's Triton kernel: machine code for cards that are not here, and codes on one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")

from cubins import TARGETS, assert_fits, usage  # noqa: E402


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("pointer", ["*fp32", "*bf16", "*fp16"])
@pytest.mark.parametrize("latent", [64, 128])
def test_every_configuration_compiles_without_spills(
    capability: int, pointer: str, latent: int, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="Triton kernels need triton")
    from streamcodec_kernels.nearest_code import _triton

    names = ("in_weight_ptr", "in_bias_ptr", "codebook_ptr", "out_weight_ptr", "out_bias_ptr")
    types = {**dict.fromkeys(names, "*fp32"), "latent_ptr": pointer, "codes_ptr": "*i16", "rows": "i32", "books": "i32"}
    constants = {
        "latent": latent,
        "dim": 8,
        "size": 1024,
        "block_latent": _triton.padded(latent),
        "block_dim": _triton.padded(8),
        "block_codes": _triton.BLOCK_CODES,
        "block_rows": _triton.BLOCK_ROWS,
    }
    assert_fits(usage(_triton.nearest_code_kernel, types, constants, capability, _triton.WARPS, tmp_path), capability)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("rows", "latent"), [(1, 64), (4000, 64), (1000, 128)])
def test_codes_on_cuda_equal_the_reference(rows: int, latent: int) -> None:
    from interpreted_nearest_code import check, drawn, poisoned

    from streamcodec_kernels.nearest_code._triton import nearest_code

    arrays = drawn(rows, latent, 12, 1024, 8, device="cuda")
    codes = poisoned(rows, 12, device="cuda")
    nearest_code(*arrays, codes)
    check(arrays, codes)
