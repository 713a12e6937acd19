"""Each launch of the batched engine against the same layers in torch, on the shapes of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from streamcodec import architecture as arch
from streamcodec.bench.gpu.ceilings import Ceilings
from streamcodec.bench.gpu.timers import median_ms
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.engine.batch.triton_steps import Chain, LayerStep, TritonSteps
from streamcodec.errors import BackendError
from streamcodec.nn.layers import Stack
from streamcodec.nn.model import CodecModel
from streamcodec_kernels.code_lookup import cuda as code_lookup
from streamcodec_kernels.nearest_code import cuda as nearest_code

OUTPUT_ERROR = 2e-3
"""Largest difference from torch, as a share of the largest output."""
CODES_AGREE = 0.98


@dataclass(frozen=True)
class KernelTime:
    """One launch.

    Parameters
    ----------
    kernel, name, shape : str
        Operation, the layers it stands for, and their shape.
    ours_ms, torch_ms : float
        Time of the launch, and of the same layers in eager torch.
    compile_ms : float or None
        The same through torch.compile, where that was asked for.
    gb_per_s, gflop_per_s : float
        What the launch moves and computes at the least, over its time.
    floor_share : float
        Time that the card's own copy and product rates would allow, over the launch's time; 1 is the ceiling.
    """

    kernel: str
    name: str
    shape: str
    ours_ms: float
    torch_ms: float
    compile_ms: float | None
    gb_per_s: float
    gflop_per_s: float
    floor_share: float


@dataclass(frozen=True)
class Case:
    """One launch and its counterpart; both return what they wrote."""

    kernel: str
    name: str
    shape: str
    ours: Callable[[], Tensor]
    torch: Callable[[], Tensor]
    n_bytes: int
    flops: int


def macs(layer: arch.Layer, rows: int) -> int:
    """Multiply-accumulates of one stream's step of so many input rows."""
    match layer:
        case arch.Residual():
            return sum(macs(inner, rows) for inner in layer.body)
        case arch.Conv():
            inputs = 1 if layer.depthwise else layer.in_channels
            return rows // layer.stride * layer.kernel * layer.out_channels * inputs
        case arch.ConvTranspose():
            return rows * layer.in_channels * layer.kernel * layer.out_channels
        case _:
            return 0


def traffic_bytes(step: LayerStep, streams: int) -> int:
    """Least traffic of a launch: input, output, history read and written, and weights once; float32."""
    shapes = [shape for _, leaf in arch.named_leaves("", step.layers) for shape in leaf.array_shapes.values()]
    convolutions = _convolutions(step)
    values = step.rows * convolutions[0].in_channels + step.out_rows * step.out_channels
    for leaf in convolutions:
        kept = 1 if isinstance(leaf, arch.ConvTranspose) else leaf.history_rows
        values += (kept + min(kept, step.rows)) * leaf.in_channels
    return 4 * (sum(torch.Size(shape).numel() for shape in shapes) + streams * values)


def _convolutions(step: LayerStep) -> list[arch.Conv | arch.ConvTranspose]:
    leaves = [leaf for _, leaf in arch.named_leaves("", step.layers)]
    return [leaf for leaf in leaves if isinstance(leaf, arch.Conv | arch.ConvTranspose)]


def cases(config: CodecConfig, arrays: Arrays, streams: int, device: torch.device, precision: str) -> Iterator[Case]:
    """Every launch of a step of so many streams, from a state of zeros."""
    steps = TritonSteps(config, arrays, streams, device, precision)
    model = CodecModel(config)
    model.load_arrays(arrays)
    model.eval().requires_grad_(False).to(device)
    active = torch.ones(streams, dtype=torch.bool, device=device)
    for chain, stack in ((steps.encoder, model.encoder), (steps.decoder, model.decoder)):
        for step in chain.steps:
            yield _layer_case(chain, step, stack, active)
    yield from _quantizer_cases(config, steps, model, active)


