"""Time from `import streamcodec` to the first packet, in a fresh process: with nothing compiled, then with all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from streamcodec.errors import BackendError

_PROGRAM = """
import json, time
begin = time.perf_counter()
import streamcodec
import numpy as np
imported = time.perf_counter()
codec = streamcodec.Codec.load()
codec.encoder().encode(np.zeros(codec.frame_samples, np.float32))
print(json.dumps([imported - begin, time.perf_counter() - begin]))
"""


@dataclass(frozen=True)
class StartUp:
    """Seconds to the first packet of the bundled model, and those of them that `import streamcodec` takes."""

    import_s: float
    cold_s: float
    warm_s: float


def start_up() -> StartUp:
    """Measure with a cache of compiled code that begins empty."""
    with tempfile.TemporaryDirectory() as folder:
        _, cold = _first_packet_s(folder)
        imported, warm = min((_first_packet_s(folder) for _ in range(3)), key=lambda times: times[1])
    return StartUp(imported, cold, warm)


def _first_packet_s(cache: str) -> tuple[float, float]:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    run = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BackendError(f"a fresh process made no packet: {run.stderr.strip().splitlines()[-1]}")
    imported, packet = json.loads(run.stdout)
    return float(imported), float(packet)
