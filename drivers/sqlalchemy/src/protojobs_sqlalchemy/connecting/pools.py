"""The connections of steps: of an engine of ours, of an application's pool, or of a pool of ours beside it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Protocol

from sqlalchemy import Connection, Engine, NullPool, Pool, QueuePool
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError

from protojobs.clock import SYSTEM_CLOCK
from protojobs_sqlalchemy.connecting.urls import masked

__all__ = ["OursPool", "PoolBeside", "StepPool", "TheirPool", "sessions_at_once"]

_AT_ONCE_MAX = 20  # connections of one use; who finds none free waits as long as the caller does
_UNBOUNDED = 1_000_000
_log = logging.getLogger("protojobs.sqlalchemy")

_inherited: list[object] = []  # a forked child must neither use nor close its parent's connections, so it keeps them


class StepPool(Protocol):
    """Connections in autocommit mode, for the steps of one use."""

    at_once_max: int  # how many steps use a connection at the same time
    free: threading.Semaphore  # a step holds it; in a forked child there is another one

    def idle(self) -> tuple[Connection, float] | None:
        """One that is open, and for how many seconds nobody used it."""
        ...

    def connect(self) -> Connection:
        """A new one, or one of the application's pool."""
        ...

    def keep(self, conn: Connection) -> None:
        """Take it back after a step, outside of any transaction."""
        ...

    def give_up(self, conn: Connection) -> None:
        """Close it for good."""
        ...

    def forget_idle(self) -> None:
        """Close those that are idle."""
        ...

    def start_afresh(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        ...


class OursPool:
    """Of an engine of ours, which pools nothing by itself."""

    def __init__(self, engine: Engine, idle_max: int) -> None:
        self._engine = engine
        self._idle_max = idle_max
        self._idle: deque[tuple[Connection, float]] = deque()
        self.at_once_max = _AT_ONCE_MAX
        self.free = threading.Semaphore(_AT_ONCE_MAX)

    def idle(self) -> tuple[Connection, float] | None:
        try:
            conn, since = self._idle.pop()  # the one used last
        except IndexError:
            return None
        return conn, SYSTEM_CLOCK.monotonic() - since

    def connect(self) -> Connection:
        return _in_autocommit(self._engine.connect())

    def keep(self, conn: Connection) -> None:
        if len(self._idle) < self._idle_max and not conn.invalidated:
            self._idle.append((conn, SYSTEM_CLOCK.monotonic()))
        else:
            _close(conn)

    def give_up(self, conn: Connection) -> None:
        _give_up(conn)

    def forget_idle(self) -> None:
        while self._idle:
            try:
                conn, _ = self._idle.pop()
            except IndexError:
                return
            _give_up(conn)

    def start_afresh(self) -> None:
        _inherited.extend(self._idle)
        self._idle = deque()
        self.free = threading.Semaphore(self.at_once_max)


class TheirPool:
    """The application's own: nothing stays with us between two steps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.at_once_max = _UNBOUNDED  # the application's pool has a bound of its own
        self.free = threading.Semaphore(_UNBOUNDED)

    def idle(self) -> tuple[Connection, float] | None:
        return None  # those of the pool come by `connect`

    def connect(self) -> Connection:
        return _in_autocommit(self._engine.connect())

    def keep(self, conn: Connection) -> None:
        _close(conn)

    def give_up(self, conn: Connection) -> None:
        _give_up(conn)

    def forget_idle(self) -> None:
        pass

    def start_afresh(self) -> None:
        self.free = threading.Semaphore(_UNBOUNDED)


class PoolBeside:
    """Beside an application's engine: a pool of the same kind and size that opens its connections in the same way.

    So they come with the engine's `creator`, its listeners (`do_connect`, `connect`, `checkout`), its options and its
    recycling, and no session of the application's can hold them. It is made at the first step, so that it has the
    listeners that were added after the driver was made.
    """

    def __init__(self, engine: Engine) -> None:
        self._theirs = engine
        self.at_once_max = min(_AT_ONCE_MAX, sessions_at_once(engine))
        self.free = threading.Semaphore(self.at_once_max)
        self._engine: Engine | None = None
        self._making = threading.Lock()
        self._has_warned = False

    def idle(self) -> tuple[Connection, float] | None:
        return None  # those of the pool come by `connect`

    def connect(self) -> Connection:
        try:
            conn = _in_autocommit(self._beside().connect())
        except DBAPIError as error:
            pool = self._theirs.pool
            if not isinstance(pool, QueuePool) or not pool.checkedin():
                raise
            # One of theirs is open and free: it may be that the server takes no more connections, or no longer knows
            # the password. Where it is away altogether, an application's pool that asks first raises here.
            conn = _in_autocommit(self._theirs.connect())
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"no connection beside it can be opened ({' '.join(str(error.orig).split())})")
            return conn
        self._has_warned = False
        return conn

    def keep(self, conn: Connection) -> None:
        _close(conn)

    def give_up(self, conn: Connection) -> None:
        _give_up(conn)

    def forget_idle(self) -> None:
        engine, self._engine = self._engine, None
        if isinstance(engine, _Beside):
            engine.own_pool.dispose()

    def start_afresh(self) -> None:
        _inherited.append(self._engine)
        self._engine = None
        self._making = threading.Lock()
        self.free = threading.Semaphore(self.at_once_max)

    def _beside(self) -> Engine:
        with self._making:
            if self._engine is None:
                if isinstance(self._theirs.pool, QueuePool | NullPool):
                    self._engine = _Beside(self._theirs)
                else:
                    self._warn(f"a {type(self._theirs.pool).__name__} cannot be made a second time")
                    self._engine = self._theirs
            return self._engine

    def _warn(self, why: str) -> None:
        _log.warning(
            "workers and heartbeats share the pool of the engine to %s: %s. Jobs that hold all its connections for"
            " a lease cost the worker its lease.",
            masked(self._theirs.url),
            why,
        )


class _Beside(OptionEngine):
    """The application's engine, its dialect, events and options included, with a pool of its own."""

    def __init__(self, engine: Engine) -> None:
        self.own_pool = engine.pool.recreate()
        super().__init__(engine, {})

    @property
    def pool(self) -> Pool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.own_pool


def sessions_at_once(engine: Engine) -> int:
    """How many connections an engine's pool has at most; a very high number where it has no bound."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return _UNBOUNDED
    overflow = int(vars(pool)["_max_overflow"])  # which no method tells
    return _UNBOUNDED if overflow < 0 or not pool.size() else pool.size() + overflow


def _in_autocommit(conn: Connection) -> Connection:
    try:
        return conn.execution_options(isolation_level="AUTOCOMMIT")
    except BaseException:
        conn.close()
        raise


def _give_up(conn: Connection) -> None:
    if not conn.invalidated:
        conn.invalidate()
    conn.close()


def _close(conn: Connection) -> None:
    """Back into the pool. One that was cut after its last answer is no error of the step that it served."""
    try:
        conn.close()
    except DBAPIError:
        conn.invalidate()
        conn.close()
