"""Quality of a call against packet loss, with and without copies of earlier frames, as a table and a plot.

python bench/loss_quality.py [speech.wav ...] --json loss.json --plot loss.png

Two `CallPeer`s talk over a simulated network: 40 ms of delay, 5 ms of jitter, losses in bursts of 2 packets on the
average.  The bitrate of the packets is fixed, except where it says adaptive.  ViSQOL (audio mode) and PESQ compare
what the listener hears with the speech itself, and, to see the loss alone, with the decoded speech of no network.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from streamcodec import Codec
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.cli.loopback import sample_path
from streamcodec.live import CallPeer, LatencyPolicy, Receiver
from streamcodec.live.simulated import ImpairedNetwork, SimulatedCapture, SimulatedPlayback
from streamcodec.metrics.pesq import pesq
from streamcodec.metrics.visqol import visqol

LOSSES = (0.0, 0.01, 0.05, 0.10, 0.20)
ARMS: dict[str, int | None] = {"no copies": 0, "3 copies": 3, "adaptive": None}
LEAD_IN_S, LEAD_OUT_S = 8.0, 1.0
STEP_S = 0.004


class Side:
    """A peer with simulated devices."""

    def __init__(self, codec: Codec, to: str | None, bitrate_bps: float, copies: int | None) -> None:
        rate_hz, policy = codec.sample_rate_hz, LatencyPolicy.network(10)
        self.rings = Ring(rate_hz, 1), Ring(Receiver.ring_samples(policy, rate_hz), 1)
        self.times = Timeline(rate_hz), Timeline(rate_hz)
        block = rate_hz // 100
        self.microphone, self.speaker = SimulatedCapture(rate_hz, block), SimulatedPlayback(rate_hz, block)
        self.outbox: list[bytes] = []
        self.heard: list[np.ndarray] = []
        self.peer = CallPeer(
            codec, *self.rings, rate_hz, rate_hz, lambda data, _: self.outbox.append(data), address=to,
            bitrate_bps=bitrate_bps, copies=copies, policy=policy,
            capture_times=self.times[0], playback_times=self.times[1],
        )  # fmt: skip
        if copies is not None:
            self.peer.rate.report = lambda loss, now_s: None  # type: ignore[method-assign]


def call(codec: Codec, speech: np.ndarray, loss: float, copies: int | None, bitrate_bps: float, seed: int):
    """What the listener hears of the speech, float32, aligned to it; and the listener's report."""
    rate_hz = codec.sample_rate_hz
    sound = np.concatenate([np.zeros(round(LEAD_IN_S * rate_hz), np.float32), speech])
    caller, listener = Side(codec, "listener", bitrate_bps, copies), Side(codec, None, bitrate_bps, copies)
    network = {"delay_ms": 40, "jitter_ms": 5, "loss": loss, "burst_packets": 2}
    ways: list[tuple[Side, Side, ImpairedNetwork[bytes]]] = [
        (caller, listener, ImpairedNetwork(seed, **network)), (listener, caller, ImpairedNetwork(seed + 1, **network))
    ]  # fmt: skip

    def said(first: int, count: int) -> np.ndarray:
        part = sound[first : first + count]
        return np.pad(part, (0, count - len(part)))[:, None]

    def silence(first: int, count: int) -> np.ndarray:
        return np.zeros((count, 1), np.float32)

    for step in range(round((len(sound) / rate_hz + LEAD_OUT_S) / STEP_S)):
        now_s = (step + 1) * STEP_S
        for side, hears in ((caller, said), (listener, silence)):
            side.microphone.run(now_s, side.rings[0], side.times[0], hears)
            side.peer.pump(now_s)
            side.speaker.run(now_s, side.rings[1], side.times[1], lambda block, to=side: to.heard.append(block.copy()))
        for side, other, way in ways:
            for data in side.outbox:
                way.send(now_s, data)
            side.outbox.clear()
            for data in way.due(now_s):
                other.peer.receive(data, "caller" if side is caller else "listener", now_s)
    heard = np.concatenate(listener.heard)[round(LEAD_IN_S * rate_hz) :, 0]
    return aligned(speech, heard, rate_hz), listener.peer.report()


