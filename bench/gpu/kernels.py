"""Each launch of the batched engine: `python bench/gpu/kernels.py [STREAMS] [PRECISION]`.

Against eager torch, torch.compile and the card's measured ceilings, both presets, drawn weights, correctness first.
Prints the table and writes kernels.json beside this file.  PRECISION: ieee or tf32x3.
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


def main(streams: int, precision: str) -> None:
    device = report.require_gpu()
    ceilings = measure_ceilings(device)
    runs = [
        report.measure_kernels(
            (PRESETS[name], half_weights(PRESETS[name])),
            device,
            ceilings,
            streams=streams,
            precision=precision,
            compiled=True,
        )
        for name in ("tiny-24k", "base-24k")
    ]
    measured = report.facts(report.gpu_machine(device), ceilings, runs, [])
    (Path(__file__).parent / "kernels.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(report.text(measured))


if __name__ == "__main__":
    try:
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else report.KERNEL_STREAMS,
            sys.argv[2] if len(sys.argv) > 2 else "ieee",
        )
    except StreamcodecError as error:
        sys.exit(f"error: {error}")
