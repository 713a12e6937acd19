"""Callers and listeners on a wire in memory, and a clock that the test turns."""

import numpy as np
from live_world import transparent_codec

from streamcodec.audio.ring import Ring
from streamcodec.live.peer import CallPeer
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver

TICK_S = 0.01
SECRET = bytes(range(32))


class Side:
    """One side; `place` is the address that its datagrams come from."""

    def __init__(self, wire, place, to=None, codec=None, **options):
        policy = LatencyPolicy.network(10.0)
        self.place = place
        self.capture, self.playback = Ring(12_000, 1), Ring(Receiver.ring_samples(policy, 24_000), 1)
        self.peer = CallPeer(
            codec or transparent_codec(), self.capture, self.playback, 24_000, 24_000,
            lambda data, to: wire.append((self.place, to, data)), address=to, policy=policy, **options,
        )  # fmt: skip

    def pump(self, now_s):
        self.capture.write(np.full((240, 1), 0.1, np.float32))
        self.playback.read_into(np.empty((240, 1), np.float32))
        self.peer.pump(now_s)


class Wire:
    """Sides by name; `seen` is all that was sent: (from, to, datagram)."""

    def __init__(self, caller=None, listener=None, codec=None):
        self.sent, self.seen, self.now_s = [], [], 0.0
        codec = codec or transparent_codec()
        self.caller = Side(self.sent, "caller", **{"to": "listener", "codec": codec, **(caller or {})})
        self.listener = Side(self.sent, "listener", **{"codec": codec, **(listener or {})})
        self.sides = [self.caller, self.listener]

    def deliver(self, through=lambda source, to, data: True):
        """What was sent arrives; what that brings about is sent, not yet delivered."""
        sent, self.sent[:] = self.sent[:], []
        for source, to, data in sent:
            self.seen.append((source, to, data))
            for side in self.sides:
                if to == side.place and through(source, to, data):
                    side.peer.receive(data, source, self.now_s)

    def run(self, seconds, through=lambda source, to, data: True):
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            for side in self.sides:
                side.pump(self.now_s)
            self.deliver(through)
        return self

    def said_by(self, side, payload_type):
        """Datagrams of a side, the newest last."""
        return [data for source, _, data in self.seen if source == side.place and data[1] & 0x7F == payload_type]
