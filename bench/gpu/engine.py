"""Streams per card: `python bench/gpu/engine.py [PRECISION]`.

Full-duplex streams whose p99 step keeps the 13.3 ms deadline, ours against the same model in eager torch, torch.compile
and CUDA-graphed torch, both presets, drawn weights, correctness first.  Prints the table and writes engine.json beside
this file.  PRECISION: ieee or tf32x3.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamcodec.bench.gpu import report
from streamcodec.bench.gpu.ceilings import measure_ceilings
from streamcodec.bench.report import half_weights
from streamcodec.config import PRESETS
from streamcodec.errors import StreamcodecError


def main(precision: str) -> None:
    device = report.require_gpu()
    ceilings = measure_ceilings(device)
    runs = [
        report.measure_engine(
            (PRESETS[name], half_weights(PRESETS[name])), device, list(report.BASELINES), precision=precision
        )
        for name in ("tiny-24k", "base-24k")
    ]
    measured = report.facts(report.gpu_machine(device), ceilings, [], runs)
    (Path(__file__).parent / "engine.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(report.text(measured))


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "ieee")
    except StreamcodecError as error:
        sys.exit(f"error: {error}")
