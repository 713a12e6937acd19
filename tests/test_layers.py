"""Layers: streams equal clips, fused training equals plain arithmetic, misuse is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the torch model needs torch")

from contract import assert_step_equals_forward, chunkings  # noqa: E402
from small_models import SMALL, STRIDED  # noqa: E402

from streamcodec import architecture as arch  # noqa: E402
from streamcodec.config import CodecConfig  # noqa: E402
from streamcodec.errors import AudioError, ConfigError  # noqa: E402
from streamcodec.nn.layers import Stack  # noqa: E402
from streamcodec.nn.model import CodecModel  # noqa: E402

KERNELS, STRIDES, DILATIONS = (1, 2, 3, 4, 7), (1, 2, 3, 4, 5, 8), (1, 3, 9)
drawn = settings(max_examples=4, deadline=None, derandomize=True)


def stack_of(*layers: arch.Layer, weight_norm: bool = False) -> Stack:
    """Layers with every parameter drawn, biases and alphas too."""
    stack = Stack(layers, causal=True, weight_norm=weight_norm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return stack


def clip(streams: int, rows: int, channels: int) -> torch.Tensor:
    return torch.randn(streams, rows, channels, generator=torch.Generator().manual_seed(2))


def residual(channels: int, kernel: int, dilation: int, depthwise: bool) -> arch.Residual:
    conv = arch.Conv(channels, channels, kernel, dilation=dilation, depthwise=depthwise)
    return arch.Residual((arch.Snake(channels), conv, arch.Snake(channels), arch.Conv(channels, channels, 1)))


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_convolution_steps_equal_forward_for_any_chunking(kernel: int, stride: int) -> None:
    shapes = ((3, 2, False), (2, 3, False), (3, 3, True))  # fewer channels out, more, depthwise: different products
    stacks = [
        stack_of(arch.Conv(into, out, kernel, stride, dilation, depthwise))
        for dilation in DILATIONS
        for into, out, depthwise in shapes
    ]

    @drawn
    @given(chunkings, st.integers(0, 2))
    def check(units: list[int], restarted: int) -> None:
        chunks = [stride * unit for unit in units]
        for stack in stacks:
            x = clip(3, sum(chunks), stack.layers[0].in_channels)
            assert_step_equals_forward(stack, x, chunks, restarted)

    check()


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", [*KERNELS, 10, 16])
def test_transposed_convolution_steps_equal_forward_for_any_chunking(kernel: int, stride: int) -> None:
    stack = stack_of(arch.ConvTranspose(3, 2, kernel, stride))

    @drawn
    @given(chunkings, st.integers(0, 2))
    def check(chunks: list[int], restarted: int) -> None:
        assert_step_equals_forward(stack, clip(3, sum(chunks), 3), chunks, restarted)

    check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_residual_unit_steps_equal_forward_for_any_chunking(kernel: int) -> None:
    stacks = [stack_of(residual(3, kernel, d, depthwise)) for d in DILATIONS for depthwise in (False, True)]

    @drawn
    @given(chunkings, st.integers(0, 1))
    def check(chunks: list[int], restarted: int) -> None:
        for stack in stacks:
            assert_step_equals_forward(stack, clip(2, sum(chunks), 3), chunks, restarted)

    check()


@drawn
@given(chunkings)
def test_activation_steps_equal_forward_for_any_chunking(chunks: list[int]) -> None:
    for layer in (arch.Snake(3), arch.Tanh(3)):
        assert_step_equals_forward(stack_of(layer), clip(2, sum(chunks), 3), chunks, restarted=1)


@pytest.mark.parametrize("stride", [1, 2, 5, 8])
def test_strides_beside_the_waveform_step_as_they_run_for_any_chunking(stride: int) -> None:
    reads = stack_of(arch.Conv(1, 3, 2 * stride, stride))
    writes = stack_of(arch.ConvTranspose(3, 1, 2 * stride, stride))

    @drawn
    @given(chunkings, st.integers(0, 2))
    def check(chunks: list[int], restarted: int) -> None:
        samples = [stride * rows for rows in chunks]
        assert_step_equals_forward(reads, clip(3, sum(samples), 1), samples, restarted)
        assert_step_equals_forward(writes, clip(3, sum(chunks), 3), chunks, restarted)

    check()


@pytest.mark.parametrize("config", [SMALL, STRIDED], ids=lambda config: config.name)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2))
def test_encoder_and_decoder_steps_equal_forward_for_any_chunking(
    config: CodecConfig, frames: list[int], restarted: int
) -> None:
    for trainable in (False, True):
        torch.manual_seed(0)
        model = CodecModel(config, trainable=trainable)
        samples = [config.hop_samples * count for count in frames]
        assert_step_equals_forward(model.encoder, clip(3, sum(samples), 1), samples, restarted)
        assert_step_equals_forward(model.decoder, clip(3, sum(frames), config.latent_dim), frames, restarted)


def test_conv_equals_torch_and_transposed_conv_equals_torch() -> None:
    x = clip(2, 40, 3)
    for kernel, stride, dilation in ((7, 1, 9), (4, 2, 1), (3, 5, 3), (16, 8, 1)):
        layer = stack_of(arch.Conv(3, 4, kernel, stride, dilation))[0]
        past = torch.nn.functional.pad(x, (0, 0, layer.layer.span - stride, 0)).transpose(1, 2)
        expected = torch.nn.functional.conv1d(past, layer.weight().permute(2, 1, 0), layer.bias, stride, 0, dilation)
        assert torch.allclose(layer(x), expected.transpose(1, 2), atol=1e-5)
    for kernel, stride in ((16, 8), (4, 5), (7, 2)):
        layer = stack_of(arch.ConvTranspose(3, 4, kernel, stride))[0]
        expected = torch.nn.functional.conv_transpose1d(
            x.transpose(1, 2), layer.weight().permute(0, 2, 1), layer.bias, stride
        )
        length = min(40 * stride, expected.shape[2])
        assert torch.allclose(layer(x)[:, :length], expected.transpose(1, 2)[:, :length], atol=1e-5)


@pytest.mark.parametrize("trainable", [False, True])
def test_published_shape_keeps_length_and_equals_torch_padding(trainable: bool) -> None:
    config = CodecConfig("dac", 16_000, 2, 32, (2, 4, 8, 8), 8, 2, 16, causal=False, depthwise=False)
    model = CodecModel(config, trainable=trainable)
    latent = model.encode_latent(0.1 * clip(2, 4 * 512, 1)[..., 0])
    assert latent.shape == (2, 4, 8)
    assert model.decode_latent(latent).shape == (2, 4 * 512)
    conv = model.encoder[5]  # kernel 4, stride 2, as torch pads it
    rows = clip(1, 16, 2)
    expected = torch.nn.functional.conv1d(
        rows.transpose(1, 2), conv.weight().permute(2, 1, 0), conv.bias, stride=2, padding=1
    )
    assert torch.allclose(conv(rows), expected.transpose(1, 2), atol=1e-5)


GRADIENT_CASES = {
    "snake": (arch.Snake(5),),
    "depthwise unit": (residual(5, 7, 3, True),),
    "depthwise unit of another kernel": (residual(3, 4, 9, True),),
    "dense unit": (residual(4, 7, 3, False),),
    "wide unit": (residual(1100, 3, 1, True),),
    "waveform to waveform": (arch.Conv(1, 4, 4, 2), arch.Snake(4), arch.ConvTranspose(4, 1, 10, 5), arch.Tanh(1)),
    "down, up": (arch.Conv(5, 4, 4, 2), arch.Snake(4), arch.ConvTranspose(4, 3, 10, 5)),
}


@pytest.mark.parametrize("case", GRADIENT_CASES)
@pytest.mark.parametrize("weight_norm", [False, True])
def test_training_path_equals_float64_in_values_and_gradients(case: str, weight_norm: bool) -> None:
    layers = GRADIENT_CASES[case]
    fused = stack_of(*layers, weight_norm=weight_norm)
    first = layers[0].body[0].channels if isinstance(layers[0], arch.Residual) else None
    channels = first or getattr(layers[0], "in_channels", None) or layers[0].channels
    exact = copy.deepcopy(fused).double()
    x = clip(2, 22, channels).requires_grad_()
    x_exact = x.detach().double().requires_grad_()
    made, expected = fused(x), exact(x_exact)
    with torch.no_grad():
        plain = fused(x)
    tolerance = 1e-5 * max(1.0, float(expected.detach().abs().max()))
    assert float((made - expected).detach().abs().max()) <= tolerance
    assert float((plain - expected).detach().abs().max()) <= tolerance
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(3))
    (made * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    pairs = [("x", x, x_exact)]
    pairs += [(name, p, dict(exact.named_parameters())[name]) for name, p in fused.named_parameters()]
    for name, got, wanted in pairs:
        scale = float(wanted.grad.abs().max())
        error = float((got.grad.double() - wanted.grad).abs().max())
        assert error <= 2e-5 * scale, f"gradient of {name} is off by {error} of {scale}"


@pytest.mark.parametrize("config", [SMALL, STRIDED], ids=lambda config: config.name)
def test_bfloat16_training_path_is_close_to_float32(config: CodecConfig) -> None:
    torch.manual_seed(0)
    model = CodecModel(config, trainable=True)
    wave = 0.1 * clip(2, 2 * config.hop_samples, 1)[..., 0]
    expected, _, _ = model(wave, channel=lambda latent: latent)
    with torch.autocast("cpu", torch.bfloat16):
        made, _, _ = model(wave, channel=lambda latent: latent)
    assert made.dtype == torch.float32
    made.square().mean().backward()
    assert float((made.float() - expected).detach().abs().max()) < 0.1 * float(expected.detach().abs().max())
    assert all(torch.isfinite(p.grad).all() for p in model.decoder.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_width": 8},
        {"decoder_width": 64, "latent_dim": 3},
        {"strides": (5,), "latent_kernel": 1, "edge_kernel": 1},
        {"strides": (3, 1, 2), "code_dim": 1, "n_codebooks": 1},
        {"latent_dim": 100, "code_dim": 30},
        {"causal": False},
        {"dilations": (2,), "residual_kernel": 4},
        {"edge": "strided"},
        {"edge": "strided", "causal": False},
        {"edge": "strided", "decoder_width": 8},
        {"edge": "strided", "strides": (6,), "encoder_width": (5,), "decoder_width": (8,), "dilations": ((1, 2),)},
        {"encoder_width": (2, 3, 5, 8, 9), "decoder_width": (16, 9, 8, 7, 2), "dilations": ((1,), (2, 2), (3,), (1,))},
    ],
)
def test_any_shape_trains_and_runs(change: dict) -> None:
    config = replace(SMALL, **change)
    torch.manual_seed(0)
    trained, plain = CodecModel(config, trainable=True), CodecModel(config)
    wave = 0.1 * clip(1, 4 * config.hop_samples, 1)[..., 0]
    made, _, quantized = trained(wave)
    (made.square().mean() + quantized.commitment_loss).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in trained.parameters())
    plain.load_arrays(trained.export_arrays())
    with torch.no_grad():
        assert torch.allclose(plain(wave)[0], made, atol=1e-5)


def test_rows_that_are_no_multiple_of_the_stride_are_refused() -> None:
    stack = stack_of(arch.Conv(1, 1, 4, 2))
    with pytest.raises(AudioError, match="5 rows; give a multiple of the stride 2"):
        stack(clip(1, 5, 1))
    with pytest.raises(AudioError, match="multiple of the stride 2"):
        stack.step(clip(1, 5, 1), stack.init_state(1))


def test_depthwise_convolution_refuses_to_change_the_channels() -> None:
    with pytest.raises(ConfigError, match="depthwise Conv maps 2 to 3"):
        stack_of(arch.Conv(2, 3, 7, depthwise=True))


def test_channel_of_zero_weights_stays_zero_and_has_finite_gradients() -> None:
    conv = stack_of(arch.Conv(2, 2, 3), weight_norm=True)[0]
    weight = conv.weight().detach().clone()
    weight[..., 0] = 0
    conv.weight.load(weight)
    assert torch.equal(conv.weight(), weight)
    on_cuda = torch._weight_norm(conv.weight.direction, conv.weight.length, 2)
    torch.testing.assert_close(on_cuda, weight)
    (conv(clip(1, 8, 2)).sum() + on_cuda.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in conv.parameters())
