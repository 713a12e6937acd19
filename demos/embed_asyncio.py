"""Skeleton of a voice app: async source -> encoder -> queue -> decoder -> async sink.

Replace `microphone`, `speaker` and the queue by yours: a WebRTC track, a websocket, a speech model.  A frame takes
well under a millisecond to code, so it runs in the event loop; `asyncio.to_thread` would move it out.

python demos/embed_asyncio.py --seconds 2
"""

import argparse
import asyncio
from collections.abc import AsyncIterator

import numpy as np

from streamcodec import Codec


async def microphone(codec: Codec, seconds: float, speed: float) -> AsyncIterator[np.ndarray]:
    """Frames at the pace of the clock; here a tone that comes and goes."""
    frame_s = codec.frame_samples / codec.sample_rate_hz
    start_s = asyncio.get_running_loop().time()
    for number in range(round(seconds / frame_s)):
        await asyncio.sleep(start_s + number * frame_s / speed - asyncio.get_running_loop().time())
        t = (np.arange(codec.frame_samples) + number * codec.frame_samples) / codec.sample_rate_hz
        yield (0.3 * np.sin(2 * np.pi * 220 * t) * np.sin(np.pi * t) ** 2).astype(np.float32)


class Speaker:
    """Takes frames; here it only keeps count of them and of how loud they were."""

    def __init__(self) -> None:
        self.frames, self.peak = 0, 0.0

    async def play(self, frame: np.ndarray) -> None:
        """Play a frame."""
        self.frames += 1
        self.peak = max(self.peak, float(np.abs(frame).max()))


async def send(codec: Codec, network: asyncio.Queue[bytes | None], seconds: float, speed: float) -> int:
    """Encode what the microphone gives; bytes in all."""
    encoder, n_bytes = codec.encoder(bitrate_bps=6000), 0
    async for frame in microphone(codec, seconds, speed):
        packet = encoder.encode(frame)
        n_bytes += len(packet)
        if network.full():
            network.get_nowait()  # bounded: the oldest goes
        network.put_nowait(packet)
    await network.put(None)
    return n_bytes


async def receive(codec: Codec, network: asyncio.Queue[bytes | None], speaker: Speaker) -> None:
    """Decode what comes, until None."""
    decoder = codec.decoder()
    while (packet := await network.get()) is not None:
        await speaker.play(decoder.decode(packet))


async def run(seconds: float, speed: float) -> None:
    """Both directions side by side."""
    codec, speaker = Codec.load(), Speaker()
    network: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=20)
    n_bytes, _ = await asyncio.gather(send(codec, network, seconds, speed), receive(codec, network, speaker))
    print(f"{speaker.frames} frames played, peak {speaker.peak:.2f}, {8 * n_bytes / seconds:.0f} bps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--speed", type=float, default=1, help="faster than the clock")
    options = parser.parse_args()
    asyncio.run(run(options.seconds, options.speed))
