"""The benchmark of the card: its ceilings, each kernel, streams that keep the deadline; as facts and as tables."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from streamcodec.bench.gpu import kernels
from streamcodec.bench.gpu.ceilings import Ceilings, measure_ceilings
from streamcodec.bench.gpu.contenders import ModelStepper, Stepper, TorchNetwork, check, our_batch, time_ticks
from streamcodec.bench.search import Ticks, most_streams
from streamcodec.checkpoint import Arrays
from streamcodec.config import CodecConfig
from streamcodec.errors import BackendError
from streamcodec.evaluation.speed import machine

BASELINES = ("torch", "torch-graph", "torch-compile", "torch-compile-graph")
"""What the engine is compared with: the model in torch, eager or through torch.compile, alone or as a CUDA graph."""
OURS = "streamcodec"
TICKS = 300
KERNEL_STREAMS = 256
MOST_STREAMS = 1 << 16
_CHECKED_STREAMS = 3

Model = tuple[CodecConfig, Arrays]
Progress = Callable[[str], None]


def require_gpu() -> torch.device:
    """The card to measure.

    Raises
    ------
    BackendError
        torch finds none.
    """
    if not torch.cuda.is_available():
        raise BackendError("torch finds no GPU to measure; choose --device cpu, which measures the CPU engine")
    return torch.device("cuda", torch.cuda.current_device())


def gpu_machine(device: torch.device) -> dict[str, str]:
    """Card, versions and date."""
    properties = torch.cuda.get_device_properties(device)
    card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs"
    return {"gpu": card, "cuda": str(torch.version.cuda)} | machine()


def measure_kernels(
    model: Model,
    device: torch.device,
    ceilings: Ceilings,
    *,
    streams: int = KERNEL_STREAMS,
    precision: str = "ieee",
    compiled: bool = False,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Check and time every launch of a model's step.

    Raises
    ------
    BackendError
        A kernel is wrong.
    """
    rows = []
    for case in kernels.cases(*model, streams, device, precision):
        progress(f"{case.kernel} {case.name}")
        rows.append(asdict(kernels.time_case(case, ceilings, device, precision, compiled)))
    return {"model": model[0].name, "streams": streams, "precision": precision, "kernels": rows}


