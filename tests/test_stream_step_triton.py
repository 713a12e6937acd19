"""The kernels of one stream step: machine code for cards that are not here, and whole steps on one that is.

Compiled are the kernels of every layer of our presets for both cards, in float32 as the engine runs them.  By default
bfloat16 is compiled for one of the cards in turn; STREAMCODEC_ALL_CUBINS=1 compiles it for both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="Triton kernels take torch tensors")
pytest.importorskip("triton", reason="Triton kernels need triton")

from cubins import TARGETS, Usage, assert_fits, usage  # noqa: E402
from stream_layers import Streams, conv, conv_transpose, residual, waveform  # noqa: E402

from streamcodec.architecture import (  # noqa: E402
    Conv,
    ConvTranspose,
    Layer,
    Residual,
    Snake,
    Tanh,
    decoder_layers,
    encoder_layers,
)
from streamcodec.config import PRESETS  # noqa: E402
from streamcodec_kernels.conv import _triton as conv_triton  # noqa: E402
from streamcodec_kernels.residual_unit import _triton as residual_triton  # noqa: E402
from streamcodec_kernels.ring import _triton as ring_triton  # noqa: E402
from streamcodec_kernels.waveform_conv import _triton as waveform_triton  # noqa: E402

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Build:
    """What the launch of one layer compiles."""

    kernel: str
    constants: tuple[tuple[str, Any], ...]
    warps: int
    stages: int


def built(layer: Layer, rows: int, before: Layer | None, after: Layer | None) -> tuple[Build | None, int]:
    """Of a layer that takes `rows` rows a frame, between two others; and the rows that it gives."""
    around = {"with_snake": isinstance(before, Snake), "with_tanh": isinstance(after, Tanh), "precision": "ieee"}
    match layer:
        case Residual():
            dilated = layer.body[1]
            constants, warps = residual_triton.plan(rows, dilated.in_channels, dilated.kernel, dilated.dilation)
            constants = {**constants, "precision": "ieee", "fence": True}
            return Build("residual", tuple(constants.items()), warps, 1), rows
        case ConvTranspose():
            constants = conv_triton.plan(rows, layer.in_channels, layer.stride * layer.out_channels, 2, 1)
            constants |= around
            return Build("conv", tuple(constants.items()), conv_triton.WARPS, conv_triton.STAGES), rows * layer.stride
        case Conv(out_channels=1):
            constants = waveform_triton.plan(rows, layer.in_channels, layer.kernel)
            return Build("waveform", tuple(constants.items()), waveform_triton.WARPS, 3), rows
        case Conv():
            constants = conv_triton.plan(rows, layer.in_channels, layer.out_channels, layer.kernel, layer.stride)
            constants |= around
            return Build("conv", tuple(constants.items()), conv_triton.WARPS, conv_triton.STAGES), rows // layer.stride
    return None, rows


def builds() -> list[Build]:
    """What our presets compile, each once."""
    found: dict[Build, None] = {}
    for name in ("tiny-24k", "base-24k", "voice-24k"):
        config = PRESETS[name]
        for layers, rows in ((encoder_layers(config), config.hop_samples), (decoder_layers(config), 1)):
            for before, layer, after in zip((None, *layers), layers, (*layers[1:], None), strict=False):
                build, rows = built(layer, rows, before, after)
                if build:
                    found[build] = None
    return list(found)


KERNELS = {
    "residual": residual_triton.residual_unit_kernel,
    "conv": conv_triton.conv_kernel,
    "waveform": waveform_triton.waveform_conv_kernel,
}


def compiled(build: Build, capability: int, pointer: str) -> Usage:
    """What the machine code of a build uses."""
    kernel = KERNELS[build.kernel]
    narrow = ("x_ptr", "state_ptr", "out_ptr", "weight_ptr", "mix_ptr")
    types = {name: pointer if name in narrow else "*fp32" for name in kernel.arg_names if name.endswith("_ptr")}
    types |= {"frame_ptr": "*i32", "active_ptr": "*u8", "batch": "i32"}
    options = {"num_stages": build.stages}
    with TemporaryDirectory() as folder:
        return usage(kernel, types, dict(build.constants), capability, build.warps, Path(folder), **options)


def assert_compiles(build: Build, capability: int, found: Usage) -> None:
    assert_fits(found, capability)
    assert found.registers * build.warps * 32 * 2 <= 65_536  # two programs at least on a multiprocessor


def combinations(build: Build) -> list[tuple[Build, int, str]]:
    """For which cards and types a build is compiled."""
    turn = builds().index(build) % len(TARGETS)
    halves = TARGETS if os.environ.get("STREAMCODEC_ALL_CUBINS") else TARGETS[turn : turn + 1]
    return [(build, card, "*fp32") for card in TARGETS] + [(build, card, "*bf16") for card in halves]


@pytest.fixture(scope="module")
def machine_code() -> Iterator[dict[tuple[Build, int, str], Future[Usage]]]:
    """Every combination, compiled on two cores."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield {job: pool.submit(compiled, *job) for build in builds() for job in combinations(build)}


