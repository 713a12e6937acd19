"""The benchmark of the card: its search, costs and tables here, its numbers where there is a card."""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import SMALL

torch = pytest.importorskip("torch", reason="the batched engine needs torch")

from streamcodec.architecture import decoder_layers, encoder_layers, footprint  # noqa: E402
from streamcodec.bench.gpu import report, timebox, timers, training_kernels  # noqa: E402
from streamcodec.bench.gpu.ceilings import Ceilings, measure_ceilings  # noqa: E402
from streamcodec.bench.gpu.contenders import ModelStepper, TorchNetwork, check, time_ticks  # noqa: E402
from streamcodec.bench.report import half_weights  # noqa: E402
from streamcodec.bench.search import Ticks, most_streams  # noqa: E402
from streamcodec.cli import main  # noqa: E402
from streamcodec.config import PRESETS  # noqa: E402
from streamcodec.errors import BackendError  # noqa: E402

CPU = torch.device("cpu")
WEIGHTS = half_weights(SMALL)
CEILINGS = Ceilings(4000.0, 50_000.0, 400_000.0, 800_000.0)
BENCH = Path(__file__).parent.parent / "bench" / "gpu"
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("fits", [1, 2, 3, 37, 1000, 4096])
def test_the_search_finds_what_keeps_the_deadline(fits: int) -> None:
    tried = []

    def measure(streams: int) -> Ticks:
        tried.append(streams)
        p99_ms = 13.3 * streams / fits if streams <= 2000 else float("inf")  # more is out of memory
        return Ticks(streams, p99_ms / 2, p99_ms)

    best = most_streams(measure, 1, 13.3, 4096)
    carried = min(fits, 2000)
    assert carried - max(1, carried // 32) <= best.streams <= carried
    assert best.p99_ms == 13.3 * best.streams / fits
    assert len(tried) <= 20
    assert len(set(tried)) == len(tried)


def test_the_search_stops_at_its_ends() -> None:
    assert most_streams(lambda streams: Ticks(streams, 1.0, 2.0), 1, 13.3, 100) == Ticks(100, 1.0, 2.0)
    assert most_streams(lambda streams: Ticks(streams, 1.0, 20.0), 1, 13.3, 100) == Ticks(0, 1.0, 20.0)
    tried = []
    coarse = most_streams(lambda n: tried.append(n) or Ticks(n, 0.1, 0.1 * n), 1, 13.3, 1000, steps_per_octave=1)
    assert coarse.streams == 128
    assert tried == [1, 2, 4, 8, 16, 32, 64, 128, 256]


@pytest.mark.parametrize("fits", [0, 1, 37, 700, 3000])
def test_a_search_that_begins_too_high_comes_down(fits: int) -> None:
    tried: list[int] = []
    best = most_streams(lambda n: tried.append(n) or Ticks(n, 1.0, float(n > fits)), 1024, 0.5, 4096)
    assert fits - max(1, fits // 32) <= best.streams <= fits
    assert len(set(tried)) == len(tried) <= 20


def test_ticks_are_the_time_of_steps_alone() -> None:
    stepper = ModelStepper(TorchNetwork(SMALL, WEIGHTS, CPU), 2)
    clock = map(float, np.repeat(np.arange(20), 2) + np.tile([0, 0.004], 20))
    ticks = time_ticks(stepper, SMALL, 15, lambda: next(clock))
    assert ticks.streams == 2
    assert (ticks.p50_ms, ticks.p99_ms) == pytest.approx((4, 4))


def test_what_is_out_of_memory_does_not_keep_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(streams: int) -> int:
        if streams > 5:
            raise torch.OutOfMemoryError
        return streams

    monkeypatch.setattr(report, "time_ticks", lambda streams, config, ticks: Ticks(streams, 1.0, 1.0))
    assert report.search(make, SMALL, 3).streams == 5


@pytest.mark.parametrize("name", ["streamcodec", "torch", "torch-graph"])
def test_contenders_compute_the_network(name: str) -> None:
    makers = report.makers((SMALL, WEIGHTS), CPU, ["torch", "torch-graph"])
    check(name, makers[name](2), SMALL, WEIGHTS)


def test_a_wrong_contender_is_not_reported() -> None:
    deaf = ModelStepper(TorchNetwork(SMALL, WEIGHTS, CPU), 2)
    deaf.heard = np.zeros_like(deaf.heard)
    with pytest.raises(BackendError, match=r"deaf is wrong: .*nothing is reported"):
        check("deaf", deaf, SMALL, WEIGHTS)


def test_ceilings_are_rates_and_floors_follow_from_them() -> None:
    measured = measure_ceilings(CPU, copy_bytes=1 << 20, square=64)
    assert all(0 < rate < 1e6 for rate in (measured.copy_gb_per_s, measured.float32_gflop_per_s))
    assert CEILINGS.floor_ms(4_000_000_000, 10, "ieee") == pytest.approx(1)
    assert CEILINGS.floor_ms(8, 50_000_000_000, "ieee") == pytest.approx(1)
    assert CEILINGS.floor_ms(8, 400_000_000_000, "tf32") == pytest.approx(1)


@pytest.mark.parametrize("name", ["tiny-24k", "voice-24k"])
def test_costs_are_those_of_the_footprint(name: str) -> None:
    from streamcodec.bench.gpu.kernels import macs, traffic_bytes
    from streamcodec.engine.batch.triton_steps import Chain

    config = PRESETS[name]
    weights = {name: torch.from_numpy(array) for name, array in half_weights(config).items()}
    encoder = Chain("encoder", encoder_layers(config), config.hop_samples, weights, 1, "ieee")
    decoder = Chain("decoder", decoder_layers(config), 1, weights, 1, "ieee")
    cost = footprint(config)
    search = config.n_codebooks * config.code_dim * (2 * config.latent_dim + config.codebook_size)
    lookup = config.n_codebooks * config.code_dim * config.latent_dim
    for chain, macs_per_s, other in (
        (encoder, cost.encoder_macs_per_s, search),
        (decoder, cost.decoder_macs_per_s, lookup),
    ):
        per_frame = sum(macs(layer, step.rows) for step in chain.steps for layer in step.layers)
        assert (per_frame + other) * config.frame_rate_hz == pytest.approx(macs_per_s)
    first, unit = encoder.steps[:2]
    if name == "voice-24k":
        assert traffic_bytes(first, 3) == 4 * (10 * 64 + 64 + 3 * (480 + 96 * 64 + 2 * 5))
        assert traffic_bytes(decoder.steps[-1], 3) == 4 * (64 + 10 * 64 + 1 + 3 * (96 * 64 + 480 + 2 * 64))
        return
    assert traffic_bytes(first, 3) == 4 * (7 * 16 + 16 + 3 * (320 + 320 * 16 + 2 * 6))
    weights_of_unit = 16 + 7 * 16 + 16 + 16 + 16 * 16 + 16
    assert traffic_bytes(unit, 3) == 4 * (weights_of_unit + 3 * 16 * (320 + 320 + 2 * 6))


def made_up_facts() -> dict[str, object]:
    engines = [
        {"engine": "streamcodec", "streams": 3000, "p50_ms": 12.5, "p99_ms": 13.1},
        {"engine": "torch", "streams": 20, "p50_ms": 11.0, "p99_ms": 13.0},
        {"engine": "torch-graph", "streams": 0, "p50_ms": 20.0, "p99_ms": 30.0},
    ]
    launch = {
        "kernel": "conv",
        "name": "encoder.4",
        "shape": "320 x 16 to 160 x 32",
        "ours_ms": 0.02,
        "torch_ms": 0.1,
        "compile_ms": None,
        "gb_per_s": 2000.0,
        "gflop_per_s": 9000.0,
        "floor_share": 0.5,
    }
    engine_run = {"model": "tiny", "precision": "ieee", "deadline_ms": 13.33, "ticks": 300, "engines": engines}
    launches = [launch, launch | {"compile_ms": 0.05}]
    kernel_run = {"model": "tiny", "precision": "ieee", "streams": 256, "kernels": launches}
    return report.facts({"gpu": "a card"}, CEILINGS, [kernel_run], [engine_run])


def test_tables_show_every_number_and_ratios() -> None:
    shown = report.text(json.loads(json.dumps(made_up_facts())))
    assert "gpu: a card" in shown
    assert "copy 4000 GB/s" in shown
    assert "| streamcodec | 3000 | 12.50 | 13.10 | 1.0 |" in shown
    assert "| torch | 20 | 11.00 | 13.00 | 150.0 |" in shown
    assert "| torch-graph | 0 | 20.00 | 30.00 | - |" in shown
    assert "| conv | encoder.4 | 320 x 16 to 160 x 32 | 0.020 | 5.0 | - | 2000 | 9000 | 50% |" in shown
    assert "| 5.0 | 2.5 | 2000 |" in shown


def test_a_median_is_taken_over_every_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count()
    clock = map(float, np.repeat(np.arange(30), 2) + np.tile([0, 0.002], 30))
    monkeypatch.setattr(timers.time, "perf_counter", lambda: next(clock))
    assert timers.median_ms(lambda: next(calls), CPU, repeats=9) == pytest.approx(2)
    assert next(calls) == 9 + 5


def small_plan() -> timebox.Plan:
    training = tuple(
        training_kernels.TrainingCase(kernel, dtype, (2, 50, 8), 3)
        for kernel in ("snake", "snake_depthwise_snake")
        for dtype in (torch.float32, torch.bfloat16)
    )
    return timebox.Plan(SMALL, SMALL, ("ieee",), 8, 3, 2, 2, training, copy_bytes=1 << 20, square=64)


def test_a_timebox_measures_what_matters_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "time_ticks", lambda stepper, config, ticks: Ticks(n := len(stepper.frames), 1.0, n))
    names = ["ceilings", "engine ieee", "training kernels", "engine torch", "engine of the other model"]
    timebox.run(small_plan(), timebox.Timebox(600, tmp_path), CPU, names)
    written = json.loads((tmp_path / "timebox.json").read_text())["sections"]
    assert list(written) == names
    assert {section["status"] for section in written.values()} == {"done"}
    for name in ("engine ieee", "engine torch", "engine of the other model"):
        assert written[name]["rows"][-1] == {"what": "final", "streams": 13, "p50_ms": 1.0, "p99_ms": 13}
    assert len(written["training kernels"]["rows"]) == 8
    assert all(row["copy_share"] > 0 for row in written["training kernels"]["rows"])


def test_a_section_that_fails_or_takes_too_long_costs_itself_alone(tmp_path: Path) -> None:
    kept = timebox.Timebox(600, tmp_path)

    def fails(record: Callable[[Any], None]) -> None:
        record({"streams": 1})
        raise ValueError("too many")

    def sleeps(record: Callable[[Any], None]) -> None:
        record(2)
        time.sleep(60)

    kept.run("fails", 10, fails)
    kept.run("sleeps", 0.1, sleeps)
    kept.run("works", 10, lambda record: record(3))
    timebox.Timebox(0, tmp_path / "over").run("late", 10, lambda record: record(4))
    written = json.loads((tmp_path / "timebox.json").read_text())["sections"]
    assert [section["rows"] for section in written.values()] == [[{"streams": 1}], [2], [3]]
    assert written["fails"]["status"] == "failed: too many"
    assert "ValueError: too many" in written["fails"]["traceback"]
    assert written["sleeps"]["status"] == "out of time after 0 s"
    assert written["works"]["status"] == "done"
    late = json.loads((tmp_path / "over" / "timebox.json").read_text())["sections"]["late"]
    assert (late["status"], late["rows"]) == ("skipped", [])


def test_a_wrong_training_operation_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_kernels.fused, "snake", lambda x, alpha: x * alpha)
    with pytest.raises(BackendError, match=r"snake.* is wrong: .*nothing is reported"):
        training_kernels.check(small_plan().training[0], CPU)


