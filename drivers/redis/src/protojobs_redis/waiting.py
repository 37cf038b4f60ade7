"""Waiter: wait for due jobs, on connections of its own, so that no reply is waited for beyond the caller's timeout."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from protojobs.clock import SYSTEM_CLOCK
from protojobs_redis.connecting.clients import Connection
from protojobs_redis.connecting.connections import Connections
from protojobs_redis.connecting.urls import TIMEOUT_S
from protojobs_redis.packing import texts
from protojobs_redis.scripting import script

__all__ = ["Waiter"]

GRACE_S = 1.0  # a reply may take this much longer than it should, before the network is taken for dead
PAUSE_MIN_S = 0.001  # what the server counts in; 0 would mean for ever
LOOK_S = 0.5
IDLE_MAX = 4  # connections kept for the next wait

_inherited: list[object] = []


class _Held(NamedTuple):
    """A connection, and the server that it leads to, as far as is known."""

    server: tuple[object, ...]
    connection: Connection


class Waiter:
    """Waits for due jobs.

    Each queue has a wakeup key, `bell:<queue>`: a sorted set that gets a member when jobs come, and BZPOPMIN takes it
    away again. So one push wakes one waiter, not all of them; whoever then claims as much as it wanted adds a member
    for the next. The member "take" says that a job is due (which may be over by now, and costs a claim), "look" that
    one may be: then `due.lua` is asked.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._idle: deque[_Held] = deque()
        self._start_afresh()

    def wait(self, queues: Sequence[str], timeout: float, offset: int) -> bool:
        """Whether one of the queues has a due job, now or within `timeout` seconds."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with self._connections.translating():
            held = self._take(timeout)
            connection = held.connection
            try:
                is_due = self._wait(connection, list(dict.fromkeys(queues)), ends_at, offset)
            except MovedError as error:
                connection.disconnect()
                self._connections.moved(error)
                raise
            except BaseException:
                connection.disconnect()
                raise
            self._keep(held)
            return is_due

    def close(self) -> None:
        """Close the idle connections."""
        if self._pid != self._connections.pid:
            self._start_afresh()
        while held := self._pop_idle():
            held.connection.disconnect()

    def _wait(self, connection: Connection, queues: list[str], ends_at: float, offset: int) -> bool:
        keys = [f"{self._connections.prefix}bell:{queue}" for queue in queues or [""]]
        while True:
            left = ends_at - SYSTEM_CLOCK.monotonic()
            due_in = self._due_in(connection, queues, max(0.0, left), offset)
            left = ends_at - SYSTEM_CLOCK.monotonic()
            if due_in <= 0 or left <= 0:
                return due_in <= 0
            pause = max(PAUSE_MIN_S, min(due_in, left))
            try:
                woken = self._ask(connection, pause, "BZPOPMIN", *keys, f"{pause:.3f}")
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                # Somebody has put another value under that key. Nobody can be woken there, so look again and again.
                SYSTEM_CLOCK.sleep(min(pause, LOOK_S))
                continue
            if isinstance(woken, list) and woken[1] == b"take":
                return True

    def _due_in(self, connection: Connection, queues: list[str], left: float, offset: int) -> float:
        """Seconds until the first job of the queues is due; infinite when none is in sight."""
        due = script("due")
        arguments = (1, self._connections.prefix, offset, texts(queues))
        try:
            reply = self._ask(connection, left, "EVALSHA", due.sha, *arguments)
        except NoScriptError:
            reply = self._ask(connection, left, "EVAL", due.text, *arguments)
        return int(reply) / 1e6 if isinstance(reply, bytes) and reply else float("inf")

    def _ask(self, connection: Connection, seconds: float, *command: str | bytes | int) -> object:
        connection.send_command(*command)
        return connection.read_response(timeout=seconds + GRACE_S)

    def _take(self, timeout: float) -> _Held:
        """A connection that is up: an idle one, or a new one that gets no longer to connect than there is to wait."""
        options = self._connections.server().connection_pool.connection_kwargs  # and starts afresh in a forked child
        if self._pid != self._connections.pid:
            self._start_afresh()
        server = (options.get("host"), options.get("port"), self._connections.silences)
        while held := self._pop_idle():
            if held.server == server and _is_up(held.connection):
                return held
            held.connection.disconnect()
        connection = self._connections.new_connection()
        connection.socket_connect_timeout = connection.socket_timeout = min(TIMEOUT_S, timeout + GRACE_S)
        connection.connect()
        return _Held(server, connection)

    def _pop_idle(self) -> _Held | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _keep(self, held: _Held) -> None:
        if len(self._idle) < IDLE_MAX:
            self._idle.append(held)
        else:
            held.connection.disconnect()

    def _start_afresh(self) -> None:
        pid = self._connections.pid
        if self._idle:
            _inherited.append(self._idle)  # not ours to close: the parent's
        self._idle = deque()
        self._pid = pid  # last, as in Connections


def _is_up(connection: Connection) -> bool:
    """Whether nobody closed it: then there is nothing to read."""
    try:
        return connection.is_connected and not connection.can_read(0)
    except (RedisError, OSError):
        return False
