"""Connections of redis-py that give up sooner than their own time limits where the caller waits no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from protojobs.clock import time_left

if TYPE_CHECKING:
    import socket

__all__ = ["BoundedConnection", "connection_class", "managed_connection_class"]

_NO_LIMIT = float("inf")
_MOMENT_S = 0.001  # 0 would mean not to wait at all, and be another error


class BoundedConnection(AbstractConnection):
    """Every wait lasts as long as the connection's own limits say, or as `clock.within` does."""

    _usual_s: float | None = None
    _usual_connect_s: float | None = None

    @property
    def socket_timeout(self) -> float | None:
        """How long an answer may take."""
        return _bounded(self._usual_s)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        self._usual_s = seconds

    @property
    def _socket_timeout(self) -> float | None:  # the library's own place for it
        return _bounded(self._usual_s)

    @_socket_timeout.setter
    def _socket_timeout(self, seconds: float | None) -> None:
        self._usual_s = seconds

    @property
    def socket_connect_timeout(self) -> float | None:
        """How long it may take to open it, for each address of the host."""
        return _bounded(self._usual_connect_s)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        self._usual_connect_s = seconds

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        """Send what is ready to be sent."""
        open_socket = cast("socket.socket | None", self._sock)
        if open_socket is not None:
            open_socket.settimeout(self.socket_timeout)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # the library's

    def read_response(self, disable_decoding: bool = False, **options: object) -> object:
        """The next answer."""
        options["timeout"] = _bounded(cast("float | None", options.get("timeout", self._usual_s)))
        return super().read_response(disable_decoding, **options)


class _OverTCP(BoundedConnection, Connection):
    pass


class _OverTLS(BoundedConnection, SSLConnection):
    pass


class _OverUnixSocket(BoundedConnection, UnixDomainSocketConnection):
    pass


class _Managed(BoundedConnection, SentinelManagedConnection):
    pass


class _ManagedOverTLS(BoundedConnection, SentinelManagedSSLConnection):
    pass


def connection_class(url: str) -> type[BoundedConnection]:
    """The kind of connection that the URL wants."""
    return {"rediss": _OverTLS, "unix": _OverUnixSocket}.get(url.partition(":")[0], _OverTCP)


def managed_connection_class(*, is_tls: bool) -> type[BoundedConnection]:
    """The same for a primary that Sentinels name."""
    return _ManagedOverTLS if is_tls else _Managed


def _bounded(usual_s: float | None) -> float | None:
    seconds = time_left(_NO_LIMIT if usual_s is None else usual_s)
    return None if seconds == _NO_LIMIT else max(seconds, _MOMENT_S)