@pytest.mark.parametrize("build", [pytest.param(b, id=f"{b.kernel}{i}") for i, b in enumerate(builds())])
def test_every_layer_compiles_without_spills(
    build: Build, machine_code: dict[tuple[Build, int, str], Future[Usage]]
) -> None:
    for job in combinations(build):
        assert_compiles(build, job[1], machine_code[job].result())


@pytest.mark.parametrize(("capability", "precision"), [(80, "tf32x3"), (90, "tf32"), (90, "tf32x3")])
def test_products_on_tensor_cores_compile_without_spills(capability: int, precision: str) -> None:
    for kernel in ("residual", "conv"):
        build = next(build for build in builds() if build.kernel == kernel and dict(build.constants)["rows"] == 8)
        constants = {**dict(build.constants), "precision": precision}
        build = replace(build, constants=tuple(constants.items()))
        assert_compiles(build, capability, compiled(build, capability, "*fp32"))


@pytest.mark.parametrize("capability", TARGETS)
def test_the_counters_compile_without_spills(capability: int, tmp_path: Path) -> None:
    types = {"frame_ptr": "*i32", "active_ptr": "*u8", "batch": "i32"}
    constants = {"block": ring_triton.ADVANCE_BLOCK}
    assert_fits(usage(ring_triton.advance_kernel, types, constants, capability, 4, tmp_path), capability)


LAYERS = {
    "residual of 320": partial(residual, 320, 32, 7, 9),
    "residual of 160": partial(residual, 160, 64, 7, 3),
    "residual of 40": partial(residual, 40, 128, 7, 1),
    "residual of 8": partial(residual, 8, 256, 7, 9),
    "first": partial(conv, 320, 1, 32, 7, 1, False),
    "first by five": partial(conv, 480, 1, 64, 10, 5, False),
    "by two": partial(conv, 320, 32, 64, 4, 2, True),
    "by eight": partial(conv, 8, 256, 512, 16, 8, True),
    "latent": partial(conv, 1, 512, 128, 3, 1, True),
    "transposed by eight": partial(conv_transpose, 1, 512, 256, 16, 8, True),
    "transposed by two": partial(conv_transpose, 160, 64, 32, 4, 2, True),
    "transposed to the waveform": partial(conv_transpose, 96, 64, 1, 10, 5, True, with_tanh=True),
    "waveform": partial(waveform, 320, 32, 7),
}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))


@no_gpu
@pytest.mark.gpu
@layers
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_steps_on_cuda_equal_the_reference(make: Any, dtype: torch.dtype) -> None:
    streams = Streams(make(dtype, "cuda"), 5, dtype, seed=1, device="cuda")
    for _ in range(3):
        streams.check(*streams.drawn(), TOLERANCE[dtype])


@no_gpu
@pytest.mark.gpu
@layers
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_stream_on_cuda_gives_the_same_bits_alone_and_among_others(make: Any, dtype: torch.dtype) -> None:
    layer = make(dtype, "cuda")
    together = Streams(layer, 203, dtype, seed=1, device="cuda")
    alone = Streams(layer, 1, dtype, seed=2, device="cuda")
    together.frame[77:78] = alone.frame
    together.state[77:78] = alone.state
    for _ in range(4):
        x, active = together.drawn()
        active[77] = True
        x[77] = torch.randn(layer.in_shape, generator=alone.source).to(x)
        expected = alone.step(x[77:78].clone(), active[77:78].clone())
        assert torch.equal(together.step(x, active)[77:78], expected)
        assert torch.equal(together.state[77].nan_to_num(7), alone.state[0].nan_to_num(7))


@no_gpu
@pytest.mark.gpu
def test_a_graph_replays_steps() -> None:
    from streamcodec_kernels.ring.cuda import advance

    layer = residual(40, 64, 7, 9, torch.float32, "cuda")
    plain, recorded = (Streams(layer, 33, torch.float32, seed=1, device="cuda") for _ in range(2))
    recorded.state.copy_(plain.state)
    frames = [plain.drawn() for _ in range(5)]
    x, active = (tensor.clone() for tensor in frames[0])
    out = torch.full_like(x, float("nan"))
    idle = torch.zeros_like(active)
    layer.step(x, recorded.state, recorded.frame, idle, out)  # compiles
    advance(recorded.frame, idle)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer.step(x, recorded.state, recorded.frame, active, out)
        advance(recorded.frame, active)
    for rows, on in frames:
        x.copy_(rows)
        active.copy_(on)
        graph.replay()
        expected = plain.step(rows, on)
        assert torch.equal(out[on], expected[on])
        assert torch.equal(recorded.frame, plain.frame)
