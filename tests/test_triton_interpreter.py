"""Runs the kernels' cases (`interpreted_*.py`) in Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton kernels need triton")
pytest.importorskip("torch", reason="Triton kernels take torch tensors")

CASES = sorted(Path(__file__).parent.glob("interpreted_*.py"))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_kernels_equal_their_references_in_the_interpreter(cases: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
