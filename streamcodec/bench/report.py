"""The benchmark of the CPU engine: one run, its table, its plot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.bench.contenders import (
    Contender,
    compiled_contender,
    onnx_contender,
    our_contender,
    torch_contender,
)
from streamcodec.bench.gemm import ProductRate, product_rates, sgemm_rates
from streamcodec.bench.reference import Weights, random_weights
from streamcodec.bench.startup import StartUp
from streamcodec.bench.streams import TICKS, Capacity, capacity
from streamcodec.bench.timing import Timing, check, time_in_turns
from streamcodec.config import CodecConfig
from streamcodec.engine.cpu import CpuEngine
from streamcodec.errors import MissingExtraError, StreamcodecError
from streamcodec.evaluation.speed import machine
from streamcodec.figures import new_figure, png
from streamcodec.files import write_bytes

BEAMS, BEAM_SHARE = (4, 8), 4
"""Beams over the codebooks that are timed, and of how many frames they code one."""

TORCH_SHARE = 10
"""Torch codes one frame where the others code so many."""

BASELINES: dict[str, tuple[Callable[[CodecConfig, Weights], Contender], int]] = {
    "onnx": (onnx_contender, 1),
    "torch": (torch_contender, TORCH_SHARE),
    "torch-compile": (compiled_contender, TORCH_SHARE),
}
"""What the engine is compared with, by name: how it is made, and of how many frames it codes one."""


@dataclass(frozen=True)
class ModelReport:
    """Everything measured about one model."""

    config: CodecConfig
    timings: list[Timing]
    products: tuple[ProductRate, ProductRate]
    capacities: list[Capacity]
    stream_bytes: int
    weight_bytes: int
    left_out: list[str]

    @property
    def times_onnx(self) -> float | None:
        """How many times faster than ONNX Runtime, p50 of encode and decode together; None without it."""
        both = {t.contender.name: t.encode.percentile(50) + t.decode.percentile(50) for t in self.timings}
        onnx = both.get("ONNX Runtime")
        return None if onnx is None else onnx / both["streamcodec cpu"]


def half_weights(config: CodecConfig) -> dict[str, Any]:
    """Drawn weights, rounded to float16 as a checkpoint's are."""
    return {name: array.astype(np.float16).astype(np.float32) for name, array in random_weights(config).items()}


