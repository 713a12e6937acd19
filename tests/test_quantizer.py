"""Quantisers: the talk's formula, gradients that pass straight through, prefixes, and the older recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the quantisers need torch")

from small_models import SMALL  # noqa: E402

from streamcodec.config import CodecConfig  # noqa: E402
from streamcodec.errors import ConfigError  # noqa: E402
from streamcodec.nn.ema_quantizer import EmaCodebook, is_euclidean  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402
from streamcodec.nn.quantizer import FactorizedCodebook, ResidualVQ  # noqa: E402

CONFIG = replace(SMALL, n_codebooks=3, codebook_size=16, latent_dim=6, code_dim=3)
EMA_CONFIG = replace(CONFIG, code_dim=CONFIG.latent_dim + 1)


def quantizer(config: CodecConfig = CONFIG, trainable: bool = True) -> ResidualVQ:
    torch.manual_seed(0)
    books = [FactorizedCodebook(config, trainable) for _ in range(config.n_codebooks)]
    for book in books:
        torch.nn.init.normal_(book.in_proj.bias, std=0.1)
        torch.nn.init.normal_(book.out_proj.bias, std=0.1)
        with torch.no_grad():
            book.codebook.mul_(2.0)  # of no unit length: `trainable` must normalise
    return ResidualVQ(books)


def latent(clips: int = 2, frames: int = 5, dim: int = CONFIG.latent_dim) -> torch.Tensor:
    return torch.randn(clips, frames, dim, generator=torch.Generator().manual_seed(1))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_hand(vq: ResidualVQ, x: np.ndarray, used: list[int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Latent, codes and sum over codebooks of mean |l2(z) - l2(e)|^2, a frame and a codebook at a time."""
    total, codes = np.zeros_like(x), np.zeros((*x.shape[:2], len(vq.books)), int)
    losses = np.zeros((len(vq.books), *x.shape[:2]))
    for clip, frame in np.ndindex(*x.shape[:2]):
        residual = x[clip, frame].copy()
        for k, book in enumerate(vq.books):
            w_in, b_in, w_out, b_out, vectors = (
                p.detach().double().numpy()
                for p in (
                    book.in_proj.weight,
                    book.in_proj.bias,
                    book.out_proj.weight,
                    book.out_proj.bias,
                    book.codebook,
                )
            )
            query, vectors = unit(w_in @ residual + b_in), unit(vectors)
            codes[clip, frame, k] = np.argmin(((query - vectors) ** 2).sum(1))
            chosen = vectors[codes[clip, frame, k]]
            if used[clip] > k:
                losses[k, clip, frame] = ((query - chosen) ** 2).sum()
                total[clip, frame] += w_out @ chosen + b_out
                residual -= w_out @ chosen + b_out
    return total, codes, float(losses.mean((1, 2)).sum())


@pytest.mark.parametrize("used", [None, [3, 3], [1, 2]])
def test_losses_latent_and_codes_equal_the_talks_formula_by_hand(used: list[int] | None) -> None:
    vq, x = quantizer(), latent()
    made = vq(x, None if used is None else torch.tensor(used))
    total, codes, loss = by_hand(vq, x.double().numpy(), used or [3, 3])
    for clip in range(2):
        count = (used or [3, 3])[clip]
        assert np.array_equal(made.codes[clip, :, :count].numpy(), codes[clip, :, :count])
    assert made.latent.detach().numpy() == pytest.approx(total, abs=1e-4)
    assert float(made.codebook_loss.detach()) == pytest.approx(loss, rel=1e-4)
    assert float(made.commitment_loss.detach()) == pytest.approx(loss, rel=1e-4)


def test_codebook_loss_moves_codes_and_commitment_loss_moves_the_encoder() -> None:
    vq, x = quantizer(replace(CONFIG, n_codebooks=1)), latent().requires_grad_()
    made = vq(x)
    book = vq.books[0]
    by_codes = torch.autograd.grad(
        made.codebook_loss, [x, book.in_proj.weight, book.codebook], retain_graph=True, allow_unused=True
    )
    assert by_codes[0] is None or not by_codes[0].any()
    assert by_codes[1] is None or not by_codes[1].any()
    assert by_codes[2].any()
    by_encoder = torch.autograd.grad(made.commitment_loss, [x, book.codebook], allow_unused=True)
    assert by_encoder[0].any()
    assert by_encoder[1] is None or not by_encoder[1].any()


def test_gradient_passes_straight_through_the_choice_of_code() -> None:
    vq, x = quantizer(replace(CONFIG, n_codebooks=1)), (10 * latent()).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (got,) = torch.autograd.grad((vq(x).latent * weight).sum(), x)
    book, free = vq.books[0], x.detach().requires_grad_()
    query = torch.nn.functional.normalize(book.in_proj(free), dim=-1)
    (wanted,) = torch.autograd.grad((book.out_proj(query) * weight).sum(), free)
    assert torch.allclose(got, wanted, atol=1e-4)


