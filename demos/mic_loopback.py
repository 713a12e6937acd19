"""Hear yourself through the codec: python demos/mic_loopback.py --seconds 20   (wear headphones).

With --input and --output, sound files take the place of microphone and speaker.
"""

import argparse
from pathlib import Path

from streamcodec import Codec
from streamcodec.live import FileDevices, LiveLoopback


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kbps", type=float, default=6)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    codec = Codec.load()
    files = FileDevices(codec, options.input, options.output) if options.input or options.output else None
    loopback = LiveLoopback(codec, bitrate_bps=1000 * options.kbps, devices=files)
    with loopback.running() as running:
        running.wait(options.seconds)
    report = loopback.report()
    delay = report["mouth_to_ear"]
    print(f"{report['frames_decoded']} frames at {report['bitrate_bps'] / 1000:.2f} kbps")
    print(
        f"mouth to ear: p50 {delay['p50_ms']:.0f} ms, p99 {delay['p99_ms']:.0f} ms, bound {report['bound_ms']:.0f} ms"
    )


if __name__ == "__main__":
    main()
