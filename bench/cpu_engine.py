"""The table of the README: `python bench/cpu_engine.py [FRAMES]`.

Both presets against ONNX Runtime, eager torch and torch.compile, 20,000 frames each (torch a tenth of that).
Writes cpu_engine.json and cpu_engine.png beside this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamcodec.bench import report
from streamcodec.bench.startup import start_up
from streamcodec.config import PRESETS

PLACE = Path(__file__).parent


def main(frames: int) -> None:
    start = start_up()
    reports = [
        report.measure_model(PRESETS[name], report.half_weights(PRESETS[name]), frames, list(report.BASELINES))
        for name in ("tiny-24k", "base-24k")
    ]
    facts = report.facts(reports, report.ceiling(), start)
    (PLACE / "cpu_engine.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    report.plot(reports, PLACE / "cpu_engine.png")
    print(report.text(facts))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
