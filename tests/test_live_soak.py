"""The soak of bench/ in small: memory flat and every bound kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamcodec.checkpoint import load_checkpoint
from streamcodec.errors import CheckpointError


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which only Linux has")
def test_a_short_soak_keeps_memory_flat_and_the_delay_bounded():
    try:
        load_checkpoint(None)
    except CheckpointError as error:
        pytest.skip(f"no weights to run: {error}")
    path = Path(__file__).parents[1] / "bench" / "soak.py"
    done = subprocess.run(
        [sys.executable, path, "--simulated-hours", "0.022", "--real-minutes", "0.1"],
        capture_output=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["simulated"]["frames_sent"] > 0.9 * 0.022 * 3600 * 75
    assert result["real"]["mouth_to_ear"]["count"] > 300
