"""`streamcodec evaluate --ablations` on two runs with drawn weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from click.testing import CliRunner
from small_models import SMALL, small_checkpoint

from streamcodec.cli import main


def test_command_makes_the_table_of_finished_runs(tmp_path: Path) -> None:
    for seed, name in enumerate(("baseline", "no-mel")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        small_checkpoint(tmp_path / "runs" / name / "best.safetensors", seed)
        record = {"kind": "validation", "step": 100 + seed}
        (tmp_path / "runs" / name / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    wave = 0.1 * np.random.default_rng(0).standard_normal(6 * SMALL.sample_rate_hz)
    soundfile.write(tmp_path / "noise.wav", wave, SMALL.sample_rate_hz)
    order = ["--ablations", str(tmp_path / "runs"), "--ablation-kbps", "1.2", "--metrics", "mel,si_sdr", "--jobs", "1"]
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "noise.wav"), *order, "--no-cache"])
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    assert [row[:2] for row in rows if row[0] in ("baseline", "no-mel")] == [["baseline", "100"], ["no-mel", "101"]]
    for row in rows[2:]:
        assert len(row) == len(rows[0])
        assert "-" not in row[2:]
        assert 0 < float(row[-2].rstrip("%")) <= 100
