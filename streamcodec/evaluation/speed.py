"""How fast codecs run on one thread of this machine, side by side: the table that answers "is it real-time?"."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec.errors import StreamcodecError
from streamcodec.evaluation.contestants import Contestant, opus, ours, published
from streamcodec.evaluation.table import markdown
from streamcodec.metrics.waveforms import Float32, resampled

SECONDS = 4.0
ROUNDS = 7
CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "tiny-24k": lambda: ours("tiny-24k", 6),
    "base-24k": lambda: ours("base-24k", 6),
    "voice-24k": lambda: ours("voice-24k", 6),
    "opus": lambda: opus(12),
    "encodec": lambda: published("encodec", 6),
    "dac": lambda: published("dac", 6),
    "mimi": lambda: published("mimi", 1.1),
}
_PACKAGES = ("streamcodec", "numpy", "numba", "av", "torch", "transformers")


@dataclass(frozen=True)
class Speed:
    """Real-time factors of one codec (time over duration, less is faster): medians and the slowest round."""

    contestant: Contestant
    encode: float
    decode: float
    encode_worst: float
    decode_worst: float

    @property
    def both(self) -> float:
        """Encoding and decoding together."""
        return self.encode + self.decode


def timing_sound(seconds: float, sample_rate_hz: int) -> Float32:
    """Sound to time with, float32 [T]: coloured noise with pauses, the same every time."""
    rng = np.random.default_rng(0)
    noise = np.convolve(rng.standard_normal(int(seconds * 24_000)), np.hanning(9) / 4, "same")
    level = np.repeat(rng.choice([0.0, 0.05, 0.2], int(seconds * 10) + 1), 2400)[: len(noise)]
    return resampled((noise * level).astype(np.float32), 24_000, sample_rate_hz)


def check(contestant: Contestant, sound: Float32) -> None:
    """Refuse to time what does not work.

    Raises
    ------
    StreamcodecError
        The decoded sound is not finite, or not as long as the original within 0.1 s.
    """
    decoded = contestant.decode(contestant.encode(sound))
    if abs(len(decoded) - len(sound)) > 0.1 * contestant.sample_rate_hz or not np.isfinite(decoded).all():
        raise StreamcodecError(f"{contestant.name} makes {len(decoded)} samples of {len(sound)}, or not finite ones")


def measure(
    names: list[str], seconds: float = SECONDS, rounds: int = ROUNDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Speed], list[str]]:  # fmt: skip
    """Time the codecs `names`, in turns, one thread each, and say in a line why one is left out."""
    from threadpoolctl import threadpool_limits

    ready: list[tuple[Contestant, Float32]] = []
    notes: list[str] = []
    with threadpool_limits(1):
        for name in names:
            try:
                contestant = CONTESTANTS[name]()
                sound = timing_sound(seconds, contestant.sample_rate_hz)
                check(contestant, sound)
            except StreamcodecError as error:
                notes.append(f"{name} left out: {error}")
                continue
            ready.append((contestant, sound))
        times = np.zeros((len(ready), rounds, 2))
        for turn in range(rounds):
            for i, (contestant, sound) in enumerate(ready):
                begin = time.perf_counter()
                coded = contestant.encode(sound)
                middle = time.perf_counter()
                contestant.decode(coded)
                times[i, turn] = middle - begin, time.perf_counter() - middle
                progress(turn * len(ready) + i + 1, rounds * len(ready))
    speeds = []
    for (contestant, _), rows in zip(ready, times / seconds, strict=True):
        median, worst = np.median(rows, axis=0), rows.max(axis=0)
        speeds.append(Speed(contestant, *map(float, (*median, *worst))))
    return speeds, notes


def machine() -> dict[str, str]:
    """Processor, system, versions and date: what a speed means nothing without."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{model}, {os.cpu_count()} cores, one thread used",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": time.strftime("%Y-%m-%d"),
    }


def speed_table(speeds: list[Speed]) -> str:
    """The table for people; ratios are to the first codec, both ways together."""
    lines = []
    for speed in speeds:
        it = speed.contestant
        lines.append(
            [
                it.name,
                it.how,
                f"{speed.encode:.4f}",
                f"{speed.decode:.4f}",
                f"{speed.both / speeds[0].both:.2f}",
                "no stream" if it.latency_ms is None else f"{it.latency_ms:.1f}",
                "-" if it.weights is None else f"{it.weights / 1e6:.1f}",
                "-" if it.macs_per_s is None else f"{it.macs_per_s / 1e9:.2f}",
            ]
        )
    first = speeds[0].contestant.name if speeds else ""
    ratio = f"both / {first}"
    return markdown(["codec", "run", "encode", "decode", ratio, "latency ms", "M weights", "GMAC/s"], lines)


def speed_json(speeds: list[Speed], notes: list[str]) -> str:
    """Everything, for programs."""
    rows: list[dict[str, Any]] = []
    for speed in speeds:
        facts = {key: value for key, value in vars(speed.contestant).items() if not callable(value)}
        rows.append(facts | {key: value for key, value in vars(speed).items() if key != "contestant"})
    return json.dumps({"machine": machine(), "codecs": rows, "left_out": notes}, indent=1)
