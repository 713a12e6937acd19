"""A call over UDP: sockets and sound devices around a `CallPeer`."""

from __future__ import annotations

from typing import Any

from streamcodec.codec import Codec
from streamcodec.errors import ConfigError
from streamcodec.live.endpoint import UdpEndpoint
from streamcodec.live.file_devices import FileDevices
from streamcodec.live.peer import CallPeer
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.session import BLOCK_MS, Devices, PumpThread, warm_up

_LAST_PORT, _LONGEST_PORT = 65_535, 5
_DATAGRAMS_A_PUMP = 256


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT" or "[HOST]:PORT".

    Raises
    ------
    ConfigError
        No port, or one out of range.

    Examples
    --------
    >>> parse_address("[::1]:5004")
    ('::1', 5004)
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not port.isdecimal() or len(port) > _LONGEST_PORT or not 1 <= int(port) <= _LAST_PORT:
        raise ConfigError(f"{text!r} is no HOST:PORT; give a port from 1 to 65535, as in example.org:5004")
    return host, int(port)


class UdpCall:
    """Listens for a call, or makes one.

    Parameters
    ----------
    codec : Codec
        Both sides have the same weights.
    devices : Devices or FileDevices
        Where sound comes from and goes to.
    listen_port : int, optional
        Port to listen on, 0 for any; `port` tells which.
    listen_host : str
        Name or address to listen on; all of IPv4 by default, "::" is all.
    to : (str, int), optional
        Host and port to call; every address of the host is tried.
    secret, bitrate_bps, copies
        As `CallPeer`'s.
    cap_ms : float
        Most audio to hold against the network's jitter.

    Raises
    ------
    DeviceError
        The port is taken or not allowed, or the host is unknown.
    """

    def __init__(
        self,
        codec: Codec,
        devices: Devices | FileDevices,
        *,
        listen_port: int | None = None,
        listen_host: str = "0.0.0.0",
        to: tuple[str, int] | None = None,
        secret: bytes | None = None,
        bitrate_bps: float = 6000,
        copies: int | None = None,
        cap_ms: float = 400,
    ) -> None:
        if (listen_port is None) == (to is None):
            raise ConfigError("a call either listens on a port or goes to an address; give one of them")
        self.codec, self.devices = codec, devices
        self._thread: PumpThread | None = None
        self._endpoint = UdpEndpoint(*(to or (listen_host, listen_port or 0)), listens=to is None)
        places = self._endpoint.places if to is not None else [None]
        policy = LatencyPolicy.network(BLOCK_MS, cap_ms)
        self.peer = CallPeer(
            codec,
            devices.capture_ring,
            devices.make_playback_ring(policy),
            devices.capture.rate_hz,
            devices.playback.rate_hz,
            self._endpoint.send,
            address=places[0],
            alternatives=places[1:],
            secret=secret,
            bitrate_bps=bitrate_bps,
            copies=copies,
            policy=policy,
            capture_times=devices.capture.timeline,
            playback_times=devices.playback.timeline,
        )

    @property
    def port(self) -> int:
        """Port of this side."""
        return self._endpoint.port

    @property
    def trouble(self) -> str:
        """Why nobody answers, as far as the other side or the network said it."""
        return self.peer.refusal or self._endpoint.trouble

    def pump(self, now_s: float) -> int:
        """Take what the sockets have, then what is due; the end of the call ends the thread."""
        for _ in range(_DATAGRAMS_A_PUMP):
            arrived = self._endpoint.receive()
            if arrived is None:
                break
            self.peer.receive(*arrived, now_s)
        frames = self.peer.pump(now_s)
        if self.peer.ended and self._thread is not None:
            self._thread.stop()
        return frames

    def running(self) -> PumpThread:
        """Everything in motion, for a `with` block."""
        warm_up(self.codec)
        self._thread = PumpThread(self.devices, self)
        return self._thread

    def close(self) -> None:
        """Close the sockets."""
        self._endpoint.close()

    def report(self) -> dict[str, Any]:
        """What `CallPeer.report` says, and devices and sockets."""
        return {"devices": self.devices.report(), "send_errors": self._endpoint.errors, **self.peer.report()}
