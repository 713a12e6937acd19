"""The table of the README: `python bench/cpu_engine.py [FRAMES]`.

`tiny-24k` with drawn weights and the bundled weights against ONNX Runtime, eager torch and torch.compile, 20,000 frames
each (torch a tenth of that).
Writes cpu_engine.json and cpu_engine.png beside this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamcodec.bench import report
from streamcodec.bench.startup import start_up
from streamcodec.checkpoint import load_checkpoint
from streamcodec.config import PRESETS

PLACE = Path(__file__).parent


def main(frames: int) -> None:
    start = start_up()
    tiny, bundled = PRESETS["tiny-24k"], load_checkpoint()
    reports = [
        report.measure_model(config, weights, frames, list(report.BASELINES))
        for config, weights in ((tiny, report.half_weights(tiny)), (bundled.config, bundled.arrays))
    ]
    facts = report.facts(reports, report.ceiling(), start)
    (PLACE / "cpu_engine.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    report.plot(reports, PLACE / "cpu_engine.png")
    print(report.text(facts))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
