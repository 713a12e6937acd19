"""The quantiser's Triton kernels: machine code for cards that are not here, and codes on one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")

from cubins import TARGETS, assert_fits, compiled, loop_variables, usage  # noqa: E402

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TYPES = {
    **dict.fromkeys(("weight_ptr", "book_ptr", "parts_ptr"), "*fp32"),
    "active_ptr": "*u8",
    "counts_ptr": "*i32",
    "codes_ptr": "*i16",
    "batch": "i32",
}


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(
    ("latent", "dim", "pointer"),
    [
        *((64, 8, "*fp32"), (128, 8, "*fp32"), (128, 8, "*bf16"), (1024, 8, "*fp32")),
        *((64, 33, "*fp32"), (128, 33, "*fp32"), (128, 33, "*bf16")),
        *((128, 16, "*fp32"), (128, 40, "*fp32"), (128, 64, "*fp32")),
        *((64, 65, "*fp32"), (128, 129, "*fp32")),
    ],
)
def test_the_search_compiles_without_spills(
    latent: int, dim: int, pointer: str, capability: int, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="Triton kernels need triton")
    from streamcodec_kernels.nearest_code import _triton

    constants, options = _triton.plan(latent, dim, 1024)
    warps = options.pop("num_warps")
    arguments = {**TYPES, "latent_ptr": pointer}, {**constants, "books": 12}, capability, warps
    found = usage(_triton.nearest_code_kernel, *arguments, tmp_path, **options)
    assert_fits(found, capability)
    code = compiled(_triton.nearest_code_kernel, *arguments, **options)
    if warps == 1 and constants["kept"]:  # lanes meet for the query, the best and the number of codebooks alone
        assert found.shared_bytes == 0
        assert code.asm["ptx"].count("shfl.") <= 5 * constants["block_rows"] * (dim + 1) + 2
    # residual, what is taken from it, two addresses, rows ahead; in the tiles' loop the best and its tile, one address
    expected = [4 + constants["rows_ahead"], 3 + constants["rows_ahead"]]
    assert loop_variables(code) == expected + [1] * (not constants["kept"])


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(("latent", "pointer"), [(64, "*fp32"), (128, "*bf16")])
def test_the_lookup_compiles_without_spills(latent: int, pointer: str, capability: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton kernels need triton")
    from streamcodec_kernels.code_lookup import _triton

    names = _triton.code_lookup_kernel.arg_names
    types = {name: type_ for name, type_ in {**TYPES, "latent_ptr": pointer}.items() if name in names}
    constants = {"books": 12, "size": 1024, "latent": latent, "block_l": latent, "block_b": _triton.BLOCK_STREAMS}
    found = usage(_triton.code_lookup_kernel, types, constants, capability, _triton.WARPS, tmp_path)
    assert_fits(found, capability)


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("rows", "latent", "dim"),
    [(1, 64, 8), (4000, 64, 8), (1000, 128, 8), (301, 128, 40), (301, 128, 64), (101, 1024, 8)],
)
def test_codes_on_cuda_equal_the_reference(rows: int, latent: int, dim: int) -> None:
    from interpreted_nearest_code import check, drawn, search

    arrays = drawn(rows, latent, 12, 1024, dim, device="cuda")
    check(arrays, search(arrays, 12))


@no_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("latent", "axes"), [(64, 64), (128, 128), (128, 32)])
def test_codes_of_euclidean_codebooks_on_cuda_equal_the_reference(latent: int, axes: int) -> None:
    from interpreted_nearest_code import check, euclidean, search

    arrays = euclidean(500, latent, 12, 1024, axes, device="cuda")
    check(arrays, search(arrays, 12))


@no_gpu
@pytest.mark.gpu
def test_latents_on_cuda_are_what_the_search_leaves_over() -> None:
    from interpreted_nearest_code import drawn, lookup, search

    from streamcodec_kernels.code_lookup.reference import code_lookup as reference

    arrays = drawn(300, 64, 12, 1024, 8, device="cuda")
    counts = torch.arange(300, device="cuda", dtype=torch.int32) % 13
    active = torch.ones(300, dtype=torch.bool, device="cuda")
    codes = search(arrays, 12, counts, active)
    latents = lookup(arrays, codes, counts, active, torch.float32).cpu()
    known = [array.cpu().numpy() for array in arrays[3:]]
    for row, count in enumerate(counts.tolist()):
        expected = torch.from_numpy(reference(codes[row, :count].cpu().numpy(), *known))
        assert (latents[row] - expected).abs().max() <= 3e-6 * max(1.0, float(expected.abs().max()))
