"""A step runs on a connection here: begin, do, commit, and again on a conflict. `pools.py` has the connections.

Steps are of three uses, each with connections of its own. Whoever holds all connections of one use makes nobody of
another wait: jobs that push, and sessions that they keep open, hold up neither claims and results nor heartbeats.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import NoReturn, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from protojobs.clock import SYSTEM_CLOCK, time_left, within
from protojobs.entropy import jittered
from protojobs.errors import StoreUnavailable
from protojobs_sqlalchemy.connecting.pools import OursPool, PoolBeside, StepPool, TheirPool, sessions_at_once
from protojobs_sqlalchemy.connecting.translation import is_read_only, original, translated
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Dialect, Mode, Use

__all__ = ["Connections"]

T = TypeVar("T")

_IDLE_MAX = {Use.CALL: 4, Use.WORK: 4, Use.BEAT: 1}  # that stay open: to open one costs more than a claim
_PING_AFTER_S = 30.0  # one that was idle for longer is asked first whether its server is still there
_PING_S = 2.0  # of the caller's time: where a firewall has forgotten the connection, nobody answers
_PLACE_S = 10.0  # who finds all connections of its use busy waits for so long
_CONFLICT_S = 5.0  # a step that meets others is run again for so long
_CUT_LONG_AGO_S = 1.0  # a connection that was cut earlier fails at once; a silent server is not asked twice
_CONFLICT_PAUSE_S = 0.005
_log = logging.getLogger("protojobs.sqlalchemy")


class _ConnectionLost(Exception):
    """The step's error, where it took the connection with it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Connections:
    """Runs steps, on an engine of ours or beside an application's.

    From an application's engine calls take connections of its pool; workers' steps and heartbeats take others, which
    are opened in the same way. Its pool is never disposed of, nothing of it stays checked out between two verbs, and no
    setting of its connections outlives a verb.
    """

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        *,
        make_sessions: Callable[[], Engine] | None,
        check: Callable[[Connection, Dialect], None],
        pools: Mapping[Use, StepPool] | None = None,
    ) -> None:
        """`make_sessions` makes the engine for the application's sessions; None says that `engine` is such a one.

        `check` raises unless the tables are of a version that this release works on. `pools` takes the place of the
        usual ones.
        """
        self.engine = engine
        self.dialect = dialect
        self._check = check
        self.are_tables_checked = False  # once: a table that vanishes later is told by the database's own error
        self.is_ours = make_sessions is not None
        self._make_sessions = make_sessions
        self._sessions = engine if make_sessions is None else None
        self._pools: Mapping[Use, StepPool]
        if pools is not None:
            self._pools = pools
        elif make_sessions is None:
            self._pools = {**{use: PoolBeside(engine) for use in Use}, Use.CALL: TheirPool(engine)}
        else:
            self._pools = {use: OursPool(engine, _IDLE_MAX[use]) for use in Use}
        self._has_connected = False
        self._pid = os.getpid()

    @property
    def sessions(self) -> Engine:
        """The engine for the application's own sessions: the one that it gave, or one of ours for nothing else."""
        if self._pid != os.getpid():
            self._start_afresh()
        if self._sessions is None:
            assert self._make_sessions is not None
            self._sessions = self._make_sessions()
        return self._sessions

    def run(
        self,
        step: Callable[[Connection], T],
        mode: Mode,
        *,
        use: Use = Use.CALL,
        is_repeatable: bool = False,
        needs_tables: bool = True,
    ) -> T:
        """Run `step` as one atomic step, and again when it met another one. Only our own exceptions leave.

        A step that may be done twice (as reading may) also gets a second connection when the first one was lost: most
        often that one had been cut while it was idle, by a restart of the server.
        """
        if needs_tables and not self.are_tables_checked:
            self.check_tables(use)
        started = SYSTEM_CLOCK.monotonic()
        gives_up_at = started + time_left(_CONFLICT_S)
        may_repeat = is_repeatable or mode is Mode.READ
        if self._pid != os.getpid():
            self._start_afresh()
        pool = self._pools[use]
        while True:
            free = pool.free
            if not free.acquire(timeout=time_left(_PLACE_S)):
                raise StoreUnavailable(
                    f"All {pool.at_once_max} connections to {masked(self.engine.url)} are busy.",
                    mend="Is the database slow, or away? They wait for its answers.",
                )
            try:
                return self._once(pool, step, mode)
            except Exception as error:  # noqa: BLE001 (raised below, unless the step may run again)
                failure = error
            finally:
                free.release()
            if isinstance(failure, _ConnectionLost):
                if not may_repeat or SYSTEM_CLOCK.monotonic() - started > _CUT_LONG_AGO_S:
                    self._raise_ours(failure.error)
                may_repeat = False
            else:
                self._pause_after_conflict(failure, gives_up_at)

    def run_at(
        self,
        step: Callable[[Connection, datetime], T],
        mode: Mode,
        *,
        use: Use = Use.CALL,
        is_repeatable: bool = False,
    ) -> T:
        """Run a step that asks the store's time once, at its start."""
        return self.run(lambda conn: step(conn, self.dialect.now(conn)), mode, use=use, is_repeatable=is_repeatable)

    def check_tables(self, use: Use = Use.CALL) -> None:
        """Raise SchemaOutdated unless the tables are of a version that this release works on."""
        self.dialect.check_file()
        self.run(self.check_tables_on, Mode.READ, use=use, needs_tables=False)

    def check_tables_on(self, conn: Connection) -> None:
        """The same on a connection, such as a caller's."""
        self._check(conn, self.dialect)
        self.dialect.archive.has_jobs(conn)  # asked here, and known to the verbs
        self.are_tables_checked = True

    @contextmanager
    def translating(self) -> Generator[None]:
        """Turn what the database's libraries raise into what the port promises."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (raised again, as itself or as one of ours)
            self._raise_ours(error)

    def _raise_ours(self, error: Exception) -> NoReturn:
        ours = translated(error, self.engine, self.dialect, has_connected=self._has_connected)
        if ours is None or ours is error:
            raise error
        raise ours from error

    def connect(self) -> Connection:
        """A connection in autocommit mode that the caller closes."""
        if self._pid != os.getpid():
            self._start_afresh()
        return self._pools[Use.CALL].connect()

    def warn_of_few(self, concurrency: int) -> None:
        """Warn where the application's pool is too small for the sessions of a worker's jobs."""
        if not self.is_ours and concurrency >= (most := sessions_at_once(self.engine)):
            _log.warning(
                "the worker runs %d jobs at once, and the pool of the engine to %s has %d connections: jobs that keep a"
                " session open while they work or push wait for each other. Give the engine a pool_size above the"
                " worker's concurrency.",
                concurrency,
                masked(self.engine.url),
                most,
            )

    def close(self) -> None:
        """Close what is idle, and our own sessions' pool."""
        if self._pid != os.getpid():
            self._start_afresh()
        self._forget_idle()

    def _pause_after_conflict(self, error: Exception, gives_up_at: float) -> None:
        """Raise what is no conflict with another step, or has been one for too long."""
        is_of_store = isinstance(error, self.engine.dialect.loaded_dbapi.Error | DBAPIError)
        is_conflict = is_of_store and self.dialect.is_conflict(original(error))
        if not is_conflict or SYSTEM_CLOCK.monotonic() > gives_up_at:
            self._raise_ours(error)
        time.sleep(jittered(_CONFLICT_PAUSE_S, 0.9))

    def _once(self, pool: StepPool, step: Callable[[Connection], T], mode: Mode) -> T:
        idle = pool.idle()
        conn = idle[0] if idle is not None and idle[1] < _PING_AFTER_S else self._connect(pool, idle)
        try:
            if mode is Mode.SINGLE:
                result = step(conn)
            else:
                self.dialect.begin(conn, mode)
                result = step(conn)
                self.dialect.end(conn, mode)
        except BaseException as error:
            if self._undo(pool, conn, error) and isinstance(error, Exception):
                raise _ConnectionLost(error) from error
            raise
        pool.keep(conn)
        return result

    def _connect(self, pool: StepPool, idle: tuple[Connection, float] | None) -> Connection:
        if idle is not None:
            if self._answers(idle[0]):
                return idle[0]
            pool.give_up(idle[0])
            self._forget_idle()  # what made this one useless, a firewall perhaps, has made the others so
        conn = pool.connect()
        self._has_connected = True
        return conn

    def _answers(self, conn: Connection) -> bool:
        raw = conn.connection.dbapi_connection
        try:
            with within(_PING_S):
                return raw is not None and self.engine.dialect.do_ping(raw)
        except self.engine.dialect.loaded_dbapi.Error:
            return False

    def _undo(self, pool: StepPool, conn: Connection, error: BaseException) -> bool:
        """Undo the step. A connection whose state is in doubt is not used again, nor are the idle ones.

        True when the connection itself was lost.
        """
        cause = original(error)
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        is_kept = False
        try:
            if not conn.invalidated:
                raw = conn.connection.dbapi_connection
                is_lost = self._is_disconnect(cause, raw) or is_read_only(cause) or self.dialect.is_unusable(cause)
                if not is_lost and isinstance(error, Exception) and raw is not None:
                    self.dialect.undo(conn)
                    self.dialect.restore(conn)
                    is_kept = True
        except Exception:  # noqa: BLE001 (the connection is given up anyway; the step's own error says more)
            is_lost = True
        if is_kept:
            pool.keep(conn)
        else:
            pool.give_up(conn)
        if is_lost:
            self._forget_idle()  # a server that is gone, or takes no writes, is at their other end too
        return is_lost

    def _is_disconnect(self, error: BaseException, raw: DBAPIConnection | None) -> bool:
        dialect = self.engine.dialect
        return isinstance(error, dialect.loaded_dbapi.Error) and dialect.is_disconnect(error, raw, None)

    def _forget_idle(self) -> None:
        for pool in self._pools.values():
            pool.forget_idle()
        if self.is_ours and self._sessions is not None:
            self._sessions.dispose()

    def _start_afresh(self) -> None:
        """In a forked child: leave the parent's connections alone."""
        self._pid = os.getpid()
        for pool in self._pools.values():
            pool.start_afresh()
        if self.is_ours and self._sessions is not None:
            self._sessions.dispose(close=False)
