"""Discriminators against numbers computed another way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal

torch = pytest.importorskip("torch", reason="training needs torch")

from streamcodec.errors import ConfigError  # noqa: E402
from streamcodec.training import losses  # noqa: E402
from streamcodec.training.adversarial import play_round  # noqa: E402
from streamcodec.training.discriminators import ONE_CORE, DiscriminatorConfig, Discriminators  # noqa: E402
from streamcodec.training.discriminators.ensemble import level  # noqa: E402
from streamcodec.training.discriminators.layers import convolve_as_image  # noqa: E402

OFF: dict[str, tuple[int, ...]] = {"rates": (), "periods": (), "windows": ()}
ONE_OF_EACH = DiscriminatorConfig(rates=(1, 2), periods=(2, 5), windows=(512,), size="slim")


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_from(config: DiscriminatorConfig) -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(config)


def only(size: str = "slim", **chosen: tuple[int, ...]) -> Discriminators:
    return made_from(DiscriminatorConfig(**{**OFF, **chosen}, size=size))


def arrays(layer: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_rate_discriminators_first_layer_equals_scipy(rate: int) -> None:
    judge, wave = only(rates=(rate,)), noise(1, 1000)
    x = level(wave)[0].double().numpy()
    if rate > 1:
        padded = np.pad(x, rate)
        x = np.array([padded[i : i + 2 * rate].mean() for i in range(0, len(padded) - 2 * rate + 1, rate)])
    weight, bias = arrays(judge.members[f"rate_{rate}"].stack.layers[0])
    for channel in range(len(bias)):
        expected = leaky(scipy.signal.correlate(np.pad(x, 7), weight[channel, 0], mode="valid") + bias[channel])
        got = judge(wave)[0][0][0, channel].detach().numpy()
        assert np.allclose(got, expected, atol=1e-6)


def test_rate_discriminator_equals_the_published_layers_one_by_one() -> None:
    judge, wave = only("full", rates=(1,)), noise(1, 3000)
    member, x = judge.members["rate_1"], level(wave)[:, None]
    published = ((15, 1, 1), (41, 4, 4), (41, 4, 16), (41, 4, 64), (41, 4, 256), (5, 1, 1))  # kernel, stride, groups
    for i, (layer, (kernel, stride, groups)) in enumerate(zip(member.stack.layers, published, strict=True)):
        assert layer.weight.shape[-1] == kernel
        x = torch.nn.functional.conv1d(x, layer.weight, layer.bias, stride, kernel // 2, groups=groups)
        x = torch.where(x > 0, x, 0.1 * x)
        torch.testing.assert_close(judge(wave)[0][i], x, atol=1e-5, rtol=1e-4)
    logits = torch.nn.functional.conv1d(x, member.logits.weight, member.logits.bias, padding=1)
    torch.testing.assert_close(judge(wave)[0][-1], logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [torch.nn.Conv1d(1, 8, 15, 1, 7), torch.nn.Conv1d(8, 16, 41, 4, 20, groups=4)])
def test_form_of_a_convolution_for_tensor_cores_equals_the_layer(layer: torch.nn.Conv1d) -> None:
    x = noise(2, layer.in_channels, 100)
    torch.testing.assert_close(convolve_as_image(layer, x), layer(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", ["slim", "full"])
@pytest.mark.parametrize("samples", [600, 601])
def test_period_discriminator_equals_the_two_dimensional_form(size: str, samples: int) -> None:
    period = 5
    judge, wave = only(size, periods=(period,)), noise(2, samples)
    member = judge.members[f"period_{period}"]
    got = judge(wave)[0]
    x = torch.nn.functional.pad(level(wave)[:, None], (0, -samples % period), mode="reflect")
    x = x.view(2, 1, -1, period)  # [B, C, rows, phases], as published
    for i, layer in enumerate([*member.stack.layers, member.logits]):
        stride, reach = layer.stride[0], layer.kernel_size[0] // 2
        x = torch.nn.functional.conv2d(x, layer.weight[..., None], layer.bias, (stride, 1), (reach, 0))
        if i < 5:
            x = torch.nn.functional.leaky_relu(x, 0.1)
        ours = got[i].permute(0, 2, 3, 1)
        torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-4)


def test_stft_discriminators_first_layer_equals_scipy() -> None:
    judge, wave = only(windows=(512,)), noise(1, 1500)
    stft = torch.stft(level(wave), 512, 128, window=torch.hann_window(512), return_complex=True)[0].T.numpy()
    edges = [int(edge * 257) for edge in (0, 0.1, 0.25, 0.5, 0.75, 1.0)]
    maps = judge(wave)[0]
    for band in (0, 2, 4):
        part = stft[:, edges[band] : edges[band + 1]]
        weight, bias = arrays(judge.members["stft_512"].bands[band].layers[0])
        expected = bias[0] + sum(
            scipy.signal.correlate2d(np.pad(plane, ((1, 1), (2, 2))), weight[0, i], mode="valid")[:, ::2]
            for i, plane in enumerate((part.real, part.imag))
        )
        got = maps[5 * band][0, 0].detach().numpy()
        assert np.allclose(got, leaky(expected), atol=2e-5)
    assert len(maps) == 5 * 5 + 1


@pytest.mark.parametrize(("size", "reach", "first_stride"), [("full", 9, 1), ("slim", 5, 2)])
def test_stft_discriminator_equals_its_layers_one_by_one(size: str, reach: int, first_stride: int) -> None:
    judge, wave = only(size, windows=(128,)), noise(2, 1000)
    member = judge.members["stft_128"]
    stft = torch.stft(level(wave), 128, 32, window=torch.hann_window(128), return_complex=True).transpose(1, 2)
    image, maps, ends = torch.stack([stft.real, stft.imag], 1), judge(wave)[0], []
    for band, (low, high) in enumerate(((0, 6), (6, 16), (16, 32), (32, 48), (48, 65))):
        x = image[..., low:high]
        for i, layer in enumerate(member.bands[band].layers):
            stride, pad = ((1, 1), (1, 1)) if i == 4 else ((1, 2 if i else first_stride), (1, reach // 2))
            x = torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride, pad)
            x = torch.where(x > 0, x, 0.1 * x)
            torch.testing.assert_close(maps[5 * band + i], x, atol=2e-5, rtol=1e-3)
        ends.append(x)
    logits = torch.nn.functional.conv2d(torch.cat(ends, -1), member.logits.weight, member.logits.bias, padding=1)
    torch.testing.assert_close(maps[-1], logits, atol=2e-5, rtol=1e-3)


def test_bands_cover_the_spectrum_without_overlap() -> None:
    for window in (2048, 1024, 512):
        edges = only(windows=(window,)).members[f"stft_{window}"].edges
        assert edges[0][0] == 0
        assert edges[-1][1] == window // 2 + 1
        assert all(left[1] == right[0] for left, right in itertools.pairwise(edges))


def conv(i: int, o: int, taps: int) -> int:
    return i * o * taps + 2 * o  # direction, length, bias


def test_parameter_counts_equal_hand_counts() -> None:
    period = sum(conv(i, o, 5) for i, o in ((1, 32), (32, 128), (128, 512), (512, 1024), (1024, 1024)))
    assert only("full", periods=(3,)).parameter_count() == {"period_3": period + conv(1024, 1, 3)}
    rate = conv(1, 16, 15) + conv(4, 64, 41) + conv(4, 256, 41) + 2 * conv(4, 1024, 41) + conv(1024, 1024, 5)
    assert only("full", rates=(1,)).parameter_count() == {"rate_1": rate + conv(1024, 1, 3)}
    band = conv(2, 32, 27) + 3 * conv(32, 32, 27) + conv(32, 32, 9)
    assert only("full", windows=(512,)).parameter_count() == {"stft_512": 5 * band + conv(32, 1, 9)}
    assert sum(made_from(DiscriminatorConfig(size="slim")).parameter_count().values()) < 600_000


def test_each_kind_can_be_switched_off() -> None:
    full = made_from(ONE_OF_EACH)
    assert full.names == ["rate_1", "rate_2", "period_2", "period_5", "stft_512"]
    assert len(full(noise(1, 1600))) == 5
    assert only(rates=(1,)).names == ["rate_1"]
    assert made_from(ONE_CORE).names == ["rate_2", "stft_2048"]
    with pytest.raises(ConfigError, match="no discriminator is switched on"):
        DiscriminatorConfig(**OFF)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "huge"}, "size is 'huge'; choose one of full, half, slim"),
        ({"periods": (0,)}, "periods has 0"),
        ({"windows": (1023,)}, "windows has 1023; each must be a multiple of 4"),
        ({"bands": ((0.5, 0.1),)}, "must rise"),
    ],
)
def test_wrong_configurations_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiscriminatorConfig(**wrong)  # type: ignore[arg-type]


def test_level_and_offset_of_a_clip_do_not_matter_down_to_minus_60_db() -> None:
    wave = noise(3, 800)
    assert level(wave).abs().amax(-1).tolist() == pytest.approx([0.8] * 3)
    torch.testing.assert_close(level(0.01 * wave + 0.2), level(wave), atol=1e-4, rtol=1e-3)
    assert level(1e-5 * wave).abs().max() < 1e-2


def test_a_clips_maps_do_not_depend_on_its_neighbours() -> None:
    judges, wave = made_from(ONE_OF_EACH), noise(3, 1600)
    for together, alone in zip(judges(wave), judges(wave[1:2]), strict=True):
        for map_together, map_alone in zip(together, alone, strict=True):
            torch.testing.assert_close(map_together[1:2], map_alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "made", [torch.zeros(2, 1600), torch.ones(2, 1600), noise(2, 1600, scale=1e-7), noise(2, 1600)]
)
def test_gradients_are_finite_and_tame_also_on_silence(made: torch.Tensor) -> None:
    judges = made_from(ONE_OF_EACH)
    found = play_round(judges, made, torch.zeros(2, 1600))
    assert torch.isfinite(found.wave_gradient).all()
    assert found.wave_gradient.abs().max() < 1e3
    assert all(torch.isfinite(p.grad).all() for p in judges.parameters())


def test_round_equals_the_losses_taken_apart() -> None:
    judges, made, target = made_from(ONE_OF_EACH), noise(2, 1600), noise(2, 1600, seed=1)
    found = play_round(judges, made, target)
    grads = {name: p.grad.clone() for name, p in judges.named_parameters()}
    judges.zero_grad()
    wave = made.clone().requires_grad_()
    generator = losses.generator_loss(judges(wave))
    matching = losses.feature_matching_loss(judges(wave), judges(target))
    (generator + 2 * matching).backward()
    torch.testing.assert_close(found.wave_gradient, wave.grad, atol=1e-6, rtol=1e-3)
    judges.zero_grad()
    judged = losses.discriminator_loss(judges(made), judges(target))
    judged.backward()
    for name, p in judges.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, atol=1e-5, rtol=1e-3)
    for ours, theirs in (
        (found.generator, generator),
        (found.feature_matching, matching),
        (found.discriminator, judged),
    ):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert not ours.requires_grad


def test_round_without_training_leaves_the_judges_alone() -> None:
    judges, made, target = made_from(ONE_OF_EACH), noise(2, 1600), noise(2, 1600, seed=1)
    trained = play_round(judges, made, target)
    judges.zero_grad()
    kept = play_round(judges, made, target, train_discriminators=False)
    assert all(p.grad is None for p in judges.parameters())
    torch.testing.assert_close(kept.wave_gradient, trained.wave_gradient, atol=1e-6, rtol=1e-3)


def test_rounds_work_under_bfloat16_autocast() -> None:
    judges, made, target = made_from(ONE_OF_EACH), noise(2, 1600), noise(2, 1600, seed=1)
    plain = play_round(judges, made, target)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = play_round(judges, made, target)
    assert mixed.wave_gradient.dtype == torch.float32
    assert mixed.discriminator.item() == pytest.approx(plain.discriminator.item(), rel=3e-2)
    cosine = torch.nn.functional.cosine_similarity(mixed.wave_gradient, plain.wave_gradient)
    assert cosine.min() > 0.9


def test_judges_learn_to_tell_noise_from_tones() -> None:
    judges = only(periods=(2,), windows=(256,))
    optimiser = torch.optim.AdamW(judges.parameters(), 2e-3, betas=(0.8, 0.99))
    time_s = torch.arange(1600) / 24_000
    tones = 0.3 * torch.sin(2 * torch.pi * torch.tensor([[440.0], [1500.0]]) * time_s)
    for step in range(12):
        optimiser.zero_grad()
        found = play_round(judges, noise(2, 1600, seed=step), tones)
        optimiser.step()
    assert found.discriminator < 0.5 < found.generator
