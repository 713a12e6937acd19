"""Two ends of an encrypted call in one program, over the loopback network: one speaks a file, the other records it.

python demos/udp_call.py said.wav heard.wav

On two computers: `streamcodec call --listen 5004 --key secret` and `streamcodec call --to HOST:5004 --key secret`.
"""

import argparse
import secrets
from pathlib import Path

import soundfile

from streamcodec import Codec
from streamcodec.live import FileDevices, UdpCall


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("said", type=Path)
    parser.add_argument("heard", type=Path)
    parser.add_argument("--seconds", type=float, help="stop before the end of the file")
    options = parser.parse_args()

    codec = Codec.load()
    seconds = options.seconds or soundfile.info(options.said).duration + 1
    secret = secrets.token_bytes(32)
    listener = UdpCall(
        codec, FileDevices(codec, None, options.heard), listen_port=0, listen_host="127.0.0.1", secret=secret
    )
    caller = UdpCall(codec, FileDevices(codec, options.said, None), to=("127.0.0.1", listener.port), secret=secret)
    with listener.running(), caller.running() as calling:
        calling.wait(seconds)
    caller.close()
    listener.close()
    report = listener.report()
    print(f"{report['frames_decoded']} frames heard, {report['frames_concealed']} concealed, "
          f"encrypted: {report['encrypted']}, datagrams: {report['datagrams']}")  # fmt: skip


if __name__ == "__main__":
    main()
