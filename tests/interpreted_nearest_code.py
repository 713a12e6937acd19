"""The residual quantiser's Triton kernels against the references; run by test_triton_interpreter.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from torch import Tensor  # noqa: E402

from streamcodec_kernels.code_lookup.cuda import code_lookup, project  # noqa: E402
from streamcodec_kernels.code_lookup.reference import code_lookup as lookup_reference  # noqa: E402
from streamcodec_kernels.nearest_code.cuda import arrange, nearest_code  # noqa: E402
from streamcodec_kernels.nearest_code.reference import nearest_code as reference  # noqa: E402

SHAPES = [(1, 64, 12, 1024, 8), (19, 24, 3, 256, 8), (16, 16, 2, 8, 4), (33, 16, 2, 64, 17), (3, 40, 2, 512, 33)]
SHAPES += [(3, 24, 2, 128, 40), (2, 72, 2, 300, 64), (3, 20, 2, 1024, 70), (2, 1000, 2, 32, 8)]


def drawn(rows: int, latent: int, books: int, size: int, dim: int, device: str = "cpu") -> list[Tensor]:
    """Latents and the quantiser's arrays, in the order of the reference."""
    source = torch.Generator().manual_seed(rows + latent)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=source)

    codebook = torch.nn.functional.normalize(normal(books, size, dim), dim=-1)
    arrays = [normal(rows, latent), normal(books, latent, dim, scale=latent**-0.5), normal(books, dim, scale=0.1)]
    arrays += [codebook, normal(books, dim, latent, scale=0.5), normal(books, latent, scale=0.1)]
    return [array.to(device) for array in arrays]


def euclidean(
    rows: int, latent: int, books: int, size: int, axes: int | None = None, device: str = "cpu"
) -> list[Tensor]:
    """Latents and arrays of codebooks of axes of the latent: one more dimension, dot products as distances."""
    source = torch.Generator().manual_seed(rows + latent)
    axes = latent if axes is None else axes
    vectors = torch.randn(books, size, axes, generator=source)
    basis = torch.linalg.qr(torch.randn(latent, latent, generator=source))[0][:, :axes]
    basis = torch.nn.functional.pad(basis, (0, 1))
    last = torch.zeros(axes + 1)
    last[-1] = 1
    codebook = torch.cat([vectors, -0.5 * vectors.square().sum(-1, keepdim=True)], 2)
    weights = basis.expand(books, -1, -1), last.expand(books, -1)
    arrays = [torch.randn(rows, latent, generator=source), *weights, codebook]
    arrays += [basis.t().expand(books, -1, -1), torch.zeros(books, latent)]
    return [array.contiguous().to(device) for array in arrays]


def search(arrays: list[Tensor], books: int, counts: Tensor | None = None, active: Tensor | None = None) -> Tensor:
    """Codes of `books` codebooks, -7 where nothing was written."""
    latents, in_weight, in_bias, codebook, out_weight, out_bias = arrays
    rows, device = latents.shape[0], latents.device
    codes = torch.full((rows, books), -7, dtype=torch.int16, device=device)
    counts = torch.full((rows,), books, dtype=torch.int32, device=device) if counts is None else counts
    active = torch.ones(rows, dtype=torch.bool, device=device) if active is None else active
    parts = project(codebook, out_weight, out_bias)
    nearest_code(latents, *arrange(in_weight, in_bias, codebook), parts, counts, active, codes)
    return codes


def check(arrays: list[Tensor], codes: Tensor) -> None:
    """Equal to the reference, a latent with a near-tie in its chain excepted; of those there are few."""
    latents, *book = (array.cpu().float().numpy() for array in arrays)
    wrong = 0
    for latent, got in zip(latents, codes.cpu().numpy(), strict=True):
        if (got == reference(latent, *(array[: len(got)] for array in book))).all():
            continue
        wrong += 1
        residual = latent.astype(np.float64)
        for k, code in enumerate(got):
            scores = book[2][k] @ (residual @ book[0][k] + book[1][k])
            assert scores[code] >= scores.max() - 1e-5 * max(1, np.abs(scores).max())
            residual -= book[2][k][code].astype(np.float64) @ book[3][k] + book[4][k]
    assert wrong <= 1 + len(latents) // 100


