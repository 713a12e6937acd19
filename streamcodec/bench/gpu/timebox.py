"""Measures a card that is there for minutes: what matters most first, every number on disk as soon as it is known.

A section that fails or takes too long leaves its error and what it had measured; the next one runs.
"""

from __future__ import annotations

import functools
import gc
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from streamcodec.bench import search
from streamcodec.bench.gpu import kernels, report, training_kernels
from streamcodec.bench.gpu.ceilings import Ceilings, measure_ceilings
from streamcodec.bench.gpu.contenders import Stepper, check, time_ticks
from streamcodec.bench.gpu.training_kernels import TrainingCase
from streamcodec.bench.report import half_weights
from streamcodec.bench.search import Ticks
from streamcodec.config import CodecConfig
from streamcodec.files import atomic_output

Make = Callable[[int], Stepper]
_GRACE_S = 2.0


class TimeIsUp(BaseException):
    """A section's time is over; not an Exception, so that nothing it runs takes it for an error of its own."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how large.

    Parameters
    ----------
    main, other : CodecConfig
        The model of all sections, and the one whose engine is measured last.
    precisions : tuple of str
        Of our engine, the default first.
    guess : int
        Streams where the first search begins; others begin at a share of what it found.
    ticks, probe_ticks : int
        Steps behind a number, and behind a try on the way to it.
    launch_streams : int
        Streams of the launches that are timed one by one.
    training : tuple of TrainingCase
        Training operations.
    copy_bytes, square : int
        Sizes for the ceilings.
    """

    main: CodecConfig
    other: CodecConfig
    precisions: tuple[str, ...]
    guess: int
    ticks: int
    probe_ticks: int
    launch_streams: int
    training: tuple[TrainingCase, ...]
    copy_bytes: int = 1 << 30
    square: int = 8192


def training_cases(batch: int) -> tuple[TrainingCase, ...]:
    """Both operations on a large tensor, then the fused unit on the shapes of a training step of `batch` clips."""
    large = (64, 12_800, 64)
    found = [TrainingCase("snake", dtype, large) for dtype in (torch.bfloat16, torch.float32)]
    found += [
        TrainingCase("snake_depthwise_snake", dtype, large, dilation)
        for dtype in (torch.bfloat16, torch.float32)
        for dilation in (1, 9)
    ]
    found += [
        TrainingCase("snake_depthwise_snake", torch.bfloat16, (batch, rows, channels), 3)
        for rows, channels in ((19_200, 32), (2400, 128), (480, 256))
    ]
    return tuple(found)


