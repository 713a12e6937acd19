"""A sound file as a live stream: frame by frame in, packets out, some of them lost, frames back.

python demos/file_stream.py in.wav out.wav --kbps 6 --loss 0.05
"""

import argparse
import random

import numpy as np
import soundfile
import soxr

from streamcodec import Codec


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--kbps", type=float, default=6)
    parser.add_argument("--loss", type=float, default=0)
    options = parser.parse_args()

    codec = Codec.load()
    sound, rate_hz = soundfile.read(options.source, dtype="float32", always_2d=True)
    mono = soxr.resample(sound.mean(axis=1), rate_hz, codec.sample_rate_hz).clip(-1, 1).astype(np.float32)

    encoder, decoder = codec.encoder(bitrate_bps=1000 * options.kbps), codec.decoder()
    network = random.Random(0)
    packets = encoder.push(mono) + encoder.flush()
    received = [packet if network.random() >= options.loss else None for packet in packets]
    frames = [decoder.decode(packet) for packet in received]  # None: lost, so it is concealed

    soundfile.write(options.target, np.concatenate(frames)[: len(mono)], codec.sample_rate_hz)
    n_bytes = sum(map(len, packets))
    print(f"{len(packets)} packets, {8 * n_bytes / (len(mono) / codec.sample_rate_hz):.0f} bps, "
          f"{received.count(None)} lost")  # fmt: skip


if __name__ == "__main__":
    main()
