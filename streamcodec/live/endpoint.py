"""UDP sockets of a call: every address of a name, and answers that leave from the address that was asked.

A host with several addresses would answer from the one that its routes prefer.  Where the platform tells which address
a datagram was sent to (IP_PKTINFO, IPV6_RECVPKTINFO), the answer leaves from that one; elsewhere the other side knows
the answer by its echo.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from streamcodec.errors import DeviceError

_LARGEST_DATAGRAM = 2048
_ANCILLARY_BYTES = 256
_ATTEMPTS = 3
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_LINUX = sys.platform == "linux"
# socket has these names from Python 3.14 on
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8 if _LINUX else None)
_IP_RECVERR = 11 if _LINUX else None
_IPV6_RECVERR = 25 if _LINUX else None
_IPV6_RECVPKTINFO = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO = getattr(socket, "IPV6_PKTINFO", None)
_INFO = struct.Struct("@I4s4s")  # interface, address here, destination
_INFO_6 = struct.Struct("@16sI")  # address here, interface


@dataclass(frozen=True, slots=True)
class Place:
    """Where a datagram came from or goes to; `here` is the address of this host that it was sent to, if known."""

    remote: Any
    here: bytes | None = field(default=None, compare=False, repr=False)
    socket_index: int = field(default=0, compare=False, repr=False)

    @property
    def host(self) -> Any:
        """The address without its port."""
        return self.remote[0]

    def __str__(self) -> str:
        host, port = self.remote[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class UdpEndpoint:
    """Listens at all addresses of a name, or reaches all of them.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        0 listens on any.
    listens : bool
        Bind to it; otherwise it is the other side.

    Attributes
    ----------
    places : list of Place
        Addresses of the name, in the order to try them.
    errors : int
        Datagrams that could not be sent, and refusals that came back.
    trouble : str
        The last of them in words.

    Raises
    ------
    DeviceError
        The name does not resolve, or the port cannot be had.
    """

    def __init__(self, host: str, port: int, *, listens: bool) -> None:
        self.errors, self.trouble = 0, ""
        self.places: list[Place] = []
        self._sockets: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no name of a host"
            raise DeviceError(f"{host}:{port} cannot be used: {reason}") from None
        try:
            self._open(found, listens)
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            if not listens:
                raise DeviceError(f"{host}:{port} cannot be used: {reason}") from None
            advice = "give --host an address of this machine" if error.errno in _NOT_HERE else "choose another port"
            raise DeviceError(f"cannot listen on {host}:{port}: {reason}; {advice}") from None

    def _open(self, found: list[Any], listens: bool) -> None:
        """A socket for every address to listen at, or for every family to call with; some may not be there."""
        families: dict[int, int] = {}
        problem: OSError | None = None
        for family, kind, protocol, _, address in found:
            if any(place.remote == address for place in self.places):
                continue
            try:
                if listens or family not in families:
                    families[family] = self._add(family, kind, protocol, self._with_port(address) if listens else None)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                problem = error
                continue
            self.places.append(Place(address, socket_index=families[family]))
        if not self.places:
            raise problem or OSError(errno.EADDRNOTAVAIL, "it has no address")

    def _with_port(self, address: Any) -> Any:
        """The address to bind, on the port that the first socket got where any will do."""
        return (address[0], self.port, *address[2:]) if self._sockets and not address[1] else address

    def _add(self, family: int, kind: int, protocol: int, address: Any) -> int:
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setblocking(False)
            if family == socket.AF_INET6:
                with contextlib.suppress(OSError):  # "::" is all addresses, those of IPv4 too
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._ask(opened, socket.IPPROTO_IP, _IP_PKTINFO, _IP_RECVERR if address is None else None)
            if family == socket.AF_INET6:
                self._ask(opened, socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, _IPV6_RECVERR if address is None else None)
            opened.bind(address or ("", 0))
        except OSError:
            opened.close()
            raise
        self._sockets.append(opened)
        return len(self._sockets) - 1

    @staticmethod
    def _ask(opened: socket.socket, level: int, *options: int | None) -> None:
        """Ask to be told more about datagrams, where this platform can."""
        for option in options:
            if option is not None and hasattr(opened, "recvmsg"):
                with contextlib.suppress(OSError):
                    opened.setsockopt(level, option, 1)

    @property
    def port(self) -> int:
        """Port of this side."""
        return int(self._sockets[0].getsockname()[1])

    def send(self, datagram: bytes, place: Place) -> None:
        """Send from the address that was asked; what goes wrong is counted."""
        used = self._sockets[place.socket_index]
        for attempt in range(_ATTEMPTS):
            try:
                if place.here is not None and attempt < _ATTEMPTS - 1:
                    used.sendmsg([datagram], [_source(place.here)], 0, place.remote)
                else:
                    used.sendto(datagram, place.remote)
                return
            except BlockingIOError:
                self.errors += 1
                return
            except OSError as error:  # perhaps of a datagram before this one, or the address here is gone
                refuser = self._refused_by(used)
                if refuser is not None or attempt == _ATTEMPTS - 1:
                    self._note(error, refuser or place)

    def receive(self) -> tuple[bytes, Place] | None:
        """A datagram and where it is from; None if none waits."""
        for index, used in enumerate(self._sockets):
            for _ in range(_ATTEMPTS):
                try:
                    return self._read(used, index)
                except BlockingIOError:
                    break
                except OSError as error:  # what the network said of a datagram sent; behind it others may wait
                    self._note(error, self._refused_by(used) or self.places[0])
        return None

    @staticmethod
    def _read(used: socket.socket, index: int) -> tuple[bytes, Place]:
        if not hasattr(used, "recvmsg"):
            datagram, remote = used.recvfrom(_LARGEST_DATAGRAM)
            return datagram, Place(remote, socket_index=index)
        datagram, ancillary, _, remote = used.recvmsg(_LARGEST_DATAGRAM, _ANCILLARY_BYTES)
        return datagram, Place(remote, _destination(ancillary), index)

    @staticmethod
    def _refused_by(used: socket.socket) -> Place | None:
        """Take what the network said about datagrams sent; to whom the last of them went."""
        place = None
        if _IP_RECVERR is not None:
            with contextlib.suppress(OSError):
                while True:
                    place = Place(used.recvmsg(1, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)[3])
        return place

    def _note(self, error: OSError, place: Place) -> None:
        self.errors += 1
        self.trouble = f"{place}: {error.strerror or error}"

    def close(self) -> None:
        """Close the sockets."""
        for opened in self._sockets:
            opened.close()


def _destination(ancillary: list[tuple[int, int, bytes]]) -> bytes | None:
    """Address of this host that a datagram was sent to: 4 or 16 bytes."""
    here: bytes | None = None
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _INFO.size:
            here = _INFO.unpack_from(data)[1]
            break
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and len(data) >= _INFO_6.size:
            here = _INFO_6.unpack_from(data)[0]
    return None if here is None or here[0] == 0xFF else here  # nobody can answer from a group


def _source(here: bytes) -> tuple[int, int, bytes]:
    """Ancillary data that make a datagram leave from an address."""
    if len(here) == 4:
        return socket.IPPROTO_IP, _IP_PKTINFO or 0, _INFO.pack(0, here, bytes(4))
    return socket.IPPROTO_IPV6, _IPV6_PKTINFO or 0, _INFO_6.pack(here, 0)