class Timebox:
    """Runs sections one after the other and keeps `folder`/timebox.json up to date.

    Parameters
    ----------
    seconds : float
        For all sections together.
    folder : Path
        Where the results go.
    """

    def __init__(self, seconds: float, folder: Path) -> None:
        self.path = folder / "timebox.json"
        self.results: dict[str, Any] = {"sections": {}}
        self._begin, self._seconds = time.monotonic(), seconds
        folder.mkdir(parents=True, exist_ok=True)

    def left_s(self) -> float:
        """Seconds of the timebox that remain."""
        return self._begin + self._seconds - time.monotonic()

    def write(self, **facts: Any) -> None:
        """Add facts and write everything."""
        self.results.update(facts)
        with atomic_output(self.path) as file:
            file.write((json.dumps(self.results, indent=1) + "\n").encode())

    def run(self, name: str, limit_s: float, section: Callable[[Callable[[Any], None]], None]) -> None:
        """Run one section, which hands over each row as soon as it knows it."""
        entry: dict[str, Any] = {"status": "skipped", "seconds": 0.0, "rows": []}
        self.results["sections"][name] = entry
        limit_s = min(limit_s, self.left_s())
        begin = time.monotonic()

        def record(row: Any) -> None:
            entry["rows"].append(row)
            entry["seconds"] = round(time.monotonic() - begin, 2)
            self.write()
            print(f"{self._seconds - self.left_s():6.1f} s  {name}: {json.dumps(row)}", flush=True)

        if limit_s > 0:
            entry["status"] = "started"
            self.write()
            try:
                with _limited(limit_s):
                    section(record)
                entry["status"] = "done"
            except TimeIsUp:
                entry["status"] = f"out of time after {limit_s:.0f} s"
            except Exception as error:
                entry |= {"status": f"failed: {error}"[:500], "traceback": traceback.format_exc()}
            entry["seconds"] = round(time.monotonic() - begin, 2)
        self.write()
        print(f"{self._seconds - self.left_s():6.1f} s  {name}: {entry['status']}", flush=True)
        gc.collect()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeIsUp in the main thread when the time is over, and again while it is not heeded."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, _GRACE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def most_streams(
    make: Make, plan: Plan, config: CodecConfig, first: int, record: Callable[[Any], None], steps_per_octave: int = 16
) -> Ticks:
    """Search with few steps a try, then take the number over many, fewer streams until they keep the deadline."""
    deadline_ms = config.algorithmic_latency_ms

    def probe(streams: int) -> Ticks:
        ticks = report.ticks_of(make, streams, config, plan.probe_ticks)
        record({"what": "probe"} | asdict(ticks))
        return ticks

    found = search.most_streams(probe, max(1, first), deadline_ms, report.MOST_STREAMS, steps_per_octave)
    streams = found.streams
    while streams:
        final = report.ticks_of(make, streams, config, plan.ticks)
        kept = final.p99_ms <= deadline_ms
        record({"what": "final" if kept else "late"} | asdict(final))
        if kept:
            return final
        streams -= max(1, streams // 32)
    return found


def run(plan: Plan, timebox: Timebox, device: torch.device, only: Sequence[str] = ()) -> dict[str, Any]:
    """Measure everything that fits the timebox, or the sections that `only` names."""
    main, other = ((config, half_weights(config)) for config in (plan.main, plan.other))
    state = _State(plan, device, main, other)
    unit = timebox.left_s() / 100
    sections: list[tuple[str, float, Callable[[Callable[[Any], None]], None]]] = [("ceilings", 10, state.ceilings)]
    sections += [
        (f"engine {precision}", 25, functools.partial(state.engine, main, precision)) for precision in plan.precisions
    ]
    sections += [
        ("largest launches", 12, functools.partial(state.launches, slice(8))),
        ("training kernels", 14, state.training),
        ("engine torch-graph", 12, functools.partial(state.baseline, "torch-graph", 8)),
        ("engine torch", 10, functools.partial(state.baseline, "torch", 8)),
        ("engine torch-compile", 40, state.compiled),
        ("other launches", 15, functools.partial(state.launches, slice(8, None))),
        ("engine of the other model", 20, functools.partial(state.engine, other, plan.precisions[0])),
    ]
    for name, share, section in sections:
        if not only or name in only:
            timebox.run(name, share * unit, section)
    return timebox.results


class _State:
    """What one section finds out and another one needs."""

    def __init__(self, plan: Plan, device: torch.device, main: report.Model, other: report.Model) -> None:
        self.plan, self.device, self.main, self.other = plan, device, main, other
        self.rates: Ceilings | None = None
        self.ours = plan.guess

    def ceilings(self, record: Callable[[Any], None]) -> None:
        self.rates = measure_ceilings(self.device, self.plan.copy_bytes, self.plan.square)
        record(asdict(self.rates))

    def _rates(self) -> Ceilings:
        return self.rates or measure_ceilings(self.device, self.plan.copy_bytes, self.plan.square)

    def engine(self, model: report.Model, precision: str, record: Callable[[Any], None]) -> None:
        make = report.makers(model, self.device, [], precision)[report.OURS]
        check(f"{report.OURS}, {precision}", make(3), *model)
        found = most_streams(make, self.plan, model[0], self.ours, record)
        if model is self.main:
            self.ours = max(self.ours if precision != self.plan.precisions[0] else 0, found.streams)

    def baseline(self, name: str, fewer: int, record: Callable[[Any], None]) -> None:
        make = report.makers(self.main, self.device, [name])[name]
        check(name, make(3), *self.main)
        most_streams(make, self.plan, self.main[0], self.ours // fewer, record, 8)

    def compiled(self, record: Callable[[Any], None]) -> None:
        """A power of two up to a quarter of ours, then the next one up if it keeps the deadline, else down."""
        name = "torch-compile"
        make = report.makers(self.main, self.device, [name])[name]
        streams, step = compile_streams(self.ours), 0
        while streams:
            stepper = make(streams)
            for what, count in (("probe", self.plan.probe_ticks), ("final", self.plan.ticks)):
                ticks = time_ticks(stepper, self.main[0], count)
                kept = ticks.p99_ms <= self.main[0].algorithmic_latency_ms
                record({"what": what if kept else "late"} | asdict(ticks))
                if not kept:
                    break
            turn = 1 if kept else -1
            if step and turn != step:
                return
            step, streams = turn, streams * 2 if kept else streams // 2

    def launches(self, which: slice, record: Callable[[Any], None]) -> None:
        streams, precision = self.plan.launch_streams, self.plan.precisions[0]
        found = sorted(kernels.cases(*self.main, streams, self.device, precision), key=_rank)
        for case in found[which]:
            try:
                row = asdict(kernels.time_case(case, self._rates(), self.device, precision, compiled=False))
            except Exception as error:
                row = {"kernel": case.kernel, "name": case.name, "error": f"{error}"[:500]}
            record({"streams": streams} | row)

    def training(self, record: Callable[[Any], None]) -> None:
        for case in self.plan.training:
            try:
                for row in training_kernels.time_case(case, self._rates(), self.device):
                    record(asdict(row))
            except Exception as error:
                record({"kernel": case.kernel, "shape": case.shape, "error": f"{error}"[:500]})


def compile_streams(ours: int) -> int:
    """Largest power of two up to a quarter of `ours`, at least 1."""
    return 1 << max(0, (ours // 4).bit_length() - 1)


def _rank(case: kernels.Case) -> tuple[bool, bool, int]:
    """The quantiser, then residual units, the largest first."""
    return case.name != "quantizer", case.kernel != "residual_unit", -case.n_bytes


def warm_up(job: tuple[str, str, int], device: torch.device) -> str:
    """Compile what one contender of a preset needs, into the caches on disk; check it where it is cheap.

    job: our precision or the name of a baseline, the preset, and a number of streams.
    """
    from streamcodec.config import PRESETS

    what, preset, streams = job
    begin, model = time.monotonic(), (PRESETS[preset], half_weights(PRESETS[preset]))
    made = report.makers(model, device, [what] if what in report.BASELINES else [], "ieee")
    make = made[what] if what in made else report.makers(model, device, [], what)[report.OURS]
    stepper = make(streams)
    if streams <= 3:
        check(what, stepper, *model)
    ticks = time_ticks(stepper, model[0], 5)
    return f"{preset}, {what}, {streams} streams: p50 {ticks.p50_ms:.2f} ms; {time.monotonic() - begin:.0f} s"
