"""`--probe-port`: how this worker is, over HTTP, for Kubernetes, Docker and `protojobs health`. Never asks the store.

GET /livez    200 while its threads turn; a store that is away changes nothing, for a restart would not bring it back
GET /readyz   200 while it also takes jobs: it is registered, the store answers, and nobody has told it to stop

The status says it all; the body is the `Health` as JSON. One thread serves a bounded number of askers, each of whom has
a moment to ask: none of them can hold up the worker, or for long the others.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from protojobs.cli.health_probe.health import Health
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import ConfigurationError

__all__ = ["Probe"]

ASKERS_MAX = 32  # connections at once; the next are turned away
ASK_S = 1.0  # to send the request
ASK_BYTES_MAX = 4096
LOOK_S = 0.5
JOIN_S = 2.0
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Probe:
    """Listens from the start. Raises ConfigurationError when it cannot."""

    def __init__(self, host: str, port: int, health: Callable[[], Health]) -> None:
        self._health = health
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=ASKERS_MAX)
        except OSError as error:
            raise ConfigurationError(
                f"The probe cannot listen on {host}, port {port}. {error.strerror or error}.",
                mend="Give another --probe-port; each worker of a machine needs its own.",
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._askers: dict[socket.socket, _Asker] = {}
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
                        self._hear(key.fileobj)
                now = SYSTEM_CLOCK.monotonic()
                for line in [line for line, asker in self._askers.items() if now >= asker.ends_at]:
                    self._hang_up(line)
        finally:
            for line in list(self._askers):
                self._hang_up(line)
            self._selector.close()
            self._listener.close()

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except BlockingIOError:  # gone again
            return
        except OSError:  # no file descriptor left, perhaps: whoever asks stays in line, and would wake us at once
            SYSTEM_CLOCK.sleep(LOOK_S)
            return
        if len(self._askers) >= ASKERS_MAX:
            line.close()
            return
        line.setblocking(False)
        self._askers[line] = _Asker(SYSTEM_CLOCK.monotonic() + ASK_S)
        self._selector.register(line, selectors.EVENT_READ)

    def _hear(self, line: socket.socket) -> None:
        asker = self._askers[line]
        try:
            piece = line.recv(ASK_BYTES_MAX)
            asker.said += piece
            is_asked = b"\r\n\r\n" in asker.said or b"\n\n" in asker.said
            if is_asked or len(asker.said) > ASK_BYTES_MAX:
                line.send(self._answer(asker.said if is_asked else b""))  # small: it fits what the system buffers
                line.shutdown(socket.SHUT_WR)
            elif piece:
                return
        except OSError:  # who asked has gone
            pass
        self._hang_up(line)

    def _hang_up(self, line: socket.socket) -> None:
        del self._askers[line]
        with suppress(OSError, KeyError):
            self._selector.unregister(line)
        line.close()

    def _answer(self, said: bytes) -> bytes:
        words = said.split(b"\r\n", 1)[0].split(b"\n", 1)[0].split(b" ")
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


class _Asker:
    def __init__(self, ends_at: float) -> None:
        self.said = b""
        self.ends_at = ends_at


def _response(status: int, body: bytes, *, is_head: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
