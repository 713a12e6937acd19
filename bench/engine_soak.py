"""A day of sound through one stream: `python bench/engine_soak.py [HOURS [MODEL]]`; prints a line a simulated hour.

MODEL is a .safetensors file, by default the bundled one.

Speech, silence, full-scale noise and denormals alternate, one frame in 50 is lost.  Memory and the time of a frame
must not grow, nothing may stop being finite, and at the end the state must be that of a stream that has heard only
the last seconds: whatever came before has left no trace.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np

from streamcodec import Codec
from streamcodec.bench.reference import Float32
from streamcodec.cli.loopback import sample_path
from streamcodec.evaluation.sound_files import read_sound
from streamcodec.metrics.waveforms import resampled

LAST_FRAMES = 400


def scenes(hop: int, sample_rate_hz: int) -> Float32:
    """Frames that are repeated without end, [F, hop]."""
    speech = resampled(*read_sound(sample_path()), sample_rate_hz)
    rng = np.random.default_rng(0)
    length = len(speech) // 4
    noise = rng.uniform(-1, 1, length).astype(np.float32)
    sound = np.concatenate([speech, np.zeros(length, np.float32), noise, np.full(length, 1e-40, np.float32)])
    return np.clip(sound[: len(sound) // hop * hop], -1, 1).reshape(-1, hop)


def main(hours: float, model: Path | None) -> None:
    engine = Codec.load(model, backend="cpu").engine
    config = engine.config
    frames = scenes(config.hop_samples, config.sample_rate_hz)
    states = engine.encoder_state(), engine.decoder_state()
    again = engine.encoder_state(), engine.decoder_state()
    codes = np.zeros((1, config.n_codebooks), np.int16)
    heard = np.zeros((1, config.hop_samples), np.float32)
    total = round(hours * 3600 * config.frame_rate_hz)
    each = round(3600 * config.frame_rate_hz)
    loudest, begin, done = 0.0, time.process_time(), 0
    for i in range(total):
        sent = 0 if i % 50 == 49 else config.n_codebooks
        for one in (states, again)[: 2 if i >= total - LAST_FRAMES else 1]:
            engine.encode_step(frames[i % len(frames)][None], one[0], codes)
            engine.decode_step(codes[:, :sent], one[1], heard)
        loudest = max(loudest, float(heard.max()))
        if not np.isfinite(heard).all():
            sys.exit(f"frame {i} is not finite")
        if (i + 1) % each == 0 or i + 1 == total:
            took_ms = 1e3 * (time.process_time() - begin) / (i + 1 - done)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{(i + 1) / each:.1f} h: {took_ms:.3f} ms a frame, {memory} MiB, peak {loudest:.3f}", flush=True)
            begin, done = time.process_time(), i + 1
    same = all(np.array_equal(one, other) for one, other in zip(states, again, strict=True))
    print(f"state equals that of a stream {LAST_FRAMES} frames old: {same}")
    sys.exit(not same)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 24.0, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
