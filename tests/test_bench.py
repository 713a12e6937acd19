"""The benchmark reports what it measured, and nothing where the engine is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import SMALL, small_checkpoint
from threadpoolctl import threadpool_info

from streamcodec.bench import report
from streamcodec.bench.contenders import our_contender
from streamcodec.bench.gemm import _numpy_kernel, product_rates, sgemm_rates
from streamcodec.bench.startup import _first_packet_s
from streamcodec.bench.timing import check, time_in_turns
from streamcodec.cli import main
from streamcodec.config import PRESETS
from streamcodec.errors import BackendError
from streamcodec_kernels._cache import cache_folder

SCIPYS, NUMPYS = (
    {
        "user_api": "blas",
        "internal_api": "openblas",
        "filepath": f"/site-packages/{package}.libs/libscipy_openblas.so",
        "version": version,
        "architecture": architecture,
    }
    for package, version, architecture in (("scipy", "0.3.30", "Haswell"), ("numpy", "0.3.31", "Prescott"))
)
WEIGHTS = report.half_weights(SMALL)


def test_a_wrong_engine_is_not_reported() -> None:
    right = our_contender(SMALL, WEIGHTS)
    check(right, SMALL, WEIGHTS)
    deaf = replace(our_contender(SMALL, WEIGHTS), decode=lambda codes: np.zeros(SMALL.hop_samples, np.float32))
    with pytest.raises(BackendError, match="nothing is reported"):
        check(deaf, SMALL, WEIGHTS)
    greedy = replace(our_contender(SMALL, WEIGHTS, beam=4), encode=our_contender(SMALL, WEIGHTS).encode)
    with pytest.raises(BackendError, match=r"beam 4 is wrong: .* nothing is reported"):
        check(greedy, SMALL, WEIGHTS)
    stuck = replace(our_contender(SMALL, WEIGHTS), encode=lambda frame: np.zeros(SMALL.n_codebooks, np.int16))
    with pytest.raises(BackendError, match="nothing is reported"):
        check(stuck, SMALL, WEIGHTS)


def test_contenders_take_turns_and_every_frame_counts() -> None:
    contenders = [(our_contender(SMALL, WEIGHTS), 250), (our_contender(SMALL, WEIGHTS), 25)]
    told: list[int] = []
    timings = time_in_turns(contenders, SMALL, told.append)
    assert [(t.encode.count, t.decode.count) for t in timings] == [(250, 250), (25, 25)]
    assert sum(told) == 275
    assert all(t.encode.percentile(50) > 0 for t in timings)


def test_the_report_has_every_number_and_the_plot_is_drawn(tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    measured = report.measure_model(SMALL, WEIGHTS, 100, ["onnx"], ticks=3)
    facts = json.loads(json.dumps(report.facts([measured], {"numpy slow": 30.0, "streamcodec": 50.0}, None)))
    model = facts["models"][0]
    beams = {"streamcodec cpu, beam 4", "streamcodec cpu, beam 8"}
    assert set(model["latency"]) == {"streamcodec cpu", "ONNX Runtime"} | beams
    assert all(model["latency"][name]["encode"]["count"] == 25 for name in beams)
    assert model["times_onnx"] > 0
    assert model["stream_bytes"] > 0
    assert model["capacity"][0]["streams"] >= 1
    assert facts["sgemm_gflop_per_s"] == 50
    shown = report.text(facts)
    assert "GFLOP/s: streamcodec 50, numpy slow 30" in shown
    assert "| small | streamcodec cpu | encode |" in shown
    assert "| small | streamcodec cpu, beam 8 | encode |" in shown
    assert "full-duplex streams" in shown
    report.plot([measured], tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_matrix_products_alone_have_a_rate() -> None:
    encode, decode = product_rates(PRESETS["tiny-24k"], report.half_weights(PRESETS["tiny-24k"]), repeats=3)
    for rate in (encode, decode):
        assert 0 < rate.time_ms < 100
        assert 0 < rate.gflop_per_s < 4000


def test_the_ceiling_is_the_best_product_and_says_whose() -> None:
    rates = sgemm_rates(repeats=1)
    assert set(rates) == {_numpy_kernel(threadpool_info()), "streamcodec"}
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.parametrize(
    ("pools", "name"),
    [
        ([], "numpy"),
        ([{"user_api": "openmp", "internal_api": "openmp", "filepath": "libgomp.so", "version": None}], "numpy"),
        (
            [{"user_api": "blas", "internal_api": "mkl", "filepath": "libmkl_rt.so", "version": "2024"}],
            "numpy mkl 2024",
        ),
        ([SCIPYS, NUMPYS], "numpy openblas 0.3.31 Prescott"),
        ([SCIPYS], "numpy openblas 0.3.30 Haswell"),
    ],
    ids=["nothing is known", "no product library", "MKL", "two libraries", "one library of all"],
)
def test_numpys_kernel_is_named(pools, name) -> None:
    assert _numpy_kernel(pools) == name


def test_a_fresh_process_makes_a_packet() -> None:
    folder = cache_folder()
    assert folder is not None
    imported, packet = _first_packet_s(str(folder.parent))
    assert 0 < imported < packet


def test_the_command_prints_json(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("streamcodec.bench.report.TICKS", 3)
    small_checkpoint(tmp_path / "small.safetensors")
    arguments = ["bench", "--model", str(tmp_path / "small.safetensors"), "--frames", "100", "--baselines", ""]
    result = CliRunner().invoke(main, [*arguments, "--no-start-up", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["models"][0]["name"] == "small"


@pytest.mark.parametrize("arguments", [["--preset", "huge"], ["--baselines", "abacus"]])
def test_unknown_names_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["bench", *arguments]).exit_code == 2
