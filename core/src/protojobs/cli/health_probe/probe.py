"""The probe of `--probe-port`: a small HTTP server that tells the health of a worker process, without the store.

GET /livez    200 while its threads turn; a store that is away changes nothing, for a restart would not bring it back
GET /readyz   200 while it also takes jobs: it is registered, the store answers, and nobody has told it to stop

The status says it all; the body is the `Health` as JSON. One thread serves a bounded number of clients, and each has a
second for its request: a slow one holds up neither the worker nor the others. `http.server` has no such bounds, and
takes a thread for each connection.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import msgspec

from protojobs.cli.health_probe.health import Health
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ConfigurationError

__all__ = ["Probe"]

CLIENTS_MAX = 32  # connections at once; the next are turned away
REQUEST_S = 1.0  # for a client to send it
REQUEST_BYTES_MAX = 4096
LOOK_S = 0.5
JOIN_S = 2.0


class Probe:
    """Listens from the start. Raises ConfigurationError when it cannot."""

    def __init__(self, host: str, port: int, health: Callable[[], Health]) -> None:
        self._health = health
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=CLIENTS_MAX)
        except OSError as error:
            raise ConfigurationError(
                f"The probe cannot listen on {host}, port {port}. {error.strerror or error}.",
                mend="Give another --probe-port; each worker of a machine needs its own.",
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, _Client] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name="protojobs-probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._is_closed = True
        self._thread.join(JOIN_S)

    def _serve(self) -> None:
        try:
            while not self._is_closed:
                for key, _ in self._selector.select(LOOK_S):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._receive(key.fileobj)
                now = SYSTEM_CLOCK.monotonic()
                for connection in [connection for connection, client in self._clients.items() if now >= client.ends_at]:
                    self._close(connection)
        finally:
            for connection in list(self._clients):
                self._close(connection)
            self._selector.close()
            self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # gone again
            return
        except OSError:  # no file descriptor left, perhaps: the client stays in the backlog, and would wake us at once
            SYSTEM_CLOCK.sleep(LOOK_S)
            return
        if len(self._clients) >= CLIENTS_MAX:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection] = _Client(SYSTEM_CLOCK.monotonic() + REQUEST_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        client = self._clients[connection]
        try:
            piece = connection.recv(REQUEST_BYTES_MAX)
            client.request += piece
            is_complete = b"\r\n\r\n" in client.request or b"\n\n" in client.request
            if is_complete or len(client.request) > REQUEST_BYTES_MAX:
                response = self._response_to(client.request if is_complete else b"")
                connection.send(response)  # small: it fits what the system buffers
                connection.shutdown(socket.SHUT_WR)
            elif piece:
                return
        except OSError:  # the client has gone
            pass
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._clients[connection]
        with suppress(OSError, KeyError):
            self._selector.unregister(connection)
        connection.close()

    def _response_to(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b"\n", 1)[0].split(b" ")
        method, path = (words[0], words[1].split(b"?")[0]) if len(words) >= 2 else (b"", b"")
        if not method:
            return _response(400, b'{"error":"this is no HTTP request"}')
        if method not in (b"GET", b"HEAD"):
            return _response(405, b'{"error":"only GET and HEAD"}')
        if path not in (b"/livez", b"/readyz"):
            return _response(404, b'{"error":"ask /livez or /readyz"}', is_head=method == b"HEAD")
        health = self._health()
        is_well = health.is_live if path == b"/livez" else health.is_live and health.is_ready
        return _response(200 if is_well else 503, msgspec.json.encode(health), is_head=method == b"HEAD")


class _Client:
    def __init__(self, ends_at: float) -> None:
        self.request = b""
        self.ends_at = ends_at


def _response(status: int, body: bytes, *, is_head: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