def aligned(speech: np.ndarray, heard: np.ndarray, rate_hz: int) -> np.ndarray:
    """Shift `heard` by up to half a second to fit `speech`."""
    size = 1 << (len(heard) + len(speech)).bit_length()
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(speech, size).conj(), size)[: rate_hz // 2]
    delay = int(match.argmax())
    part = heard[delay : delay + len(speech)]
    return np.pad(part, (0, len(speech) - len(part)))


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    lines = [
        "| loss | sent as | payload kbps | ViSQOL | PESQ | loss alone: ViSQOL | PESQ | concealed | from copies |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {100 * row['loss']:.0f} % | {row['arm']} | {row['kbps']:.1f} | {row['visqol']:.2f} | {row['pesq']:.2f} "
        f"| {row['visqol_alone']:.2f} | {row['pesq_alone']:.2f} "
        f"| {100 * row['concealed']:.1f} % | {100 * row['from_copies']:.1f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def plot(rows: list[dict], path: Path) -> None:
    """Quality against loss, one line an arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    titles = {
        "visqol": "ViSQOL",
        "pesq": "PESQ-WB",
        "visqol_alone": "ViSQOL, loss alone",
        "pesq_alone": "PESQ-WB, loss alone",
    }
    for position, (metric, title) in enumerate(titles.items(), start=1):
        axes = figure.add_subplot(2, 2, position)
        for arm in dict.fromkeys(row["arm"] for row in rows):
            points = [(100 * row["loss"], row[metric]) for row in rows if row["arm"] == arm]
            axes.plot(*zip(*points, strict=True), marker="o", label=arm)
        axes.set(xlabel="packets lost, %", title=title)
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Run all conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", nargs="*", type=Path, default=[sample_path()])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--kbps", type=float, default=6)
    parser.add_argument("--seconds", type=float, default=12, help="of every file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--losses", type=float, nargs="+", default=LOSSES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    codec, rows = Codec.load(options.model), []
    clips = []
    for path in options.speech:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        clip = soxr.resample(sound.mean(axis=1), rate_hz, codec.sample_rate_hz).clip(-1, 1).astype(np.float32)
        clips.append(clip[: round(options.seconds * codec.sample_rate_hz)])
    decoded = [codec.detokenize(codec.tokenize(clip, 1000 * options.kbps))[: len(clip)] for clip in clips]
    for loss in options.losses:
        for arm, copies in ARMS.items():
            scores = []
            for number, clip in enumerate(clips):
                for seed in range(options.seeds):
                    heard, report = call(codec, clip, loss, copies, 1000 * options.kbps, 100 * number + 2 * seed)
                    played = report["frames_decoded"] + report["frames_concealed"]
                    pairs = ((clip, heard), (decoded[number], heard))
                    scores.append((
                        *(metric(*pair, codec.sample_rate_hz) for pair in pairs for metric in (visqol, pesq)),
                        report["frames_concealed"] / played, report["frames_from_coarse_copies"] / played,
                        report["payload_bps"] / 1000,
                    ))  # fmt: skip
            mean = np.mean(scores, axis=0)
            names = ("visqol", "pesq", "visqol_alone", "pesq_alone", "concealed", "from_copies", "kbps")
            rows.append({"loss": loss, "arm": arm, **dict(zip(names, mean.tolist(), strict=True))})
            print(f"{100 * loss:.0f} % {arm}: ViSQOL {mean[0]:.2f}, PESQ {mean[1]:.2f}", file=sys.stderr)
    print(table(rows))
    print(f"\n{codec.config.name} {codec.model_id.hex()}, {options.kbps:g} kbps, {len(clips)} clips of "
          f"{options.seconds:g} s, {options.seeds} networks each; {platform.machine()}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
