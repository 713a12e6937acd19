"""A card that is there for a few minutes: `python bench/gpu/timebox.py --seconds 100 --out DIR`.

Measures what matters most first and keeps DIR/timebox.json up to date; a failure costs its section alone.  Before, with
the card shared, `--warm` compiles what it needs into the caches on disk, in parallel, and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from streamcodec.bench.gpu import report, timebox, training_kernels
from streamcodec.config import PRESETS
from streamcodec.errors import StreamcodecError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100, help="for everything, start-up excluded")
    parser.add_argument("--out", type=Path, default=Path("timebox"), help="folder of the results")
    parser.add_argument("--only", action="append", default=[], help="a section to run; repeat for more")
    parser.add_argument("--guess", type=int, default=3072, help="streams where our search begins")
    parser.add_argument("--warm", action="store_true", help="fill the compilers' caches and stop")
    parser.add_argument("--jobs", type=int, default=6, help="processes of --warm")
    parser.add_argument("--compiled-streams", type=int, nargs="*", default=[512, 1024, 2048], help="of --warm")
    given = parser.parse_args()
    device = report.require_gpu()
    if given.warm:
        warm(given.jobs, given.compiled_streams, device)
        return
    kept = timebox.Timebox(given.seconds, given.out)
    plan = timebox.Plan(
        main=PRESETS["base-24k"],
        other=PRESETS["tiny-24k"],
        precisions=("ieee", "tf32x3"),
        guess=given.guess,
        ticks=report.TICKS,
        probe_ticks=30,
        launch_streams=1024,
        training=timebox.training_cases(48),
    )
    kept.write(machine=report.gpu_machine(device))
    timebox.run(plan, kept, device, given.only)


def warm(processes: int, compiled_streams: list[int], device: torch.device) -> None:
    jobs = [("ieee", "base-24k", 3), ("tf32x3", "base-24k", 3), ("ieee", "tiny-24k", 3)]
    jobs += [("torch-compile", "base-24k", streams) for streams in compiled_streams]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[Any], str] = {pool.submit(timebox.warm_up, job, device): f"{job}" for job in jobs}
        futures |= {pool.submit(training_kernels.check, case, device): f"{case}" for case in timebox.training_cases(48)}
        for future in as_completed(futures):
            try:
                print(future.result() or f"{futures[future]}: right", flush=True)
            except Exception:
                traceback.print_exc()


if __name__ == "__main__":
    try:
        main()
    except StreamcodecError as error:
        sys.exit(f"error: {error}")