@pytest.mark.parametrize(("rows", "latent", "books", "size", "dim"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_codes_equal_the_reference(rows: int, latent: int, books: int, size: int, dim: int, dtype: torch.dtype) -> None:
    latents, *arrays = drawn(rows, latent, books, size, dim)
    arrays = [latents.to(dtype), *arrays]
    check(arrays, search(arrays, books))


@pytest.mark.parametrize(("latent", "axes"), [(48, 32), (64, 64)])
def test_codes_of_euclidean_codebooks_equal_the_reference(latent: int, axes: int) -> None:
    arrays = euclidean(5, latent, 2, 300, axes)
    check(arrays, search(arrays, 2))


@pytest.mark.parametrize("dim", [8, 33, 70])
def test_ties_go_to_the_lowest_code(dim: int) -> None:
    latents, in_weight, in_bias, codebook, out_weight, out_bias = drawn(5, 16, 2, 1200, dim)
    codebook = codebook[:, :1].expand(-1, 1200, -1).contiguous()
    arrays = [latents, in_weight, in_bias, codebook, out_weight, out_bias]
    assert (search(arrays, 2) == 0).all()
    best = torch.nn.functional.normalize(latents[:1] @ in_weight + in_bias[:, None], dim=-1)
    arrays[0] = latents[:1]
    for places in ([5, 300], [300, 517], [261, 517], [1030, 1199]):  # lanes in either order, the same lane, one tile
        arrays[3] = codebook.clone()
        arrays[3][:, places] = best
        assert search(arrays, 2)[0, 0] == places[0]


@pytest.mark.parametrize("dim", [8, 33, 70])
def test_every_score_may_be_negative_and_one_that_is_no_number_is_never_the_highest(dim: int) -> None:
    latents, in_weight, _, codebook, out_weight, out_bias = drawn(4, 16, 2, 300, dim)
    arrays = [latents, 0 * in_weight, torch.ones(2, dim), -codebook.abs(), out_weight, out_bias]
    check(arrays, search(arrays, 2))
    highest = search(arrays, 2)[0].tolist()
    for k, code in enumerate(highest):
        arrays[3][k, code, dim - 1] = float("nan")
        assert arrays[3][k].sum(-1).nan_to_num(nan=float("-inf")).argmax() == search(arrays, 2)[0, k]


@pytest.mark.parametrize("dim", [8, 20, 33, 70])
def test_every_stream_has_its_own_number_of_codebooks(dim: int) -> None:
    arrays = drawn(7, 16, 4, 64, dim)
    whole = search(arrays, 4)
    counts = torch.tensor([4, 0, 1, 2, 3, 4, 1], dtype=torch.int32)
    active = torch.tensor([True, True, True, False, True, True, False])
    codes = search(arrays, 4, counts, active)
    for row, count in enumerate(counts.tolist()):
        expected = torch.where(torch.arange(4) < count, whole[row], 0) if active[row] else torch.full((4,), -7)
        assert torch.equal(codes[row], expected.to(torch.int16))


def test_a_latent_has_the_same_codes_alone_and_with_fewer_codebooks() -> None:
    arrays = drawn(18, 16, 4, 64, 8)
    whole = search(arrays, 4)
    assert torch.equal(search([arrays[0][17:], *arrays[1:]], 2), whole[17:, :2])


@pytest.mark.parametrize("dim", [8, 33, 70])
def test_no_number_in_one_stream_leaves_the_others_alone(dim: int) -> None:
    arrays = drawn(3, 16, 2, 64, dim)
    expected = search(arrays, 2)
    arrays[0][1] = float("nan")
    codes = search(arrays, 2)
    assert torch.equal(codes[::2], expected[::2])
    assert ((codes[1] >= 0) & (codes[1] < 64)).all()


def lookup(arrays: list[Tensor], codes: Tensor, counts: Tensor, active: Tensor, dtype: torch.dtype) -> Tensor:
    """Latents, not a number where nothing was written."""
    latent = torch.full_like(arrays[0], float("nan"), dtype=dtype)
    code_lookup(codes, counts, project(*arrays[3:]), active, latent)
    return latent


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize(("rows", "latent", "books", "size", "dim"), SHAPES)
def test_latents_equal_the_reference(
    rows: int, latent: int, books: int, size: int, dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    arrays = drawn(rows, latent, books, size, dim)
    source = torch.Generator().manual_seed(rows)
    codes = torch.randint(size, (rows, books), generator=source, dtype=torch.int16)
    counts = torch.randint(books + 1, (rows,), generator=source, dtype=torch.int32)
    active = torch.rand(rows, generator=source) < 0.8
    got = lookup(arrays, codes, counts, active, dtype)
    known = [array.numpy() for array in arrays[3:]]
    for row, on in enumerate(active.tolist()):
        if not on:
            assert torch.isnan(got[row]).all()
            continue
        expected = lookup_reference(codes[row, : counts[row]].numpy(), *known)
        error = np.abs(got[row].float().numpy() - expected)
        assert error.max() <= tolerance * max(1.0, np.abs(expected).max())


def test_a_lost_frame_is_zeros_and_codes_out_of_range_are_the_nearest() -> None:
    arrays = drawn(3, 16, 2, 64, 8)
    codes = torch.tensor([[7, 7], [-300, 32_000], [0, 63]], dtype=torch.int16)
    got = lookup(arrays, codes, torch.tensor([0, 2, 2]), torch.ones(3, dtype=torch.bool), torch.float32)
    assert torch.equal(got[0], torch.zeros(16))
    assert torch.equal(got[1], got[2])


def test_wrong_shapes_are_refused() -> None:
    arrays = drawn(3, 16, 2, 64, 8)
    with pytest.raises(ValueError, match="at most K"):
        search(arrays, 3)
    latents, *query, out_weight, out_bias = arrays
    weight, book = arrange(*query)
    counts, active = torch.full((3,), 2, dtype=torch.int32), torch.ones(3, dtype=torch.bool)
    parts, codes = project(query[2], out_weight, out_bias), torch.zeros(3, 2, dtype=torch.int16)
    with pytest.raises(ValueError, match="as `arrange` makes them"):
        nearest_code(latents, weight, book[:-1], parts, counts, active, codes)
    with pytest.raises(ValueError, match="at least K"):
        lookup(arrays, torch.zeros(3, 3, dtype=torch.int16), torch.zeros(3), torch.ones(3).bool(), torch.float32)