def test_dropped_codebooks_leave_a_prefix() -> None:
    vq, x = quantizer(), latent(clips=3)
    x = x[:1].expand(3, -1, -1)
    made = vq(x, torch.tensor([1, 2, 3]))
    for clip, count in enumerate((1, 2, 3)):
        codes = vq.encode(x[clip : clip + 1], count)
        assert codes.shape == (1, 5, count)
        assert torch.equal(made.codes[clip, :, :count], codes[0])
        assert torch.allclose(made.latent[clip], vq.decode(codes, CONFIG.latent_dim)[0], atol=1e-5)
    whole = vq(x[:1])
    assert torch.equal(made.codes[2], whole.codes[0])


def test_no_codes_decode_to_a_latent_of_zeros() -> None:
    made = quantizer().decode(torch.zeros(2, 4, 0, dtype=torch.int64), CONFIG.latent_dim)
    assert torch.equal(made, torch.zeros(2, 4, CONFIG.latent_dim))


def test_equal_codes_are_told_apart_by_the_lowest_index() -> None:
    book = FactorizedCodebook(CONFIG, trainable=False)
    with torch.no_grad():
        book.codebook[5] = book.codebook[11] = torch.nn.functional.normalize(torch.tensor([1.0, 1.0, 1.0]), dim=0)
    assert book.search(torch.full((1, 3, 3), 0.7)).tolist() == [[5, 5, 5]]


def test_silence_gives_finite_losses_and_gradients() -> None:
    vq = quantizer()
    for book in vq.books:
        torch.nn.init.zeros_(book.in_proj.bias)
        torch.nn.init.zeros_(book.out_proj.bias)
    x = torch.zeros(1, 3, CONFIG.latent_dim, requires_grad=True)
    made = vq(x)
    (made.latent.sum() + made.codebook_loss + made.commitment_loss).backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in vq.parameters() if p.grad is not None)


def test_seeding_replaces_only_the_codes_asked_for_by_what_the_book_sees() -> None:
    vq, x = quantizer(), latent(frames=40).flatten(0, 1)
    before = [book.codebook.detach().clone() for book in vq.books]
    only = torch.zeros(3, 16, dtype=torch.bool)
    only[1, 3:7] = True
    vq.seed(x, only)
    for k, book in enumerate(vq.books):
        changed = (book.codebook != before[k]).any(1)
        assert torch.equal(changed, only[k])
    residual = x - vq.books[0].decode(vq.books[0].encode(x))
    seen = torch.nn.functional.normalize(vq.books[1].in_proj(residual), dim=-1)
    nearest = (vq.books[1].codebook[3:7] @ seen.t()).amax(1)
    assert (nearest > 0.99).all()


def test_exported_weights_run_with_the_codes_and_sound_of_training() -> None:
    torch.manual_seed(3)
    trained = CodecModel(SMALL, trainable=True)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    plain = CodecModel(SMALL)
    plain.load_arrays(trained.export_arrays())
    again = CodecModel(SMALL, trainable=True)
    again.load_arrays(trained.export_arrays())
    wave = 0.3 * torch.randn(2, 3 * SMALL.hop_samples)
    with torch.no_grad():
        made, latents, quantized = trained.eval()(wave)
        for other in (plain, again):
            other_made, other_latents, other_quantized = other(wave)
            assert torch.allclose(other_latents, latents, atol=1e-5)
            assert torch.equal(other_quantized.codes, quantized.codes)
            assert torch.allclose(other_made, made, atol=1e-5)


# --- the older recipe -------------------------------------------------------------------------------------------------


