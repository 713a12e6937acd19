"""Two loopbacks, of devices that catch up on their callbacks and of files, until stdin ends; then their reports.

python stopped_process.py SOUND RECORDING
"""

import json
import sys
import threading
import time
from pathlib import Path

from fake_portaudio import FakePortAudio
from live_world import transparent_codec

sys.modules["sounddevice"] = fake = FakePortAudio()

from streamcodec.live import FileDevices, LiveLoopback, session  # noqa: E402

session._PATIENCE_S = 0.6


def call_back():
    due_s = time.monotonic()
    while True:
        due_s += 0.01
        time.sleep(max(0.0, due_s - time.monotonic()))
        for stream in fake.streams:
            stream.tick()


def main():
    codec = transparent_codec()
    files = LiveLoopback(codec, latency_ms=150, devices=FileDevices(codec, Path(sys.argv[1]), Path(sys.argv[2])))
    devices = LiveLoopback(codec, latency_ms=200)
    with files.running() as of_files, devices.running() as of_devices:
        threading.Thread(target=call_back, daemon=True).start()
        while not devices.pipeline.receiver.decoded_frames:
            of_devices.wait(0.05)
        print("running", flush=True)
        sys.stdin.read()
        alive = of_files.wait(0.01) and of_devices.wait(0.01)
    print(json.dumps({"alive": alive, "files": files.report(), "devices": devices.report()}, default=str))


if __name__ == "__main__":
    main()
