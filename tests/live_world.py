"""A codec without loss that costs nothing, and a world of simulated devices around a pipeline."""

from types import SimpleNamespace

import numpy as np

from streamcodec import PRESETS, Codec
from streamcodec.audio.ring import Ring
from streamcodec.audio.timeline import Timeline
from streamcodec.live.pipeline import Pipeline
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.simulated import SimulatedCapture, SimulatedPlayback


class TransparentEngine:
    """Codes are the number of a frame that it remembers; a lost frame is the last one, softer."""

    name = "transparent"

    def __init__(self, config):
        self.config = config
        self.frames = {}
        self.next_number = 0

    def encoder_state(self, streams=1):
        return np.zeros((streams, 1), np.float32)

    def decoder_state(self, streams=1):
        return np.zeros((streams, self.config.hop_samples), np.float32)

    def encode_step(self, frames, state, codes, beam=1):
        self.frames[self.next_number % 4096] = frames[0].copy()
        codes[:] = 0
        codes[0, :2] = divmod(self.next_number % 4096, 1024)
        self.next_number += 1

    def decode_step(self, codes, state, frames):
        if codes.shape[1]:
            state[0] = self.frames[int(codes[0, 0]) * 1024 + int(codes[0, 1])]
        else:
            state[0] *= 0.7
        frames[:] = state


def transparent_codec():
    config = PRESETS["tiny-24k"]
    return Codec(SimpleNamespace(config=config, model_id=b"transpar"), TransparentEngine(config))


_NOISE = np.random.default_rng(5).standard_normal(1 << 19).astype(np.float32)
_NOISE = 0.1 * (_NOISE + np.roll(_NOISE, 1) + np.roll(_NOISE, 2))


def speech_like(first, count):
    """Noise with syllables: the same at the same place whenever asked, and found again by correlation."""
    t = np.arange(first, first + count)
    return (_NOISE[t % len(_NOISE)] * np.abs(np.sin(np.pi * 3.1 / 24_000 * t)).astype(np.float32))[:, None]


def delay_samples(heard, at, window=4800, reach=12_000):
    """How much later than `speech_like` the heard sound is around sample `at`; and the correlation there."""
    part = heard[at : at + window]
    sound = speech_like(at - reach, reach + window)[:, 0]
    match = np.correlate(sound, part, "valid")
    best = int(match.argmax())
    same = sound[best : best + window]
    return reach - best, match[best] / np.sqrt((same @ same) * (part @ part))


class World:
    """Two devices, a pipeline and a clock in steps of 1 ms."""

    def __init__(
        self, *, codec=None, policy=None, capture=None, playback=None, link=None, sound=speech_like, capture_channels=1
    ):
        self.capture_device = capture or SimulatedCapture(24_000, 240)
        self.playback_device = playback or SimulatedPlayback(24_000, 240)
        self.policy = policy or LatencyPolicy.loopback(40, 10)
        rate_in = round(self.capture_device.block_samples / self.capture_device.nominal_s)
        rate_out = round(self.playback_device.block_samples / self.playback_device.nominal_s)
        self.capture, self.playback = (
            Ring(rate_in // 2, capture_channels),
            Ring(Receiver.ring_samples(self.policy, rate_out), 1),
        )
        self.capture_times, self.playback_times = Timeline(rate_in), Timeline(rate_out)
        self.pipeline = Pipeline(
            codec or transparent_codec(), self.capture, self.playback, rate_in, rate_out, 9000, self.policy,
            capture_times=self.capture_times, playback_times=self.playback_times, link=link,
        )  # fmt: skip
        self.sound = sound
        self.heard = []
        self.now_s = 0.0
        self.pumping = lambda now_s: True

    def run(self, seconds, step_s=0.002, each=None):
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.capture_device.run(self.now_s, self.capture, self.capture_times, self.sound)
            if self.pumping(self.now_s):
                self.pipeline.pump(self.now_s)
            self.playback_device.run(
                self.now_s, self.playback, self.playback_times, lambda block: self.heard.append(block.copy())
            )
            if each:
                each(self)
        return self

    @property
    def output(self):
        return np.concatenate(self.heard)[:, 0]
