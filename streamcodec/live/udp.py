"""A call over UDP: a socket and sound devices around a `CallPeer`."""

from __future__ import annotations

import socket
from typing import Any

from streamcodec.codec import Codec
from streamcodec.errors import ConfigError, DeviceError
from streamcodec.live.file_devices import FileDevices
from streamcodec.live.peer import Address, CallPeer
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.session import BLOCK_MS, Devices, PumpThread, warm_up

_LARGEST_DATAGRAM = 2048
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
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise ConfigError(f"{text!r} is no HOST:PORT; give a port from 1 to 65535, as in example.org:5004")
    return host.strip("[]"), int(port)


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
        Address to listen on; all by default.
    to : (str, int), optional
        Host and port to call.
    secret, bitrate_bps, copies
        As `CallPeer`'s.
    cap_ms : float
        Most audio to hold against the network's jitter.

    Raises
    ------
    DeviceError
        The port is taken, or the host is unknown.
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
        self.send_errors = 0
        self._socket, address = self._open(listen_host, listen_port, to)
        self._socket.setblocking(False)
        policy = LatencyPolicy.network(BLOCK_MS, cap_ms)
        self.peer = CallPeer(
            codec,
            devices.capture_ring,
            devices.make_playback_ring(policy),
            devices.capture.rate_hz,
            devices.playback.rate_hz,
            self._send,
            address=address,
            secret=secret,
            bitrate_bps=bitrate_bps,
            copies=copies,
            policy=policy,
            capture_times=devices.capture.timeline,
            playback_times=devices.playback.timeline,
        )

    @staticmethod
    def _open(host: str, port: int | None, to: tuple[str, int] | None) -> tuple[socket.socket, Address | None]:
        where = to or (host, port)
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
            opened = socket.socket(family, kind, protocol)
        except OSError as error:
            raise DeviceError(f"{where[0]}:{where[1]} cannot be used: {error.strerror or error}") from None
        if to is not None:
            return opened, address
        try:
            opened.bind(address)
        except OSError as error:
            opened.close()
            raise DeviceError(
                f"cannot listen on {where[0]}:{where[1]}: {error.strerror}; choose another port"
            ) from None
        return opened, None

    @property
    def port(self) -> int:
        """Port of this side."""
        return int(self._socket.getsockname()[1])

    def _send(self, datagram: bytes, address: Address) -> None:
        try:
            self._socket.sendto(datagram, address)
        except OSError:
            self.send_errors += 1

    def pump(self, now_s: float) -> int:
        """Take what the socket has, then what is due."""
        for _ in range(_DATAGRAMS_A_PUMP):
            try:
                datagram, address = self._socket.recvfrom(_LARGEST_DATAGRAM)
            except OSError:
                break
            self.peer.receive(datagram, address, now_s)
        return self.peer.pump(now_s)

    def running(self) -> PumpThread:
        """Everything in motion, for a `with` block."""
        warm_up(self.codec)
        return PumpThread(self.devices, self)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def report(self) -> dict[str, Any]:
        """What `CallPeer.report` says, and devices and socket."""
        return {"devices": self.devices.report(), "send_errors": self.send_errors, **self.peer.report()}
