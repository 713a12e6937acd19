"""Skeleton of a media server: callers come and go, and one step a frame codes all of them, both ways, on one device.

Replace `say` and the dictionary of packets by your sockets.  Every caller hears itself, with some packets lost.

python demos/many_streams.py --streams 1000
python demos/many_streams.py --streams 4 --seconds 2 --device cpu
"""

import argparse
import random
import time

import numpy as np

from streamcodec import Codec


def say(codec: Codec, number: int) -> np.ndarray:
    """One frame of a caller's voice; here a tone that comes and goes."""
    t = (np.arange(codec.frame_samples) + number * codec.frame_samples) / codec.sample_rate_hz
    return (0.3 * np.sin(2 * np.pi * 220 * t) * np.sin(np.pi * t) ** 2).astype(np.float32)


def run(streams: int, seconds: float, device: str, loss: float) -> None:
    """Serve as many callers as there are slots."""
    codec = Codec.load()
    batch = codec.batch(streams, bitrate_bps=6000, device=device)
    packets: dict[int, bytes] = {}  # by slot: what is under way to each caller
    callers = frames = 0
    busy_s = 0.0
    for number in range(round(seconds * codec.sample_rate_hz / codec.frame_samples)):
        if len(packets) < streams and random.random() < 0.5:
            slot = batch.join(random.choice([3000, 6000, 9000]))
            packets[slot] = b""
            callers += 1
        elif packets and random.random() < 0.02:
            slot = random.choice(list(packets))
            batch.leave(slot)
            del packets[slot]
        for slot, packet in packets.items():
            batch.frames[slot] = say(codec, number)
            batch.receive(slot, None if not packet or random.random() < loss else packet)
        begin_s = time.perf_counter()
        batch.step()
        busy_s += time.perf_counter() - begin_s
        for slot in packets:
            packets[slot] = batch.packet(slot)  # and batch.heard[slot] is what this caller hears
        frames += len(packets)
    steps = number + 1
    print(f"{callers} callers, {frames} frames coded both ways in {steps} steps of {1e3 * busy_s / steps:.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64, help="slots")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--loss", type=float, default=0.05)
    options = parser.parse_args()
    random.seed(0)
    run(options.streams, options.seconds, options.device, options.loss)
