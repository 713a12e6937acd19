"""The benchmark behind the README's table of loss against quality runs, and finds what the copies are for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamcodec.checkpoint import load_checkpoint
from streamcodec.errors import CheckpointError


@pytest.mark.slow
def test_a_short_run_gives_table_numbers_and_plot(tmp_path):
    for name in ("visqol", "pesq", "matplotlib"):
        pytest.importorskip(name, reason=f"{name} is not installed (pip install 'streamcodec[eval]')")
    try:
        load_checkpoint(None)
    except CheckpointError as error:
        pytest.skip(f"no weights to run: {error}")
    path = Path(__file__).parents[1] / "bench" / "loss_quality.py"
    files = "--json", tmp_path / "rows.json", "--plot", tmp_path / "plot.png"
    done = subprocess.run(
        [sys.executable, path, "--seconds", "4", "--seeds", "1", "--losses", "0", "0.2", *files],
        capture_output=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert "| 20 % | 3 copies |" in done.stdout.decode()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    rows = {(row["loss"], row["arm"]): row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert len(rows) == 6
    bare, copied = rows[0.2, "no copies"], rows[0.2, "3 copies"]
    assert bare["concealed"] > 0.1 > copied["concealed"]
    assert copied["from_copies"] > 0.1 > bare["from_copies"]
    for metric in ("visqol_alone", "pesq_alone"):
        assert rows[0, "no copies"][metric] > bare[metric]
        assert copied[metric] > bare[metric]