def blobs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """640 rows around 16 well separated centres, and the centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(16, EMA_CONFIG.latent_dim, generator=generator)
    rows = centres.repeat(40, 1) + 0.1 * torch.randn(640, EMA_CONFIG.latent_dim, generator=generator)
    return rows, centres


def distortion(book: EmaCodebook, rows: torch.Tensor) -> float:
    return float((rows - book.decode(book.encode(rows))).square().sum(-1).mean())


def test_k_means_start_reduces_distortion() -> None:
    torch.manual_seed(0)
    rows, _ = blobs()
    whole = torch.ones(16, dtype=torch.bool)
    drawn, refined = EmaCodebook(EMA_CONFIG, kmeans_rounds=0), EmaCodebook(EMA_CONFIG, kmeans_rounds=10)
    random_start = distortion(drawn, rows)
    for book in (drawn, refined):
        torch.manual_seed(1)
        book.seed(rows, whole)
    assert distortion(refined, rows) < distortion(drawn, rows) < random_start


def test_moving_average_converges_to_the_means_of_what_it_codes() -> None:
    rows, centres = blobs()
    book = EmaCodebook(EMA_CONFIG, decay=0.8)
    book.vectors.copy_(centres + 0.5)
    means = rows.view(40, 16, -1).mean(0)
    for _ in range(60):
        book(rows[None])
    assert torch.allclose(book.vectors, means, atol=1e-3)
    assert torch.allclose(book.uses, torch.full((16,), 40.0), rtol=1e-3)
    frozen = book.vectors.clone()
    book.eval()(rows[None] + 1)
    assert torch.equal(book.vectors, frozen)


def test_one_step_of_the_moving_average_equals_its_formula() -> None:
    config = replace(EMA_CONFIG, latent_dim=1, code_dim=2, codebook_size=2)
    book = EmaCodebook(config, decay=0.9)
    book.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    book(torch.tensor([[[1.0], [3.0], [9.0]]]))
    assert book.uses.tolist() == pytest.approx([0.9 + 0.1 * 2, 0.9 + 0.1 * 1])
    assert book.vectors.flatten().tolist() == pytest.approx([0.1 * 4 / 1.1, (0.9 * 10 + 0.1 * 9) / 1.0])


def test_unused_codes_restart_at_random_rows_and_the_others_stay() -> None:
    rows, centres = blobs()
    book = EmaCodebook(EMA_CONFIG)
    book.vectors.copy_(centres)
    book.vectors[4] = 1000.0
    only = torch.zeros(16, dtype=torch.bool)
    only[4] = True
    book.seed(rows, only)
    assert torch.equal(book.vectors[~only], centres[~only])
    assert (rows == book.vectors[4]).all(1).any()


def test_rows_that_are_not_finite_do_not_spoil_the_moving_average() -> None:
    rows, centres = blobs()
    book = EmaCodebook(EMA_CONFIG)
    book.vectors.copy_(centres)
    rows[3] = float("nan")
    book(rows[None])
    assert torch.isfinite(book.vectors).all()
    assert torch.isfinite(book.uses).all()


def test_ema_gradient_and_commitment_equal_their_formulas() -> None:
    book = EmaCodebook(EMA_CONFIG).eval()
    x = latent().requires_grad_()
    made = book(x)
    expected = (x - book.decode(made.codes)).square().mean((-1, -2))
    assert torch.allclose(made.commitment_loss, expected)
    assert not made.codebook_loss.any()
    weight = torch.randn_like(x)
    assert torch.allclose(torch.autograd.grad((made.part * weight).sum(), x)[0], weight)


def test_ema_codebooks_export_runs_as_a_factorised_model_with_the_same_codes() -> None:
    torch.manual_seed(0)
    config = replace(SMALL, code_dim=SMALL.latent_dim + 1)
    model = CodecModel(config, trainable=True, quantizer="ema").eval()
    latents = torch.randn(2, 50, config.latent_dim)
    model.quantizer.seed(latents.flatten(0, 1), torch.ones(4, 256, dtype=torch.bool))
    plain = CodecModel(config)
    plain.load_arrays(model.export_arrays())
    codes = model.quantizer.encode(latents, 4)
    assert torch.equal(plain.quantizer.encode(latents, 4), codes)
    assert torch.equal(model.quantizer(latents).codes, codes)
    assert len(codes.unique()) > 50
    assert torch.allclose(plain.quantizer.decode(codes, 8), model.quantizer.decode(codes, 8), atol=1e-5)
    back = CodecModel(config, trainable=True, quantizer="ema")
    back.load_arrays(model.export_arrays())
    assert torch.equal(back.quantizer.encode(latents, 4), codes)


def test_codebooks_in_principal_axes_code_those_and_export_too() -> None:
    torch.manual_seed(0)
    config = replace(SMALL, code_dim=4)
    model = CodecModel(config, trainable=True, quantizer="ema").eval()
    strong = torch.linalg.qr(torch.randn(config.latent_dim, 3))[0]
    rows = 3 * torch.randn(4000, 3) @ strong.t() + 0.01 * torch.randn(4000, config.latent_dim)
    model.quantizer.seed(rows, torch.ones(4, 256, dtype=torch.bool))
    first = model.quantizer.books[0]
    torch.testing.assert_close(first.basis @ first.basis.t(), strong @ strong.t(), atol=1e-2, rtol=0)
    first_only = model.quantizer.decode(model.quantizer.encode(rows[None], 1), config.latent_dim)[0]
    assert (rows - first_only).square().sum() < 0.05 * rows.square().sum()
    arrays = model.export_arrays()
    assert is_euclidean(arrays)
    assert not is_euclidean(CodecModel(SMALL).export_arrays())
    for kind in ("ema", "factorized"):
        other = CodecModel(config, trainable=kind == "ema", quantizer=kind)
        other.load_arrays(arrays)
        codes = other.quantizer.encode(rows[None], 4)
        assert torch.equal(codes, model.quantizer.encode(rows[None], 4))
        expected = model.quantizer.decode(codes, config.latent_dim)
        assert torch.allclose(other.quantizer.decode(codes, config.latent_dim), expected, atol=1e-5)


@pytest.mark.parametrize("code_dim", [1, 8])
def test_ema_codebook_takes_at_most_a_dimension_more_than_the_latent(code_dim: int) -> None:
    with pytest.raises(ConfigError, match=rf"code_dim is {code_dim}; Euclidean .* 2 to latent_dim \+ 1 = 7"):
        EmaCodebook(replace(CONFIG, code_dim=code_dim))
