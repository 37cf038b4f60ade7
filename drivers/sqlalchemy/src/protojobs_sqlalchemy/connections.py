"""How a step runs on a connection: begin, do, commit, again on a conflict. `pools.py` says where connections come from.

Steps are of three uses, each with connections of its own. Whoever holds all connections of one use makes nobody of
another wait: jobs that push, and sessions that they keep open, hold up neither claims and results nor heartbeats.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from protojobs.clock import SYSTEM_CLOCK, time_left, within
from protojobs.entropy import jittered
from protojobs_sqlalchemy.dialects import Dialect, Mode, Use
from protojobs_sqlalchemy.pools import OursPool, PoolBeside, StepPool, TheirPool, sessions_at_once
from protojobs_sqlalchemy.translation import is_read_only, original, translated
from protojobs_sqlalchemy.urls import masked

__all__ = ["Connections"]

T = TypeVar("T")

_IDLE_MAX = {Use.CALL: 4, Use.WORK: 4, Use.BEAT: 1}  # that stay open: to open one costs more than a claim
_PING_AFTER_S = 30.0  # one that was idle for longer is asked first whether its server is still there
_PING_S = 2.0  # of the caller's time: where a firewall has forgotten the connection, nobody answers
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

    def __init__(self, engine: Engine, dialect: Dialect, *, make_sessions: Callable[[], Engine] | None) -> None:
        """`make_sessions` makes the engine for the application's sessions; None says that `engine` is such a one."""
        self.engine = engine
        self.is_ours = make_sessions is not None
        self._make_sessions = make_sessions
        self._sessions = engine if make_sessions is None else None
        self._dialect = dialect
        self._pools: dict[Use, StepPool]
        if make_sessions is None:
            self._pools = {**{use: PoolBeside(engine) for use in Use}, Use.CALL: TheirPool(engine)}
        else:
            self._pools = {use: OursPool(engine, _IDLE_MAX[use]) for use in Use}
        self._has_connected = False
        self._pid = os.getpid()

    @property
    def sessions(self) -> Engine:
        """The engine for the application's own sessions: the one that it gave, or one of ours for nothing else."""
        self._start_afresh_after_fork()
        if self._sessions is None:
            assert self._make_sessions is not None
            self._sessions = self._make_sessions()
        return self._sessions

    def run(
        self, step: Callable[[Connection], T], mode: Mode, *, use: Use = Use.CALL, is_repeatable: bool = False
    ) -> T:
        """Run `step` as one atomic step, and again when it met another one. Only our own exceptions leave.

        A step that may be done twice (as reading may) also gets a second connection when the first one was lost: most
        often that one had been cut while it was idle, by a restart of the server.
        """
        started = SYSTEM_CLOCK.monotonic()
        gives_up_at = started + time_left(_CONFLICT_S)
        may_repeat = is_repeatable or mode is Mode.READ
        self._start_afresh_after_fork()
        pool = self._pools[use]
        with self.translating():
            while True:
                try:
                    with pool.place():
                        return self._once(pool, step, mode)
                except _ConnectionLost as lost:
                    if not may_repeat or SYSTEM_CLOCK.monotonic() - started > _CUT_LONG_AGO_S:
                        raise lost.error from None
                    may_repeat = False
                    continue
                except self.engine.dialect.loaded_dbapi.Error as error:
                    self._must_be_conflict(error, gives_up_at)
                except DBAPIError as error:
                    self._must_be_conflict(error, gives_up_at)
                time.sleep(jittered(_CONFLICT_PAUSE_S, 0.9))

    @contextmanager
    def translating(self) -> Generator[None]:
        """Turn what the database's libraries raise into what the port promises."""
        try:
            yield
        except Exception as error:
            ours = translated(error, self.engine, self._dialect, has_connected=self._has_connected)
            if ours is None or ours is error:
                raise
            raise ours from error

    def connect(self) -> Connection:
        """A connection in autocommit mode that the caller closes."""
        self._start_afresh_after_fork()
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
        self._start_afresh_after_fork()
        self._forget_idle()

    def _must_be_conflict(self, error: Exception, gives_up_at: float) -> None:
        if not self._dialect.is_conflict(original(error)) or SYSTEM_CLOCK.monotonic() > gives_up_at:
            raise error

    def _once(self, pool: StepPool, step: Callable[[Connection], T], mode: Mode) -> T:
        conn = self._take(pool)
        try:
            if mode is Mode.SINGLE:
                result = step(conn)
            else:
                self._dialect.begin(conn, mode)
                result = step(conn)
                self._dialect.end(conn, mode)
        except BaseException as error:
            if self._undo(pool, conn, error) and isinstance(error, Exception):
                raise _ConnectionLost(error) from error
            raise
        pool.keep(conn)
        return result

    def _take(self, pool: StepPool) -> Connection:
        idle = pool.idle()
        if idle is not None:
            conn, for_s = idle
            if for_s < _PING_AFTER_S or self._answers(conn):
                return conn
            pool.give_up(conn)
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
                is_lost = self._is_disconnect(cause, raw) or is_read_only(cause) or self._dialect.is_unusable(cause)
                if not is_lost and isinstance(error, Exception) and raw is not None:
                    raw.rollback()
                    self._dialect.restore(conn)
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

    def _start_afresh_after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        for pool in self._pools.values():
            pool.start_afresh()
        if self.is_ours and self._sessions is not None:
            self._sessions.dispose(close=False)
