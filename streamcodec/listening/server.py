"""Serve a listening test on this machine and keep what listeners send."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from streamcodec.errors import AudioError, DeviceError
from streamcodec.listening.prepare import PAGE
from streamcodec.listening.results import read_key, store_ratings

HOST = "127.0.0.1"
MOST_BYTES = 1_000_000
MOST_CONNECTIONS = 32
_LENGTH = re.compile("[0-9]{1,9}")
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


class _Server(ThreadingHTTPServer):
    """Serves `MOST_CONNECTIONS` at once; one more closes the oldest, so that idle ones keep nobody out."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[socket.socket, None] = {}
        self._guard = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, after closing the oldest where there are too many."""
        with self._guard:
            oldest = next(iter(self._open)) if len(self._open) >= MOST_CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread wakes and closes it
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break off are nobody's error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def make_server(folder: Path, port: int, stored: Callable[[Path], None] = lambda path: None) -> ThreadingHTTPServer:
    """A server of the test in `folder` at 127.0.0.1; `stored` hears of every result.

    Port 0 takes a free one (`server_address`).

    Raises
    ------
    AudioError
        There is no test in `folder`.
    DeviceError
        The port cannot be had.
    """
    key = read_key(folder)
    page = (folder / PAGE).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            if not self._is_ours():
                return
            if self.path in ("/", f"/{PAGE}"):
                self._answer(HTTPStatus.OK, page, "text/html; charset=utf-8")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"there is only the test here: /")

        def do_POST(self) -> None:
            if not self._is_ours():
                return
            length = self.headers.get("Content-Length", "")
            if self.path != "/results" or not _LENGTH.fullmatch(length) or int(length) > MOST_BYTES:
                self._answer(HTTPStatus.BAD_REQUEST, b"ratings go to /results, at most 1 MB")
                return
            try:
                path = store_ratings(folder, self.rfile.read(int(length)).decode("utf-8"), key)
            except (AudioError, UnicodeDecodeError) as error:
                self._answer(HTTPStatus.BAD_REQUEST, str(error).encode())
                return
            except OSError as error:
                self._answer(HTTPStatus.INSUFFICIENT_STORAGE, f"not kept ({error.strerror}); try again later".encode())
                return
            self._answer(HTTPStatus.OK, b"kept")
            stored(path)

        def _is_ours(self) -> bool:
            """Refuse what a page of another site makes a browser send here."""
            own = {f"{host}:{server.server_port}" for host in (HOST, "localhost")}
            origin = self.headers.get("Origin")
            if self.headers.get("Host") in own and (origin is None or origin.removeprefix("http://") in own):
                return True
            self._answer(HTTPStatus.FORBIDDEN, b"open the test at its own address")
            return False

        def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    try:
        server = _Server((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise DeviceError(f"port {port} cannot be had ({error}); choose another with --port") from None
    return server
