"""Workers wait for jobs on MariaDB and MySQL, which cannot call anybody.

Processes of one machine call each other. Jobs that come from elsewhere are found by looking, on connections of its own:
ten times a second, and more often where jobs came lately.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pymysql
from pymysql.connections import Connection as Raw
from pymysql.cursors import Cursor
from sqlalchemy import URL, Engine

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.verbs.lanes import Lane
from protojobs_sqlalchemy.waking import processes
from protojobs_sqlalchemy.waking.threads import Wakeup

__all__ = ["Watcher", "walk_lanes"]

_POLL_S = 0.1
_LIVELY_POLL_S, _LIVELY_S = 0.005, 2.0  # where jobs came lately, more are likely
_SHARE = 20  # a look that takes long is followed by a pause of so many times its length
_SOCKET_S = 1  # so long a dead network may hold a wait up

_AT_ONCE_MAX = 100  # queues in one statement

# From one lane to the next: one probe of jobs_ready each, however many jobs wait there. (GROUP BY ready, priority would
# read all of them: the optimizer does not take its loose scan here.)
_FIRST_LANE = "(SELECT %s, priority FROM @jobs WHERE ready = %s ORDER BY priority DESC LIMIT 1)"
_NEXT_LANE = "(SELECT %s, priority FROM @jobs WHERE ready = %s AND priority < %s ORDER BY priority DESC LIMIT 1)"
_FIRST_DUE = """
SELECT TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), available_at)
FROM @jobs WHERE ready = %s AND priority = %s ORDER BY available_at LIMIT 1
"""
_PAUSED = "SELECT name FROM @queues WHERE paused_at IS NOT NULL"

_inherited: list[object] = []  # a forked child must neither use nor close its parent's connections, so it keeps them


def walk_lanes(cursor: Cursor, names: Names, queues: Sequence[str]) -> list[Lane]:
    """The lanes of these queues, in the order in which they are claimed; a round trip for each level of priority."""
    levels: dict[str, list[int]] = {queue: [] for queue in queues}
    waiting = list(levels)
    while waiting:
        below: list[str] = []
        for first in range(0, len(waiting), _AT_ONCE_MAX):
            part = waiting[first : first + _AT_ONCE_MAX]
            for number, priority in _probe(cursor, names, part, levels):
                levels[part[number]].append(priority)
                below.append(part[number])
        waiting = below
    return [(queue, priority) for queue, priorities in levels.items() for priority in priorities]


def _probe(
    cursor: Cursor, names: Names, queues: Sequence[str], levels: Mapping[str, Sequence[int]]
) -> Iterator[tuple[int, int]]:
    """The next lower priority that each queue has jobs of, with the queue's number; nothing for one that has none."""
    probes: list[str] = []
    values: list[object] = []
    for number, queue in enumerate(queues):
        probes.append(_NEXT_LANE if levels[queue] else _FIRST_LANE)
        values += [number, queue, *levels[queue][-1:]]
    cursor.execute(" UNION ALL ".join(map(names.sql, probes)), values)
    for number, priority in cursor.fetchall():
        yield int(number), int(priority)


class Watcher:
    """Waits for a due job. A hint: where the server does not answer it only waits."""

    def __init__(self, engine: Engine, wakeup: Wakeup, names: Names) -> None:
        self._names = names
        self._engine = engine
        self._wakeup = wakeup
        self._store = _store(engine.url, names)
        self._idle: deque[Raw[Any]] = deque()
        self._pid = os.getpid()
        self._lively_until = 0.0

    def wake(self, queues: Iterable[str]) -> None:
        """Wake those on this machine who wait for one of `queues`."""
        processes.send(self._store, queues)

    def wait(self, mark: int, queues: Sequence[str], timeout: float, offset: float) -> bool:
        """True once a job of `queues` is due, or somebody on this machine named one of them."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        with processes.receiver(self._store) as receiver:
            while True:
                started = SYSTEM_CLOCK.monotonic()
                due_in = self._due_in(queues, offset) if timeout > 0 else None
                now = SYSTEM_CLOCK.monotonic()
                if due_in is not None and due_in <= 0:
                    self._lively_until = now + _LIVELY_S
                    return True
                if now >= ends_at:
                    return False
                poll_s = _LIVELY_POLL_S if now < self._lively_until else _POLL_S
                pause = min(max(poll_s, _SHARE * (now - started)), ends_at - now)
                if self._wakeup.wait(mark, queues, 0.0 if receiver else pause) or (
                    receiver is not None and processes.receives(receiver, queues, pause)
                ):
                    self._lively_until = now + _LIVELY_S
                    return True

    def close(self) -> None:
        """Close what is idle."""
        self._start_afresh_after_fork()
        while self._idle:
            self._idle.pop().close()

    def _due_in(self, queues: Sequence[str], offset: float) -> float | None:
        """Seconds until a job of these queues is due; None when none is in sight, or the server does not say."""
        self._start_afresh_after_fork()
        try:
            raw = self._idle.pop() if self._idle else self._open()
            with raw.cursor() as cursor:
                moments = list(_moments(cursor, self._names, queues))
            self._idle.append(raw)
        except (pymysql.Error, OSError, IndexError):
            return None
        return min(moments) / 1e6 - offset if moments else None

    def _start_afresh_after_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.extend(self._idle)
            self._idle = deque()
            self._pid = os.getpid()

    def _open(self) -> Raw[Any]:
        """A connection apart from the pool's, whose limits keep `wait` short on a dead network."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(connect_timeout=_SOCKET_S, read_timeout=_SOCKET_S, write_timeout=_SOCKET_S, autocommit=True)
        return pymysql.connect(*arguments, **options)


def _moments(cursor: Cursor, names: Names, queues: Sequence[str]) -> Iterator[int]:
    """In how many microseconds the first job of each lane is due. An empty store is told by one statement."""
    lanes = walk_lanes(cursor, names, queues)
    if not lanes:
        return
    cursor.execute(names.sql(_PAUSED))
    paused = {row[0] for row in cursor.fetchall()}
    for queue, priority in lanes:
        if queue not in paused:
            cursor.execute(names.sql(_FIRST_DUE), (queue, priority))
            yield from (int(row[0]) for row in cursor.fetchall())


def _store(url: URL, names: Names) -> str:
    """What the processes of this machine that use this database call it. Under two names of its host they poll."""
    host = "localhost" if url.host in (None, "", "127.0.0.1", "::1") else url.host
    return f"mariadb/{zlib.crc32(f'{host}:{url.port or 3306}/{url.database}'.encode())}{names.prefix}"
