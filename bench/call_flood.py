"""A flood of hostile datagrams on both sides of a call, before, during and after its set-up and after its end.

python bench/call_flood.py --datagrams 1000000

Random bytes, recordings of this call and of an older one, the same cut, changed, renumbered or sent back to their
sender, greetings of other models and keys, from the other side's address and from elsewhere.  Of a call with a key,
whatever was seen is forged; of a call without one only the other side's address, as nothing proves more there.  Ends
with exit code 1 when a datagram moved anything but a counter, or was answered with more bytes than it had.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from streamcodec import Codec
from streamcodec.audio.ring import Ring
from streamcodec.live import CallPeer, LatencyPolicy, Receiver
from streamcodec.live.handshake import HELLO_BYTES, pack_hello

SECRET = bytes(range(32))
TICK_S = 0.01
PHASES = {"called": 0.0, "answered": 0.0, "talking": 0.5, "over": 0.5}
MAY_MOVE = ("counters", "_now_s", "_limit")
LOOK_EVERY = 2000


class Call:
    """Two peers on a wire in memory; `seen` are all datagrams so far."""

    def __init__(self, codec: Codec, secret: bytes | None) -> None:
        self.wire: list[tuple[str, str, bytes]] = []
        self.seen: list[bytes] = []
        self.now_s = 0.0
        self.peers = {name: self._peer(codec, name, to, secret) for name, to in (("caller", "listener"),
                                                                                 ("listener", None))}  # fmt: skip

    def _peer(self, codec: Codec, name: str, to: str | None, secret: bytes | None) -> CallPeer:
        rate_hz, policy = codec.sample_rate_hz, LatencyPolicy.network(10)
        rings = Ring(rate_hz // 2, 1), Ring(Receiver.ring_samples(policy, rate_hz), 1)
        return CallPeer(
            codec, *rings, rate_hz, rate_hz, lambda data, to: self.wire.append((name, to, data)),
            address=to, secret=secret, policy=policy,
        )  # fmt: skip

    def deliver(self) -> None:
        """What is on the wire arrives, not yet what it brings about."""
        sent, self.wire[:] = self.wire[:], []
        for source, to, data in sent:
            self.seen.append(data)
            if to in self.peers:
                self.peers[to].receive(data, source, self.now_s)

    def run(self, seconds: float) -> None:
        """Talk."""
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            for peer in self.peers.values():
                samples = round(peer.codec.sample_rate_hz * TICK_S)
                peer.sender.capture.write(np.full((samples, 1), 0.1, np.float32))
                peer.receiver.playback.read_into(np.empty((samples, 1), np.float32))
                peer.pump(self.now_s)
            self.deliver()

    def enter(self, phase: str) -> None:
        """Bring a new call into a phase."""
        self.now_s += TICK_S
        self.peers["caller"].pump(self.now_s)
        if phase == "called":
            self.seen += [data for _, _, data in self.wire]  # lost on the way
            self.wire.clear()
            return
        self.deliver()  # the listener answers
        self.deliver()  # the caller echoes
        if phase == "answered":
            self.wire.clear()  # the echo is lost, and nobody saw it: whoever brings it to the listener makes the call
            return
        self.deliver()
        self.run(PHASES[phase])
        if phase == "over":
            self.now_s += 10
            for peer in self.peers.values():
                peer.pump(self.now_s)
            self.wire.clear()


class Attacker:
    """Makes datagrams out of what was seen."""

    def __init__(self, seed: int, old: list[bytes], seen: list[bytes], sees_all: bool) -> None:
        self.random = random.Random(seed)
        self.old, self.seen, self.sees_all = old, seen, sees_all

    def datagram(self, other_side: str) -> tuple[bytes, str]:
        """One, and where it seems to come from."""
        draw = self.random
        source = draw.choice((other_side, other_side, "elsewhere", f"source {draw.randrange(5000)}"))
        kind = draw.randrange(6)
        if kind == 0:
            return draw.randbytes(draw.randrange(200)), source
        if kind == 1:
            return self._greeting(), source
        if kind == 2:
            return draw.choice(self.seen or self.old), source
        may_forge = self.sees_all or source != other_side
        data = bytearray(draw.choice((self.seen or self.old) if may_forge and draw.random() < 0.7 else self.old))
        if kind == 3:
            return bytes(data[: draw.randrange(len(data))]), source
        if kind == 4:
            return self._renumbered(data), source
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        return bytes(data) + draw.randbytes(draw.choice((0, 0, 1, 2000))), source

    def _greeting(self) -> bytes:
        draw = self.random
        ssrc = int.from_bytes(draw.choice(self.old)[8:12], "big") if draw.random() < 0.5 else draw.getrandbits(32)
        salt, echo = (draw.choice((bytes(16), draw.randbytes(16))) for _ in range(2))
        secret = draw.choice((None, bytes(32)))
        return pack_hello(ssrc, draw.randbytes(8), salt, echo, secret, from_listener=draw.random() < 0.5)

    def _renumbered(self, data: bytearray) -> bytes:
        """Another number with the timestamp that fits it, or another payload type."""
        draw = self.random
        if draw.random() < 0.2:
            data[1] = 0x80 | draw.randrange(96, 128)
            data[4] ^= 0xFF
            return bytes(data)
        ahead = draw.choice((1, 2, 100, 2999, 3001, 40_000, -1, -2000))
        number = int.from_bytes(data[2:4], "big") + ahead
        stamp = int.from_bytes(data[4:8], "big") + 320 * ahead
        data[2:8] = (number & 0xFFFF).to_bytes(2, "big") + (stamp & 0xFFFF_FFFF).to_bytes(4, "big")
        if len(data) == HELLO_BYTES:
            data[-1] ^= 1
        return bytes(data)


def state(thing: Any) -> Any:
    """All that a peer remembers, as something that compares."""
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if isinstance(thing, dict):
        return {str(key): state(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | set):
        return [state(value) for value in thing]
    if type(thing).__module__.startswith("streamcodec.live"):
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        held = {name: getattr(thing, name) for name in names} | getattr(thing, "__dict__", {})
        return {name: state(value) for name, value in held.items() if name not in MAY_MOVE}
    return thing if isinstance(thing, int | float | str | bytes) else repr(thing)


def flood(codec: Codec, datagrams: int, seed: int = 0) -> dict[str, Any]:
    """Send so many in all; what became of them, and what went wrong."""
    result: dict[str, Any] = {"datagrams": 0, "answers": 0, "counters": {}, "failures": []}
    worlds = [(secret, phase, name) for secret in (None, SECRET) for phase in PHASES for name in ("caller", "listener")]
    for number, (secret, phase, name) in enumerate(worlds):
        old = Call(codec, secret)
        old.enter("talking")
        call = Call(codec, secret)
        call.enter(phase)
        peer = call.peers[name]
        other = "listener" if name == "caller" else "caller"
        attacker = Attacker(seed + number, old.seen, call.seen, sees_all=secret is not None)
        where = f"{'encrypted' if secret else 'plain'}, {phase}, {name}"
        before, counted = state(peer), sum(peer.counters.values())
        count = datagrams // len(worlds)
        for sent in range(1, count + 1):
            data, source = attacker.datagram(other)
            call.now_s += 1e-6
            peer.receive(data, source, call.now_s)
            for _, to, answer in call.wire:
                result["answers"] += 1
                if len(answer) > len(data) or to != source:
                    result["failures"].append(f"{where}: {len(data)} bytes answered with {len(answer)}")
            call.wire.clear()
            if (sent % LOOK_EVERY == 0 or sent == count) and (now := state(peer)) != before:
                moved = [key for key in now if now[key] != before[key]]
                result["failures"].append(f"{where}: {', '.join(moved)} moved")
                break
        result["datagrams"] += sent
        print(f"{where}: {result['datagrams']} datagrams so far", file=sys.stderr)
        if sum(peer.counters.values()) != counted + sent:
            result["failures"].append(f"{where}: a datagram was not counted, or twice")
        for key, value in peer.counters.items():
            result["counters"][key] = result["counters"].get(key, 0) + value
    return result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    options = parser.parse_args()
    begun_s = time.monotonic()
    result = flood(Codec.load(options.model), options.datagrams)
    print(json.dumps({**result, "seconds": round(time.monotonic() - begun_s, 1)}, indent=1))
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
