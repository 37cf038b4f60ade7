"""A small HTTP server for one page, `/metrics`: bounded in connections, in time, and in what it reads.

`http.server` bounds none of these: with the bounds added to it, this file would be longer.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from protojobs.clock import SYSTEM_CLOCK
from protojobs_prometheus.text import CONTENT_TYPE

__all__ = ["MetricsServer"]

CONNECTIONS_MAX = 4  # served at once; the next ones wait in the kernel's backlog
BACKLOG = 16
CLIENT_S = 5.0  # to send its request, and again to take the response
HEAD_BYTES_MAX = 8 * 1024
RETRY_S = 5.0  # between two looks for a free port
_log = logging.getLogger("protojobs.prometheus")


class MetricsServer:
    """Listens on the first of `ports` that is free, on threads of its own. Opens nothing before `start`.

    While none is free it tries again every RETRY_S: the worker before us may be about to end. It never fails the
    process that it serves.
    """

    def __init__(self, render: Callable[[], bytes], host: str, ports: Sequence[int]) -> None:
        self.listening = threading.Event()
        self.port = 0  # once it listens
        self._render = render
        self._host = host
        self._ports = ports
        self._pid = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def start(self) -> None:
        """Begin to serve; a second time does nothing. Returns at once."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()  # a forked child has none of our threads
        threading.Thread(target=self._serve, name="protojobs-metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            self._socket.close()

    def _serve(self) -> None:
        listener = self._listener()
        if listener is None:
            return
        self._socket = listener
        self.port = listener.getsockname()[1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        _log.info("metrics on http://%s:%d/metrics", shown, self.port)
        self.listening.set()
        while not self._closed.is_set():
            self._free.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:  # closed, or out of descriptors for a moment
                self._free.release()
                if not self._closed.wait(RETRY_S):
                    _log.warning("a scrape could not be accepted: %s", error)
                continue
            threading.Thread(target=self._attend, args=(connection,), name="protojobs-scrape", daemon=True).start()

    def _listener(self) -> socket.socket | None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        has_complained = False
        while not self._closed.is_set():
            refusal: OSError | None = None
            for port in self._ports:
                try:
                    return socket.create_server((self._host, port), family=family, backlog=BACKLOG)
                except OSError as error:
                    refusal = error
            if not has_complained:
                has_complained = True
                where = f"{self._ports[0]}" if len(self._ports) == 1 else f"{self._ports[0]} to {self._ports[-1]}"
                _log.error(
                    "no metrics yet: %s port %s cannot be had (%s). Trying again every %g s; give a range "
                    "(PROTOJOBS_PROMETHEUS_PORT=9464-9471) where several workers run on one host",
                    *(self._host, where, refusal, RETRY_S),
                )
            self._closed.wait(RETRY_S)
        return None

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):  # a scraper may go away
                response = self._response_to(_head(connection))
                connection.settimeout(CLIENT_S)
                connection.sendall(response)
        finally:
            self._free.release()

    def _response_to(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if not rest:
            return _response("400 Bad Request", b"This is no HTTP request.\n")
        if path != b"/metrics":
            return _response("404 Not Found", b"The metrics are at /metrics.\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", "Allow: GET, HEAD\r\n")
        try:
            body = self._render()
        except Exception:  # noqa: BLE001  (a collector of the application's own in the same registry)
            _log.exception("the metrics could not be collected")
            return _response("500 Internal Server Error", b"The metrics could not be collected; see the log.\n")
        whole = _response("200 OK", body, content_type=CONTENT_TYPE)
        return whole if method == b"GET" else whole[: len(whole) - len(body)]


def _head(connection: socket.socket) -> bytes:
    """The request up to its empty line, or as much of it as came in time and in bounds."""
    ends_at = SYSTEM_CLOCK.monotonic() + CLIENT_S
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
        connection.settimeout(max(ends_at - SYSTEM_CLOCK.monotonic(), 0.001))
        if not (piece := connection.recv(HEAD_BYTES_MAX)):
            break
        head += piece
    return head


def _response(status: str, body: bytes, headers: str = "", *, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"X-Content-Type-Options: nosniff\r\nConnection: close\r\n{headers}\r\n"
    )
    return head.encode() + body
