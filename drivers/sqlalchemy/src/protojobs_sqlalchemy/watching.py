"""MariaDB and MySQL have no doorbell between processes: a wait looks ten times a second, on connections of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pymysql
from pymysql.connections import Connection as Raw
from pymysql.cursors import Cursor
from sqlalchemy import Engine

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.bell import Bell
from protojobs_sqlalchemy.lanes import Lane

__all__ = ["Watcher", "walk_lanes"]

_POLL_S = 0.1
_SHARE = 20  # a look that takes long is followed by a pause of so many times its length
_SOCKET_S = 1  # so long a dead network may hold a wait up

# From one lane to the next: one probe of jobs_ready each, however many jobs wait there. (GROUP BY ready, priority would
# read all of them: the optimizer does not take its loose scan here.)
_FIRST_LANE = "SELECT priority FROM jobs WHERE ready = %s ORDER BY priority DESC LIMIT 1"
_NEXT_LANE = "SELECT priority FROM jobs WHERE ready = %s AND priority < %s ORDER BY priority DESC LIMIT 1"
_FIRST_DUE = "SELECT available_at FROM jobs WHERE ready = %s AND priority = %s ORDER BY available_at LIMIT 1"
_PAUSED = "SELECT name FROM queues WHERE paused_at IS NOT NULL"


def walk_lanes(cursor: Cursor, queues: Sequence[str]) -> Iterator[Lane]:
    """The lanes of these queues, in the order in which they are claimed."""
    for queue in queues:
        cursor.execute(_FIRST_LANE, (queue,))
        while row := cursor.fetchone():
            priority = int(row[0])
            yield queue, priority
            cursor.execute(_NEXT_LANE, (queue, priority))


class Watcher:
    """Waits for a due job. A hint: where the server does not answer it only waits."""

    def __init__(self, engine: Engine, bell: Bell) -> None:
        self._engine = engine
        self._bell = bell
        self._idle: deque[Raw[Any]] = deque()

    def wait(self, mark: int, queues: Sequence[str], timeout: float, offset: float) -> bool:
        """True once a job of `queues` is due, or the bell rang for one of them after `mark`."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        while True:
            started = SYSTEM_CLOCK.monotonic()
            due_in = self._due_in(queues, offset) if timeout > 0 else None
            if due_in is not None and due_in <= 0:
                return True
            now = SYSTEM_CLOCK.monotonic()
            if now >= ends_at:
                return False
            pause = max(_POLL_S, _SHARE * (now - started))
            if self._bell.wait(mark, queues, min(pause, ends_at - now)):
                return True

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _due_in(self, queues: Sequence[str], offset: float) -> float | None:
        """Seconds until a job of these queues is due; None when none is in sight, or the server does not say."""
        try:
            raw = self._idle.pop() if self._idle else self._open()
            with raw.cursor() as cursor:
                cursor.execute(_PAUSED)
                paused = {row[0] for row in cursor.fetchall()}
                lanes = list(walk_lanes(cursor, [queue for queue in queues if queue not in paused]))
                moments = [row[0] for lane in lanes if (row := _first(cursor, _FIRST_DUE, lane))]
                now = _first(cursor, "SELECT UTC_TIMESTAMP(6)", ())
            self._idle.append(raw)
        except (pymysql.Error, OSError, IndexError):
            return None
        return (min(moments) - now[0]).total_seconds() - offset if moments and now else None

    def _open(self) -> Raw[Any]:
        """A connection apart from the pool's, whose limits keep `wait` short on a dead network."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(connect_timeout=_SOCKET_S, read_timeout=_SOCKET_S, write_timeout=_SOCKET_S, autocommit=True)
        return pymysql.connect(*arguments, **options)


def _first(cursor: Cursor, statement: str, values: Sequence[object]) -> tuple[Any, ...] | None:
    cursor.execute(statement, tuple(values))
    return cursor.fetchone()
