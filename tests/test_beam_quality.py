"""The benchmark behind the table of encoding effort runs, and finds that a beam helps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from token_folder import speech

from streamcodec import Codec
from streamcodec.checkpoint import load_checkpoint
from streamcodec.errors import CheckpointError
from streamcodec.evaluation.clips import Clip


@pytest.fixture
def benchmark_script() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "beam_quality.py"
    spec = importlib.util.spec_from_file_location("beam_quality", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gains_are_means_of_the_clips_own_differences(benchmark_script: ModuleType) -> None:
    rows = [
        {"clip": clip, "kbps": kbps, "beam": beam, "si_sdr": start + gain, "pesq": start, "visqol": start - gain}
        for clip, start in (("a", 1.0), ("b", 3.0))
        for kbps in (3, 6, 9)
        for beam, gain in ((1, 0.0), (4, 0.5), (8, 0.75))
    ]
    lines = benchmark_script.table(rows).splitlines()
    assert len(lines) == 2 + 9
    assert "| 6 | 1 | 2.00 | 2.00 | 2.00 | - | - | - | 2 |" in lines
    assert "| 6 | 8 | 2.75 | 2.00 | 1.25 | +0.75 ±0.00 | +0.00 ±0.00 | -0.75 ±0.00 | 2 |" in lines


@pytest.mark.slow
def test_a_beam_improves_speech_at_the_same_bitrate(benchmark_script: ModuleType) -> None:
    for name in ("visqol", "pesq"):
        pytest.importorskip(name, reason=f"{name} is not installed (pip install 'streamcodec[eval]')")
    try:
        load_checkpoint(None)
    except CheckpointError as error:
        pytest.skip(f"no weights to run: {error}")
    rows = benchmark_script.measure(Codec.load(), [Clip("speech", "speech", "speech", speech(24_000, 1, 4), 24_000)])
    assert len(rows) == 9
    for kbps in (3, 6, 9):
        greedy, beam, _ = (row for row in rows if row["kbps"] == kbps)
        assert beam["si_sdr"] > greedy["si_sdr"]
        assert beam["pesq"] > greedy["pesq"]
