"""PyMySQL connections that give up: sooner than their own time limits where the caller waits no longer, and on a peer
that vanished.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymysql.connections import Connection

from protojobs.clock import time_left

if TYPE_CHECKING:
    Base = Connection[Any]
else:
    Base = Connection

__all__ = ["BoundedConnection", "connected", "keep_alive", "socket_of"]

_CONNECT_S = 10.0  # PyMySQL's own
_MOMENT_S = 0.001  # PyMySQL takes 0 for "no limit"
# As on PostgreSQL: after 5 s of silence the kernel asks, and gives a peer up that does not answer three times, or that
# has not acknowledged for 10 s what it was sent. Not every platform has all of them.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}


class BoundedConnection(Base):
    """Asks before every wait how long it may last. PyMySQL itself keeps one limit for all of them."""

    _usual_read_s: float | None = None
    _usual_write_s: float | None = None

    @property
    def _read_timeout(self) -> float | None:
        return _bounded(self._usual_read_s)

    @_read_timeout.setter
    def _read_timeout(self, seconds: float | None) -> None:
        self._usual_read_s = seconds

    @property
    def _write_timeout(self) -> float | None:
        return _bounded(self._usual_write_s)

    @_write_timeout.setter
    def _write_timeout(self, seconds: float | None) -> None:
        self._usual_write_s = seconds


def connected(arguments: Sequence[Any], options: Mapping[str, Any]) -> BoundedConnection:
    """A new connection, open, in the time that there is: half of it, since a host may have two addresses."""
    usual_s = float(options.get("connect_timeout", _CONNECT_S))
    timeout = min(usual_s, max(time_left(2 * usual_s) / 2, _MOMENT_S))
    raw = BoundedConnection(*arguments, **{**options, "connect_timeout": timeout})
    keep_alive(raw)
    return raw


def keep_alive(raw: Connection[Any]) -> None:
    """Let the kernel notice a server that vanished. PyMySQL itself leaves that to two hours of the system's own."""
    sock = socket_of(raw)
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def socket_of(raw: Connection[Any]) -> socket.socket | None:
    """The connection's way over a network, TLS or plain; None where it is the file of a socket."""
    sock = vars(raw).get("_sock")  # PyMySQL shows it in no other way
    return sock if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX else None


def _bounded(usual_s: float | None) -> float | None:
    seconds = time_left(float("inf") if usual_s is None else usual_s)
    return None if seconds == float("inf") else max(seconds, _MOMENT_S)
