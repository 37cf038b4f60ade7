"""BoundedConnection: a connection of redis-py that gives up sooner where its caller waits no longer."""

from __future__ import annotations

import select
import selectors
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from redis import exceptions
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from protojobs.clock import SYSTEM_CLOCK, time_left, within

if TYPE_CHECKING:
    import socket

__all__ = ["BoundedConnection", "connection_class", "managed_connection_class"]

PING_S = 1.0  # for which a connection that was idle may keep silent, before it is taken for dead

_NO_LIMIT = float("inf")
_MOMENT_S = 0.001  # 0 would mean not to wait at all, and be another error
_READ_BYTES = 65_536  # most replies come in one piece
# The refusals to which there is more to do than to tell the caller.
_REFUSALS = {"NOSCRIPT": exceptions.NoScriptError, "READONLY": exceptions.ReadOnlyError}


class BoundedConnection(AbstractConnection):
    """Every wait lasts as long as the connection's own limits say, or as `clock.within` does."""

    _usual_s: float | None = None
    _usual_connect_s: float | None = None

    @property
    def socket_timeout(self) -> float | None:
        """How long a reply may take."""
        return _bounded(self._usual_s)

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        self._usual_s = value

    @property
    def _socket_timeout(self) -> float | None:  # the library's own place for it
        return _bounded(self._usual_s)

    @_socket_timeout.setter
    def _socket_timeout(self, value: float | None) -> None:
        self._usual_s = value

    @property
    def socket_connect_timeout(self) -> float | None:
        """How long it may take to open it, for each address of the host."""
        return _bounded(self._usual_connect_s)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: float | None) -> None:
        self._usual_connect_s = value

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        """Send what is ready to be sent."""
        open_socket = cast("socket.socket | None", self._sock)
        if open_socket is not None:
            open_socket.settimeout(self.socket_timeout)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]

    def ask(self, command: bytes) -> object:
        """Send a packed command and return its reply, which is text, a number or nothing; raise what it refuses.

        After any other error the connection is closed: nobody knows what would come over it next.
        """
        if self._sock is None:
            self.connect()  # type: ignore[no-untyped-call]  # the library's
        open_socket = cast("socket.socket", self._sock)
        try:
            if (limit := self.socket_timeout) != open_socket.gettimeout():  # to set it is a call to the system
                open_socket.settimeout(limit)
            open_socket.sendall(command)
            kind, reply = _reply_from(open_socket)
        except TimeoutError as error:
            self.disconnect()  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]
            raise exceptions.TimeoutError(f"Timeout: {error}") from error
        except OSError as error:
            self.disconnect()  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]
            raise exceptions.ConnectionError(str(error)) from error
        except BaseException:
            self.disconnect()  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]
            raise
        self.next_health_check = SYSTEM_CLOCK.monotonic() + self.health_check_interval  # type: ignore[assignment]  # the library's
        if kind == b"-":
            text = cast("bytes", reply).decode(errors="replace")
            raise _REFUSALS.get(text.partition(" ")[0], exceptions.ResponseError)(text)
        return reply

    def is_up(self) -> bool:
        """Whether nobody closed it: then there is nothing to read. Raises TimeoutError where the other side is dead."""
        open_socket = cast("socket.socket | None", self._sock)
        if open_socket is None or _is_readable(open_socket):
            return False
        try:
            self.check_health()
        except exceptions.ConnectionError:
            return False
        return True

    def check_health(self) -> None:
        """Ask whether the server is still there, if it said nothing for `health_check_interval`; raise if it is not.

        A firewall drops what is idle and tells nobody. The reply to PING comes at once or never, so it has a limit of
        its own: a command may take long, and would be waited for as long.
        """
        if self.health_check_interval and SYSTEM_CLOCK.monotonic() > self.next_health_check:
            with within(PING_S), suppress(exceptions.ResponseError):  # a refusal is a reply
                super().check_health()  # type: ignore[no-untyped-call]  # the library's

    def read_response(self, disable_decoding: bool = False, **options: object) -> object:
        """The next reply."""
        options["timeout"] = _bounded(cast("float | None", options.get("timeout", self._usual_s)))
        return super().read_response(disable_decoding, **options)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


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


def _reply_from(open_socket: socket.socket) -> tuple[bytes, object]:
    """The kind of the next reply, and the reply."""
    data = _more(open_socket, _READ_BYTES)
    while (end := data.find(b"\r\n")) < 0:
        data += _more(open_socket, _READ_BYTES)
    kind, line, whole = data[:1], data[1:end], end + 2
    reply: object = line
    if kind == b"$":
        size = int(line)
        if size >= 0:
            whole += size + 2
            data = _whole(open_socket, data, whole)
            reply = data[end + 2 : whole - 2]
        else:
            reply = None
    elif kind == b":":
        reply = int(line)
    elif kind not in (b"+", b"-"):
        raise exceptions.InvalidResponse(f"a reply begins with {kind!r}")
    if len(data) != whole:
        raise exceptions.InvalidResponse("more than one reply came")
    return kind, reply


def _whole(open_socket: socket.socket, data: bytes, size: int) -> bytes:
    """`data`, and what has to come until there are `size` bytes."""
    parts = [data]
    missing = size - len(data)
    while missing > 0:
        parts.append(_more(open_socket, missing))
        missing -= len(parts[-1])
    return b"".join(parts) if len(parts) > 1 else data


def _more(open_socket: socket.socket, size: int) -> bytes:
    data = open_socket.recv(size)
    if not data:
        raise OSError("the server closed the connection")
    return data


def _is_readable(open_socket: socket.socket) -> bool:
    if hasattr(select, "poll"):  # select() knows no file numbers above 1023
        poll = select.poll()
        poll.register(open_socket, select.POLLIN)
        return bool(poll.poll(0))
    with selectors.DefaultSelector() as selector:
        selector.register(open_socket, selectors.EVENT_READ)
        return bool(selector.select(0))