def measure_engine(
    model: Model,
    device: torch.device,
    baselines: Sequence[str],
    *,
    precision: str = "ieee",
    ticks: int = TICKS,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Search for the streams that each contender carries within the deadline, duplex.

    Raises
    ------
    BackendError
        A contender is wrong.
    """
    config, arrays = model
    rows = []
    for name, make in makers(model, device, baselines, precision).items():
        progress(f"{config.name}: {name}")
        check(name, make(_CHECKED_STREAMS), config, arrays)
        tell = functools.partial(_tell, progress, f"{config.name}: {name}")
        best = search(make, config, ticks, tell, steps_per_octave=1 if _is_compiled(name) else 32)
        rows.append({"engine": name} | asdict(best))
    return {
        "model": config.name,
        "precision": precision,
        "deadline_ms": config.algorithmic_latency_ms,
        "ticks": ticks,
        "engines": rows,
    }


def makers(
    model: Model, device: torch.device, baselines: Sequence[str], precision: str = "ieee"
) -> dict[str, Callable[[int], Stepper]]:
    """What makes each contender for a number of streams, ours first."""
    made: dict[str, Callable[[int], Stepper]] = {OURS: functools.partial(_ours, model, device, precision)}
    for name in baselines:
        network = TorchNetwork(*model, device, compiled=_is_compiled(name))
        made[name] = functools.partial(ModelStepper, network, graph=name.endswith("-graph"))
    return made


def _is_compiled(name: str) -> bool:
    return name.startswith("torch-compile")


def _ours(model: Model, device: torch.device, precision: str, streams: int) -> Stepper:
    return our_batch(*model, streams, device, precision)


def search(
    make: Callable[[int], Stepper],
    config: CodecConfig,
    ticks: int,
    progress: Callable[[int], None] = lambda streams: None,
    most: int = MOST_STREAMS,
    steps_per_octave: int = 32,
) -> Ticks:
    """Most streams whose p99 step keeps the deadline; what does not fit the card's memory does not keep it."""

    def measure(streams: int) -> Ticks:
        progress(streams)
        return ticks_of(make, streams, config, ticks)

    return most_streams(measure, 1, config.algorithmic_latency_ms, most, steps_per_octave)


def ticks_of(make: Callable[[int], Stepper], streams: int, config: CodecConfig, ticks: int) -> Ticks:
    """Time so many streams; infinite where they do not fit the card's memory."""
    gc.collect()  # the tensors of the number before
    try:
        return time_ticks(make(streams), config, ticks)
    except torch.OutOfMemoryError:
        return Ticks(streams, float("inf"), float("inf"))


def _tell(progress: Progress, what: str, streams: int) -> None:
    progress(f"{what}, {streams} streams")


def facts(
    about: dict[str, str],
    ceilings: Ceilings,
    kernel_runs: Sequence[dict[str, Any]],
    engine_runs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "machine": about,
        "ceilings": asdict(ceilings),
        "kernel_runs": list(kernel_runs),
        "engine_runs": list(engine_runs),
    }


def text(measured: dict[str, Any]) -> str:
    """The same facts for people, as Markdown."""
    ceilings = measured["ceilings"]
    lines = [f"{name}: {value}" for name, value in measured["machine"].items()]
    lines.append(
        f"ceilings: copy {ceilings['copy_gb_per_s']:.0f} GB/s; matrix products, GFLOP/s: float32 "
        f"{ceilings['float32_gflop_per_s']:.0f}, tf32 {ceilings['tf32_gflop_per_s']:.0f}, "
        f"bfloat16 {ceilings['bfloat16_gflop_per_s']:.0f}"
    )
    for run in measured["engine_runs"]:
        lines += ["", *engine_lines(run)]
    for run in measured["kernel_runs"]:
        lines += ["", *kernel_lines(run)]
    return "\n".join(lines)


def engine_lines(run: dict[str, Any]) -> list[str]:
    """Streams per card, a row an engine; ratios are of streams, ours over theirs."""
    lines = [
        f"{run['model']}, {run['precision']}: streams per card, both ways, p99 of {run['ticks']} steps within "
        f"{run['deadline_ms']:.1f} ms; to 3 %, of torch-compile to a power of two",
        "",
        "| engine | streams | p50 ms | p99 ms | ours / theirs |",
        "|---|---|---|---|---|",
    ]
    ours = run["engines"][0]["streams"]
    for row in run["engines"]:
        ratio = f"{ours / row['streams']:.1f}" if row["streams"] else "-"
        lines.append(f"| {row['engine']} | {row['streams']} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {ratio} |")
    return lines


def kernel_lines(run: dict[str, Any]) -> list[str]:
    """A row a launch; ratios are of time, theirs over ours."""
    lines = [
        f"{run['model']}, {run['precision']}: each launch of a step of {run['streams']} streams; share of ceiling is "
        "the time that the card's copy and product rates allow over the time taken",
        "",
        "| kernel | layer | one stream's shape | ms | torch / ours | compile / ours | GB/s | GFLOP/s | of ceiling |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["kernels"]:
        compiled = "-" if row["compile_ms"] is None else f"{row['compile_ms'] / row['ours_ms']:.1f}"
        lines.append(
            f"| {row['kernel']} | {row['name']} | {row['shape']} | {row['ours_ms']:.3f} "
            f"| {row['torch_ms'] / row['ours_ms']:.1f} | {compiled} | {row['gb_per_s']:.0f} | {row['gflop_per_s']:.0f} "
            f"| {row['floor_share']:.0%} |"
        )
    return lines


def measure(
    models: Sequence[Model], baselines: Sequence[str], precision: str = "ieee", progress: Progress = lambda what: None
) -> dict[str, Any]:
    """Everything about this machine's card: its ceilings, and every model's engines and kernels.

    Raises
    ------
    BackendError
        There is no card, or something is wrong on it.
    """
    device = require_gpu()
    progress("ceilings")
    ceilings = measure_ceilings(device)
    compiled = any(_is_compiled(name) for name in baselines)
    engines = [measure_engine(model, device, baselines, precision=precision, progress=progress) for model in models]
    launches = [
        measure_kernels(model, device, ceilings, precision=precision, compiled=compiled, progress=progress)
        for model in models
    ]
    return facts(gpu_machine(device), ceilings, launches, engines)
