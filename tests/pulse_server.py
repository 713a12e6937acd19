"""A private PulseAudio with a virtual mouth and a virtual ear, and recordings of both on one clock."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import numpy as np

RECORD_HZ = 48_000
_TOOLS = ("pulseaudio", "pactl", "parec", "paplay")


def why_not():
    """Why PulseAudio cannot run here, or None."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed (Debian: apt install pulseaudio pulseaudio-utils libasound2-plugins)"
    try:
        import sounddevice  # noqa: F401
    except OSError:
        return "PortAudio is not installed (Debian: apt install libportaudio2)"
    return None


@contextmanager
def pulse_server(folder):
    """Run it in `folder`; yields the environment for its clients, or raises RuntimeError."""
    socket = folder / "native"
    (folder / "default.pa").write_text(
        f"load-module module-native-protocol-unix auth-anonymous=1 socket={socket}\n"
        "load-module module-null-sink sink_name=mouth rate=48000 channels=1\n"
        "load-module module-null-sink sink_name=ear rate=48000 channels=1\n"
        "load-module module-remap-source source_name=mic master=mouth.monitor\n"
        "set-default-sink ear\nset-default-source mic\n"
    )
    (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
    }
    command = ["pulseaudio", "-n", "-F", str(folder / "default.pa"), "--daemonize=no", "--exit-idle-time=-1",
               "--disable-shm=1", "--realtime=no", "--high-priority=no", "--use-pid-file=no"]  # fmt: skip
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(50):
                answer = subprocess.run(["pactl", "list", "short", "sources"], env=environment, capture_output=True)
                if b"mic" in answer.stdout:
                    break
                if server.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                answer = None
            if answer is None or b"mic" not in answer.stdout:
                raise RuntimeError((folder / "log").read_text()[-300:])
            yield environment
        finally:
            server.terminate()
            server.wait(10)


class Recorder(threading.Thread):
    """Records a source; every piece is stamped with the time it came."""

    def __init__(self, source, environment):
        super().__init__(daemon=True)
        command = ["parec", "-d", source, "--format=float32le", f"--rate={RECORD_HZ}", "--channels=1", "--raw",
                   "--latency-msec=10"]  # fmt: skip
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._pieces, self._starts_s = [], []
        self.start()

    def run(self):
        count, rest = 0, b""
        while piece := os.read(self._process.stdout.fileno(), 1 << 16):
            now_s = time.monotonic()
            piece = rest + piece
            whole = len(piece) // 4 * 4
            rest = piece[whole:]
            self._pieces.append(np.frombuffer(piece[:whole], np.float32))
            count += whole // 4
            self._starts_s.append(now_s - count / RECORD_HZ)

    def stop(self):
        """The sound, and when its first sample was heard by the clock of this process."""
        self._process.terminate()
        self._process.wait(10)
        self.join(10)
        self._process.stdout.close()
        return np.concatenate(self._pieces), float(np.median(self._starts_s[len(self._starts_s) // 4 :]))


def delays_ms(mouth, ear, ear_later_s, window_s=3.0, longest_ms=500):
    """Delay of one recording to the other in every window with sound in it, by correlating their envelopes."""
    step = RECORD_HZ // 1000

    def envelope(sound):
        rows = sound[: len(sound) // step * step].reshape(-1, step)
        return np.log(np.sqrt((rows**2).mean(axis=1)) + 1e-4)

    a, b = envelope(mouth), envelope(ear)
    window, shift = round(1000 * window_s), round(1000 * ear_later_s)
    found = []
    for start in range(max(0, shift), len(a) - window - longest_ms, window):
        part = a[start : start + window]
        if start - shift + window + longest_ms > len(b):
            break
        if part.std() < 0.5:
            continue
        part = part - part.mean()
        others = np.lib.stride_tricks.sliding_window_view(b, window)[start - shift : start - shift + longest_ms]
        others = others - others.mean(axis=1, keepdims=True)
        scores = others @ part / (np.linalg.norm(others, axis=1) * np.linalg.norm(part) + 1e-9)
        best = int(np.argmax(scores))
        if scores[best] > 0.6:
            found.append(float(best))
    return found
