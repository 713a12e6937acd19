"""Soak: hours of simulated time, then minutes of real time under CPU load; memory flat, delay under its cap.

python bench/soak.py --simulated-hours 2 --real-minutes 5

The simulated part has drifting devices, a bad network, stalls of the processor; nothing sleeps, so it runs as fast as
the codec does.  The real part runs threads at the pace of the clock while every core is kept busy.  Ends with exit
code 1 when memory grew or a bound was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from streamcodec import Codec
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.cli.loopback import sample_path
from streamcodec.live import FileDevices, LatencyPolicy, LiveLoopback, Pipeline, Receiver
from streamcodec.live.simulated import ImpairedNetwork, SimulatedCapture, SimulatedPlayback

STEP_S = 0.005
MOST_GROWTH_MB = 4.0
WARM_UP_S = 60.0


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class LossyLink:
    """Packets over a simulated network."""

    def __init__(self) -> None:
        self.network: ImpairedNetwork[tuple[int, bytes, float]] = ImpairedNetwork(
            1, loss=0.02, burst_packets=3, delay_ms=30, jitter_ms=8, reorder=0.01, duplicate=0.01
        )

    def send(self, now_s: float, sequence: int, packet: bytes, captured_s: float) -> None:
        """Take a packet."""
        self.network.send(now_s, (sequence, packet, captured_s))

    def due(self, now_s: float) -> list[tuple[int, bytes, float]]:
        """Return what has arrived."""
        return self.network.due(now_s)


def simulated(codec: Codec, hours: float) -> dict:
    """Run a pipeline on a simulated clock; a minute in, memory must stand still."""
    policy = LatencyPolicy.network(10)
    capture, playback = Ring(24_000, 1), Ring(Receiver.ring_samples(policy, 48_000), 1)
    times = Timeline(48_000), Timeline(48_000)
    pipeline = Pipeline(
        codec, capture, playback, 48_000, 48_000, 6000, policy,
        capture_times=times[0], playback_times=times[1], link=LossyLink(),
    )  # fmt: skip
    microphone, speaker = SimulatedCapture(48_000, 480, 150), SimulatedPlayback(48_000, 480, -150)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (48_000, 1)).astype(np.float32)

    def sound(first: int, count: int) -> np.ndarray:
        return noise[first % 48_000 : first % 48_000 + count]

    now_s, base_mb, held_ms, next_s = 0.0, 0.0, 0.0, 0.0
    steps = round(3600 * hours / STEP_S)
    for step in range(steps):
        now_s += STEP_S
        microphone.run(now_s, capture, times[0], sound)
        if step % 12_000 > 60:  # once a minute the processor is gone for 0.3 s
            pipeline.pump(now_s)
            held_ms = max(held_ms, pipeline.receiver.held_ms)
        speaker.run(now_s, playback, times[1])
        if now_s >= next_s:
            next_s += 600
            base_mb = base_mb if now_s < WARM_UP_S or base_mb else resident_mb()
            print(f"simulated {now_s / 60:6.1f} min, {resident_mb():.1f} MB, held {pipeline.receiver.held_ms:.0f} ms",
                  file=sys.stderr)  # fmt: skip
        if not base_mb and now_s >= WARM_UP_S:
            base_mb = resident_mb()
    report = pipeline.report()
    return {"hours": hours, "growth_mb": resident_mb() - base_mb, "held_max_ms": held_ms, **summary(report)}


def real(codec: Codec, minutes: float) -> dict:
    """Run a loopback with threads while as many processes as there are cores do nothing but count."""
    loopback = LiveLoopback(codec, 6000, latency_ms=250, devices=FileDevices(codec, sample_path(), None))
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    base_mb = 0.0
    try:
        with loopback.running() as running:
            started_s = time.monotonic()
            while (passed_s := time.monotonic() - started_s) < 60 * minutes and running.wait(1):
                if not base_mb and passed_s > min(WARM_UP_S, 10 * minutes):
                    base_mb = resident_mb()
    finally:
        for process in load:
            process.kill()
            process.wait()
    report = loopback.report()
    return {"minutes": minutes, "growth_mb": resident_mb() - base_mb, "bound_ms": report["bound_ms"], **summary(report)}


def summary(report: dict) -> dict:
    """The counters."""
    names = (
        "frames_sent", "frames_decoded", "frames_concealed", "frames_dropped_over_cap", "capture_overflows",
        "capture_dropped_samples", "playback_underflows", "cap_ms", "mouth_to_ear", "encode", "decode",
    )  # fmt: skip
    return {name: report[name] for name in names}


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--simulated-hours", type=float, default=2)
    parser.add_argument("--real-minutes", type=float, default=5)
    options = parser.parse_args()
    codec, failures, result = Codec.load(options.model), [], {}
    if options.simulated_hours:
        part = result["simulated"] = simulated(codec, options.simulated_hours)
        if part["held_max_ms"] > part["cap_ms"] + 1:
            failures.append(f"{part['held_max_ms']:.0f} ms were held, the cap is {part['cap_ms']:.0f} ms")
    if options.real_minutes:
        part = result["real"] = real(codec, options.real_minutes)
        if part["mouth_to_ear"]["max_ms"] > part["bound_ms"]:
            failures.append(f"mouth to ear took {part['mouth_to_ear']['max_ms']:.0f} ms, over the bound")
    failures += [f"{name}: memory grew by {part['growth_mb']:.1f} MB" for name, part in result.items()
                 if part["growth_mb"] > MOST_GROWTH_MB]  # fmt: skip
    print(json.dumps(result, indent=1))
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