def test_the_compiler_is_given_powers_of_two() -> None:
    assert [timebox.compile_streams(ours) for ours in (0, 7, 8, 4095, 4096, 5000)] == [1, 1, 2, 512, 1024, 1024]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("script", ["engine.py", "kernels.py", "timebox.py", "training_step.py"])
def test_without_a_gpu_there_is_one_clear_error(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(BENCH / script), run_name="__main__")
    expected = "error: torch finds no GPU to measure; choose --device cpu, which measures the CPU engine"
    assert exit_.value.code == expected  # which the interpreter prints to stderr, and exits with 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_command_without_a_gpu_names_the_way_out() -> None:
    result = CliRunner().invoke(main, ["bench", "--device", "cuda"])
    assert result.exit_code == 1
    assert "torch finds no GPU to measure; choose --device cpu" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--baselines", "onnx"], ["--plot", "x.png"], ["--frames", "200"], ["--preset", "huge"]], ids=" ".join
)
def test_what_the_card_is_not_measured_with_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["bench", "--device", "cuda", *arguments]).exit_code == 2


@pytest.mark.gpu
@no_gpu
def test_the_report_of_a_card_is_complete() -> None:
    device = report.require_gpu()
    model = SMALL, WEIGHTS
    launches = report.measure_kernels(model, device, CEILINGS, streams=16)
    engines = report.measure_engine(model, device, ["torch", "torch-graph"], ticks=20)
    shown = report.text(report.facts(report.gpu_machine(device), CEILINGS, [launches], [engines]))
    assert len(launches["kernels"]) == len(shown.split("| kernel |")[1].splitlines()) - 2
    assert all(row["streams"] > 0 for row in engines["engines"])
