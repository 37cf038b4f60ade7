"""Where connections come from, and the one way in which a step runs: begin, do, commit, again on a conflict."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.errors import StoreUnavailable
from protojobs_sqlalchemy.dialects import Dialect, Mode
from protojobs_sqlalchemy.translation import is_read_only, original, translated
from protojobs_sqlalchemy.urls import masked

__all__ = ["Connections"]

T = TypeVar("T")

_HELD_MAX = 4  # idle connections that stay checked out of our own engine's pool: a checkout costs as much as a claim
_AT_ONCE_MAX = 20  # verbs on our own engine: who finds no place waits as long as the caller does, the pool for longer
_PLACE_S = 10.0
_PING_AFTER_S = 30.0  # one that was idle for longer is asked first whether its server is still there
_CONFLICT_S = 5.0  # a step that meets others is run again for so long
_CUT_LONG_AGO_S = 1.0  # a connection that was cut earlier fails at once; a silent server is not asked twice
_CONFLICT_PAUSE_S = 0.005

_inherited: list[object] = []  # a forked child must neither use nor close its parent's connections, so it keeps them


class _ConnectionLost(Exception):
    """The step's error, where it took the connection with it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Connections:
    """Connections in autocommit mode: of our own engine, a few of which stay open, or of the application's pool.

    An application's engine is never disposed of, nothing of it stays checked out between two verbs, and no setting of
    its connections outlives a verb.
    """

    def __init__(self, engine: Engine, dialect: Dialect, *, is_ours: bool) -> None:
        self.engine = engine
        self.is_ours = is_ours
        self._dialect = dialect
        self._held: deque[tuple[Connection, float]] = deque()
        self._places = threading.Semaphore(_AT_ONCE_MAX)
        self._pid = os.getpid()

    def run(self, step: Callable[[Connection], T], mode: Mode, *, is_repeatable: bool = False) -> T:
        """Run `step` as one atomic step, and again when it met another one. Only our own exceptions leave.

        A step that may be done twice (as reading may) also gets a second connection when the first one was lost: most
        often that one had been cut while it was idle, by a restart of the server.
        """
        started = SYSTEM_CLOCK.monotonic()
        gives_up_at = started + time_left(_CONFLICT_S)
        may_repeat = is_repeatable or mode is Mode.READ
        with self.translating():
            while True:
                try:
                    if self.is_ours:
                        with self._place():
                            return self._once(step, mode)
                    return self._once(step, mode)
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
            ours = translated(error, self.engine, self._dialect)
            if ours is None or ours is error:
                raise
            raise ours from error

    def connect(self) -> Connection:
        """A connection in autocommit mode that the caller closes."""
        self._start_afresh_after_fork()
        conn = self.engine.connect()
        try:
            return conn.execution_options(isolation_level="AUTOCOMMIT")
        except BaseException:
            conn.close()
            raise

    def close(self) -> None:
        """Close what is held, and our own pool."""
        self._start_afresh_after_fork()
        self._forget_held()
        if self.is_ours:
            self.engine.dispose()

    @contextmanager
    def _place(self) -> Generator[None]:
        """One of the places of those who use a connection of ours at the same time."""
        self._start_afresh_after_fork()
        places = self._places
        if not places.acquire(timeout=time_left(_PLACE_S)):
            raise StoreUnavailable(
                f"All {_AT_ONCE_MAX} connections to {masked(self.engine.url)} are busy.",
                mend="Is the database slow, or away? They wait for its answers.",
            )
        try:
            yield
        finally:
            places.release()

    def _must_be_conflict(self, error: Exception, gives_up_at: float) -> None:
        if not self._dialect.is_conflict(original(error)) or SYSTEM_CLOCK.monotonic() > gives_up_at:
            raise error

    def _once(self, step: Callable[[Connection], T], mode: Mode) -> T:
        conn = self._take()
        try:
            if mode is Mode.SINGLE:
                result = step(conn)
            else:
                self._dialect.begin(conn, mode)
                result = step(conn)
                self._dialect.end(conn, mode)
        except BaseException as error:
            if self._drop(conn, error) and isinstance(error, Exception):
                raise _ConnectionLost(error) from error
            raise
        self._keep(conn)
        return result

    def _take(self) -> Connection:
        self._start_afresh_after_fork()
        while self._held:
            try:
                conn, since = self._held.pop()  # the one used last; another thread may be faster
            except IndexError:
                break
            if SYSTEM_CLOCK.monotonic() - since < _PING_AFTER_S or self._answers(conn):
                return conn
        return self.connect()

    def _answers(self, conn: Connection) -> bool:
        raw = conn.connection.dbapi_connection
        try:
            if raw is not None and self.engine.dialect.do_ping(raw):
                return True
        except self.engine.dialect.loaded_dbapi.Error:
            pass
        conn.invalidate()
        conn.close()
        return False

    def _keep(self, conn: Connection) -> None:
        if self.is_ours and len(self._held) < _HELD_MAX:
            self._held.append((conn, SYSTEM_CLOCK.monotonic()))
        else:
            _close(conn)

    def _drop(self, conn: Connection, error: BaseException) -> bool:
        """Undo the step. A connection whose state is in doubt is not used again, nor are its older sisters.

        True when the connection itself was lost.
        """
        cause = original(error)
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        try:
            if not conn.invalidated:
                raw = conn.connection.dbapi_connection
                is_lost = self._is_disconnect(cause, raw) or is_read_only(cause)
                if is_lost or not isinstance(error, Exception):
                    conn.invalidate()
                elif raw is not None:
                    raw.rollback()
                    self._dialect.restore(conn)
            conn.close()
        except Exception:  # noqa: BLE001 (the connection is given up anyway; the step's own error says more)
            is_lost = True
            conn.invalidate()
            conn.close()
        if is_lost:
            self._forget_held()
        if is_read_only(cause) and self.is_ours:
            self.engine.dispose()  # the pool's idle ones lead to the same server, and answer a ping
        return is_lost

    def _is_disconnect(self, error: BaseException, raw: DBAPIConnection | None) -> bool:
        dialect = self.engine.dialect
        return isinstance(error, dialect.loaded_dbapi.Error) and dialect.is_disconnect(error, raw, None)

    def _forget_held(self) -> None:
        while self._held:
            try:
                conn, _ = self._held.pop()
            except IndexError:
                return
            conn.invalidate()
            conn.close()

    def _start_afresh_after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        _inherited.extend(self._held)
        self._held = deque()
        self._places = threading.Semaphore(_AT_ONCE_MAX)
        self._pid = os.getpid()
        if self.is_ours:
            self.engine.dispose(close=False)


def _close(conn: Connection) -> None:
    """Back into the pool. One that was cut after its last answer is no error of the step that it served."""
    try:
        conn.close()
    except DBAPIError:
        conn.invalidate()
        conn.close()
