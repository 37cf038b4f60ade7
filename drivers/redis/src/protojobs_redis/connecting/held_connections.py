"""HeldConnections: connections kept for scripts, one command and one reply at a time.

The library's own way to send a command costs more than all the rest of a push: a pool's lock, metrics, hooks for
caches. But its connections know all about opening. So these are its own, taken from its pool once and kept.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, cast

from redis.exceptions import TimeoutError

from protojobs_redis.connecting.clients import Connection, Server
from protojobs_redis.packing import HALVES

__all__ = ["HeldConnection", "HeldConnections", "packed", "packed_words"]


class HeldConnection(Connection, Protocol):
    """A BoundedConnection, as it is used here."""

    next_health_check: float

    def ask(self, command: bytes) -> object:
        """Send a packed command; its reply."""
        ...

    def is_up(self) -> bool:
        """Whether nobody closed it; asks the server if it was idle for long, and raises TimeoutError for silence."""
        ...


class HeldConnections:
    """The connections to one server. Used by many threads, each of which has one for itself until its reply came."""

    def __init__(self, server: Server) -> None:
        self._pool = server.connection_pool
        self._idle: deque[HeldConnection] = deque()
        self._is_closed = False

    def ask(self, command: bytes) -> object:
        """The server's reply: text as bytes, a number, or None. Raises its refusal. Nothing is sent twice."""
        connection = self._take()
        try:
            return connection.ask(command)
        finally:
            if connection.is_connected and not self._is_closed:
                self._idle.append(connection)
            else:
                self._pool.release(connection)

    def close(self) -> None:
        """Give back what is idle; what waits for a reply follows when it has come."""
        self._is_closed = True
        while (connection := self._pop_idle()) is not None:
            self._pool.release(connection)

    def close_idle(self) -> None:
        """Close what is idle: a firewall that has forgotten one of them has forgotten all."""
        while (connection := self._pop_idle()) is not None:
            self._drop(connection)

    def _take(self) -> HeldConnection:
        """A connection that works, as far as is known; those that do not are opened anew by the pool."""
        while (connection := self._pop_idle()) is not None:
            try:
                if connection.is_up():
                    return connection
            except TimeoutError:
                self.close_idle()
            self._drop(connection)
        return cast("HeldConnection", self._pool.get_connection())

    def _pop_idle(self) -> HeldConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _drop(self, connection: HeldConnection) -> None:
        connection.disconnect()
        self._pool.release(connection)


def packed_words(*words: str) -> bytes:
    """Words of a command, as they go over the wire."""
    return b"".join([_word(word) for word in words])


def packed(count: int, start: bytes, *rest: str | bytes | int) -> bytes:
    """A command on the wire: `count` words that are packed already, and the rest."""
    return b"".join([b"*%d\r\n" % (count + len(rest)), start, *[_word(word) for word in rest]])


def _word(word: str | bytes | int) -> bytes:
    word = word if isinstance(word, bytes) else str(word).encode(errors=HALVES)
    return b"$%d\r\n%b\r\n" % (len(word), word)