def _layer_case(chain: Chain, step: LayerStep, stack: Stack, active: Tensor) -> Case:
    first = int(step.name.rsplit(".", 1)[1])
    modules = list(stack)[first : first + len(step.layers)]
    leaf = next(
        leaf for _, leaf in arch.named_leaves("", step.layers) if isinstance(leaf, arch.Conv | arch.ConvTranspose)
    )
    source = torch.Generator(active.device).manual_seed(first)
    x = torch.randn(chain.streams, step.rows, leaf.in_channels, device=active.device, generator=source)
    out = x.new_full((chain.streams, step.out_rows, step.out_channels), float("nan"))
    states = [x.new_zeros(chain.streams, *module.state_shape) for module in modules]  # type: ignore[misc]

    def ours() -> Tensor:
        step.run(x, active, out)
        return out

    def in_torch() -> Tensor:
        y = x
        for module, state in zip(modules, states, strict=True):
            y = module.step(y, state)  # type: ignore[operator]
        return y

    flops = 2 * chain.streams * sum(macs(layer, step.rows) for layer in step.layers)
    shape = f"{step.rows} x {leaf.in_channels} to {step.out_rows} x {step.out_channels}"
    return Case(step.kernel, step.name, shape, ours, in_torch, traffic_bytes(step, chain.streams), flops)


def _quantizer_cases(config: CodecConfig, steps: TritonSteps, model: CodecModel, active: Tensor) -> Iterator[Case]:
    streams, books = active.shape[0], config.n_codebooks
    source = torch.Generator(active.device).manual_seed(0)
    latent = torch.randn(streams, config.latent_dim, device=active.device, generator=source)
    counts = torch.full_like(active, books, dtype=torch.int32)
    codes = torch.zeros(streams, books, dtype=torch.int16, device=active.device)
    found, out = codes.clone(), torch.empty_like(latent)
    codes.random_(config.codebook_size, generator=source)

    def search() -> Tensor:
        nearest_code.nearest_code(latent, *steps.query, steps.parts, counts, active, found)
        return found

    def look_up() -> Tensor:
        code_lookup.code_lookup(codes, counts, steps.parts, active, out)
        return out

    tables = sum(array.numel() for array in steps.query)
    width, dim, size = config.latent_dim, config.code_dim, config.codebook_size
    shape = f"{books} books of {size} x {dim}, latent {width}"
    gathered = streams * books * width
    yield Case(
        "nearest_code",
        "quantizer",
        shape,
        search,
        lambda: model.quantizer.encode(latent[:, None], books)[:, 0],
        4 * (tables + streams * width + gathered) + 2 * streams * books,
        2 * streams * books * dim * (width + size),
    )
    yield Case(
        "code_lookup",
        "quantizer",
        shape,
        look_up,
        lambda: model.quantizer.decode(codes.long()[:, None], width)[:, 0],
        4 * (streams * width + gathered) + 2 * streams * books,
        streams * books * width,
    )


def check(case: Case) -> None:
    """Refuse a launch that does not compute what torch computes.

    Raises
    ------
    BackendError
        Its output differs.
    """
    got, expected = case.ours(), case.torch()
    if got.dtype == torch.int16:
        agree = float((got == expected).float().mean())
        if agree < CODES_AGREE:
            raise BackendError(f"{case.kernel} is wrong: {agree:.1%} of the codes agree; nothing is reported")
        return
    error = float((got - expected).abs().max() / expected.abs().max())
    if not error < OUTPUT_ERROR:
        raise BackendError(
            f"{case.kernel} of {case.name} is wrong: it differs by {error:.1e} of the largest output; "
            "nothing is reported"
        )


@torch.no_grad()
def time_case(case: Case, ceilings: Ceilings, device: torch.device, precision: str, compiled: bool) -> KernelTime:
    """Check one launch, then time it."""
    check(case)
    ours_ms = median_ms(case.ours, device)
    torch.compiler.reset()  # the cases share their code, which would be compiled but a few times
    compile_ms = median_ms(torch.compile(case.torch), device) if compiled else None
    return KernelTime(
        case.kernel,
        case.name,
        case.shape,
        ours_ms,
        median_ms(case.torch, device),
        compile_ms,
        case.n_bytes / (1e6 * ours_ms),
        case.flops / (1e6 * ours_ms),
        ceilings.floor_ms(case.n_bytes, case.flops, precision) / ours_ms,
    )