def measure_model(
    config: CodecConfig,
    weights: Weights,
    frames: int,
    baselines: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ticks: int | None = None,
) -> ModelReport:
    """Check, then measure; one of the `baselines` that cannot run here is left out and named.

    Raises
    ------
    BackendError
        The CPU engine, or a baseline that does run, is wrong.
    """
    progress("check", 0, 1)
    contenders = []
    for beam in (1, *BEAMS):
        check(our_contender(config, weights, beam), config, weights)
        contenders.append((our_contender(config, weights, beam), frames if beam == 1 else frames // BEAM_SHARE))
    left_out = []
    for make, share in (BASELINES[name] for name in baselines):
        try:
            contender = make(config, weights)
        except MissingExtraError as error:
            left_out.append(str(error))
            continue
        try:
            check(contender, config, weights)
        except StreamcodecError:
            raise
        except Exception as error:  # torch.compile without a C++ compiler
            left_out.append(f"{contender.name}: {str(error).splitlines()[0][:100]}")
            continue
        contenders.append((contender, frames // share))
    total, done = sum(count for _, count in contenders), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(config.name, done, total)

    timings = time_in_turns(contenders, config, count)
    progress("streams", 0, 1)
    engine = CpuEngine(config, weights)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ModelReport(
        config,
        timings,
        product_rates(config, weights),
        [capacity(engine, threads, ticks or TICKS) for threads in sorted({1, cores})],
        engine.encoder_state().nbytes + engine.decoder_state().nbytes,
        engine.weight_bytes,
        left_out,
    )


def facts(reports: Sequence[ModelReport], rates: Mapping[str, float], start: StartUp | None) -> dict[str, Any]:
    """Everything, for programs.  rates: of `ceiling`."""
    return {
        "machine": machine() | {"onnxruntime": _version("onnxruntime")},
        "sgemm_gflop_per_s": max(rates.values()),
        "sgemm_rates": dict(rates),
        "start_up": None if start is None else asdict(start),
        "models": [
            {
                "name": report.config.name,
                "deadline_ms": report.config.algorithmic_latency_ms,
                "times_onnx": report.times_onnx,
                "latency": {
                    timing.contender.name: {"encode": timing.encode.summary(), "decode": timing.decode.summary()}
                    for timing in report.timings
                },
                "products": {
                    way: asdict(rate) for way, rate in zip(("encode", "decode"), report.products, strict=True)
                },
                "capacity": [asdict(one) for one in report.capacities],
                "stream_bytes": report.stream_bytes,
                "weight_bytes": report.weight_bytes,
                "left_out": report.left_out,
            }
            for report in reports
        ],
    }


def text(measured: dict[str, Any]) -> str:
    """The same facts for people, as Markdown."""
    lines = [f"{name}: {value}" for name, value in measured["machine"].items()]
    rates = sorted(measured["sgemm_rates"].items(), key=lambda one: -one[1])
    best = ", ".join(f"{name} {rate:.0f}" for name, rate in rates)
    lines += ["", f"sgemm ceiling of one core, the best of these, GFLOP/s: {best}", ""]
    lines += [
        "| model | engine | way | p50 ms | p99 ms | p99.9 ms | max ms | frames |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in measured["models"]:
        for engine, ways in model["latency"].items():
            for way, one in ways.items():
                numbers = " | ".join(f"{one[key]:.3f}" for key in ("p50_ms", "p99_ms", "p99.9_ms", "max_ms"))
                lines.append(f"| {model['name']} | {engine} | {way} | {numbers} | {one['count']} |")
    lines.append("")
    for model in measured["models"]:
        lines += _model_lines(model, measured["sgemm_gflop_per_s"])
    if measured["start_up"]:
        start = measured["start_up"]
        lines.append(
            f"import to first packet: cold {start['cold_s']:.1f} s, warm {start['warm_s']:.2f} s "
            f"(of it import {start['import_s']:.2f} s)"
        )
    return "\n".join(lines)


def _model_lines(model: dict[str, Any], ceiling: float) -> list[str]:
    lines = []
    if model["times_onnx"]:
        lines.append(f"{model['name']}: {model['times_onnx']:.1f} times faster than ONNX Runtime, both ways, p50")
    for way, rate in model["products"].items():
        share = rate["gflop_per_s"] / ceiling
        lines.append(
            f"{model['name']}: matrix products of {way} {rate['time_ms']:.3f} ms, {rate['gflop_per_s']:.0f} GFLOP/s, "
            f"{share:.0%} of the ceiling"
        )
    for one in model["capacity"]:
        lines.append(
            f"{model['name']}: {one['streams']} full-duplex streams on {one['threads']} thread(s), "
            f"p99 {one['p99_ms']:.1f} ms of {model['deadline_ms']:.1f} ms"
        )
    lines.append(
        f"{model['name']}: {model['stream_bytes'] / 1024:.0f} KiB a stream, "
        f"{model['weight_bytes'] / 2**20:.1f} MiB of weights for all"
    )
    return lines + [f"{model['name']}: left out {why}" for why in model["left_out"]]


def plot(reports: Sequence[ModelReport], path: Path) -> None:
    """Draw the latency histograms as a PNG.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    figure = new_figure(10, 3.2 * len(reports))
    axes = np.atleast_1d(figure.subplots(len(reports), 1))
    for axis, report in zip(axes, reports, strict=True):
        for timing in report.timings:
            for way, histogram in (("encode", timing.encode), ("decode", timing.decode)):
                edges, counts = zip(*histogram.buckets(), strict=True)
                label = f"{timing.contender.name} {way}, p50 {histogram.percentile(50):.2f} ms"
                axis.step(
                    edges, np.array(counts) / histogram.count, label=label, lw=1, ls="-" if way == "encode" else ":"
                )
        axis.axvline(report.config.algorithmic_latency_ms, color="black", lw=0.8, label="deadline")
        axis.set(
            xscale="log", yscale="log", xlabel="time of a frame, ms", ylabel="share of frames", title=report.config.name
        )
        axis.legend(fontsize=7)
    write_bytes(path, png(figure))


def ceiling() -> dict[str, float]:
    """Rates of one core's sgemm, GFLOP/s, by who computes it; the best of them is the ceiling."""
    return sgemm_rates()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
