"""The residual quantiser's Triton kernel against the reference; run by test_triton_interpreter.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from streamcodec_kernels.nearest_code._triton import nearest_code  # noqa: E402
from streamcodec_kernels.nearest_code.reference import nearest_code as reference  # noqa: E402

SHAPES = [(1, 64, 12, 1024, 8), (19, 24, 3, 256, 8), (16, 16, 2, 8, 4), (33, 16, 2, 64, 17)]


def drawn(rows: int, latent: int, books: int, size: int, dim: int, device: str = "cpu") -> list[torch.Tensor]:
    """Latents and the quantiser's arrays, in the order of `nearest_code`."""
    source = torch.Generator().manual_seed(rows + latent)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=source)

    codebook = torch.nn.functional.normalize(normal(books, size, dim), dim=-1)
    arrays = [normal(rows, latent), normal(books, latent, dim, scale=latent**-0.5), normal(books, dim, scale=0.1)]
    arrays += [codebook, normal(books, dim, latent, scale=0.5), normal(books, latent, scale=0.1)]
    return [array.to(device) for array in arrays]


def poisoned(rows: int, books: int, device: str = "cpu") -> torch.Tensor:
    return torch.full((rows, books), -7, dtype=torch.int16, device=device)


def check(arrays: list[torch.Tensor], codes: torch.Tensor) -> None:
    """Equal to the reference, a latent with a near-tie in its chain excepted; of those there are few."""
    latents, *book = (array.cpu().float().numpy() for array in arrays)
    wrong = 0
    for latent, got in zip(latents, codes.cpu().numpy(), strict=True):
        if (got == reference(latent, *book)).all():
            continue
        wrong += 1
        residual = latent.astype(np.float64)
        for k, code in enumerate(got):
            scores = book[2][k] @ (residual @ book[0][k] + book[1][k])
            assert scores[code] >= scores.max() - 1e-5
            residual -= book[2][k][code].astype(np.float64) @ book[3][k] + book[4][k]
    assert wrong <= 1 + len(latents) // 100


@pytest.mark.parametrize(("rows", "latent", "books", "size", "dim"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_codes_equal_the_reference(rows: int, latent: int, books: int, size: int, dim: int, dtype: torch.dtype) -> None:
    latents, *arrays = drawn(rows, latent, books, size, dim)
    latents = latents.to(dtype)
    codes = poisoned(rows, books)
    nearest_code(latents, *arrays, codes)
    check([latents, *arrays], codes)


def test_ties_go_to_the_lowest_code() -> None:
    latents, in_weight, in_bias, codebook, out_weight, out_bias = drawn(16, 16, 2, 512, 8)
    codebook = codebook[:, :1].expand(-1, 512, -1).contiguous()
    codes = poisoned(16, 2)
    nearest_code(latents, in_weight, in_bias, codebook, out_weight, out_bias, codes)
    assert (codes == 0).all()
    codebook[:, [5, 300]] = torch.nn.functional.normalize(latents[:1] @ in_weight + in_bias[:, None], dim=-1)
    nearest_code(latents[:1], in_weight, in_bias, codebook, out_weight, out_bias, codes[:1])
    assert codes[0, 0] == 5


def test_fewer_codebooks_are_a_prefix() -> None:
    latents, *arrays = drawn(5, 16, 4, 64, 8)
    whole, part = poisoned(5, 4), poisoned(5, 2)
    nearest_code(latents, *arrays, whole)
    nearest_code(latents, *arrays, part)
    assert torch.equal(whole[:, :2], part)
