"""SQLite: one writer at a time, so every step is a BEGIN IMMEDIATE, short, on a write-ahead log."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, event

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.port.records import ClaimReply, NewJob, Settled, Settlement
from protojobs_sqlalchemy.dialect import Ask, Mode, Run
from protojobs_sqlalchemy.sqlite.enqueue import store
from protojobs_sqlalchemy.sqlite.jobs import Lent, answer, complete, next_due, take
from protojobs_sqlalchemy.tables.types import to_microseconds
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.counting import shard_of
from protojobs_sqlalchemy.waking import processes
from protojobs_sqlalchemy.waking.threads import Bell

__all__ = ["SQLiteDialect"]

_BUSY_S = 5.0  # how long a step waits for the write lock
_BUSY_PAUSE_S = 0.0005  # a turn takes 3 ms. SQLite's own handler sleeps up to 100 ms: 342 ms at worst against 5
_POLL_S = 0.025  # PRAGMA data_version costs 2.4 us; 40 a second are 0.1 ms
_LIVELY_POLL_S, _LIVELY_S = 0.002, 2.0  # where jobs came lately, more are likely: 500 a second are 1 ms

_UNUSABLE = (sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)

_PRAGMAS = ("journal_mode = WAL", "temp_store = MEMORY", "cache_size = -16000", "mmap_size = 268435456")
_SET_FOR_NOW = (
    "synchronous",
    "busy_timeout",
)  # on an application's connection, which gets its own back after each verb


_UNDECODABLE = "Could not decode to UTF-8"  # so the module refuses to hand a text out


def _text(stored: bytes) -> str | bytes:
    """A text as it is stored; bytes where it is none, so that whoever reads it can tell."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _raw(conn: Connection) -> sqlite3.Connection:
    raw = conn.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


class SQLiteDialect:
    """The hot statements on sqlite3's own cursor, in the time of this machine's clock."""

    turn_mode = Mode.SINGLE  # a turn commits by itself, and makes its records after that
    archives = False

    def __init__(self, engine: Engine, time_offset: float, *, is_ours: bool) -> None:
        self.time_offset = time_offset
        self._engine = engine
        self._is_ours = is_ours
        self._bell = Bell()
        self._lively_until = 0.0

    # ------------------------------------------------------------------------------------------------------ steps

    def prepare(self, engine: Engine) -> None:
        """See Dialect.prepare."""

        @event.listens_for(engine, "connect")
        def _set_up(raw: sqlite3.Connection, _record: object) -> None:
            raw.isolation_level = None  # the module begins nothing by itself: it would begin too late, and too weakly
            for pragma in _PRAGMAS:
                _patiently(lambda sql=f"PRAGMA {pragma}": raw.execute(sql))  # type: ignore[misc]

        @event.listens_for(engine, "begin")
        def _begin(conn: Connection) -> None:
            options = conn.get_execution_options()
            if options.get("isolation_level") != "AUTOCOMMIT":  # a session of the application's on our engine
                # A writer had better ask for IMMEDIATE: one that reads first may find the lock taken when it writes.
                kind = options.get("sqlite_begin", "DEFERRED")
                _raw(conn).execute("PRAGMA synchronous = FULL")  # the last verb here may have needed less
                _patiently(lambda: _raw(conn).execute(f"BEGIN {kind}"))

    def prepare_sessions(self, engine: Engine) -> None:
        """See Dialect.prepare_sessions."""
        self.prepare(engine)

    def attach(self, run: Run) -> None:
        """See Dialect.attach."""
        # nothing is ever done outside of a verb

    def begin(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.begin."""
        raw = _raw(conn)
        if not conn.in_transaction():
            conn.begin()  # now, since an application's engine may have a recipe of its own for this event ...
        if raw.in_transaction:  # ... which has begun a transaction, of a kind that we do not know
            raw.execute("COMMIT")
        if not self._is_ours:
            _set_for_now(conn, "busy_timeout", 0)  # SQLite would wait as long as the application does, we know better
        conn.info.setdefault("text_factory", raw.text_factory)
        raw.text_factory = _text
        if mode is Mode.READ:
            raw.execute("BEGIN")
            return
        if self._is_ours:
            raw.execute("PRAGMA synchronous = FULL" if mode is Mode.STORE else "PRAGMA synchronous = NORMAL")
        elif mode is Mode.STORE:
            _set_for_now(conn, "synchronous", 2)  # FULL
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))

    def end(self, conn: Connection, mode: Mode) -> None:
        """See Dialect.end."""
        _patiently(_raw(conn).commit)
        self.restore(conn)

    def restore(self, conn: Connection) -> None:
        """See Dialect.restore."""
        if (factory := conn.info.pop("text_factory", None)) is not None:
            _raw(conn).text_factory = factory
        for pragma in _SET_FOR_NOW:
            if (before := conn.info.pop(pragma, None)) is not None:
                _raw(conn).execute(f"PRAGMA {pragma} = {int(before)}")

    def now(self, conn: Connection) -> datetime:
        """See Dialect.now."""
        return self._clock()

    def _clock(self) -> datetime:
        return SYSTEM_CLOCK.now() + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        """See Dialect.is_conflict."""
        code = getattr(error, "sqlite_errorcode", 0) or 0
        return isinstance(error, sqlite3.OperationalError) and code & 0xFF in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )

    def is_unusable(self, error: BaseException) -> bool:
        """See Dialect.is_unusable."""
        # Something has closed or moved the files beneath it, such as a job that closed all descriptors. What SQLite
        # keeps for the file is shared by all connections of the process, so all are closed before one is opened.
        return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _UNUSABLE

    def is_schema_missing(self, error: BaseException) -> bool:
        """See Dialect.is_schema_missing."""
        return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
            ("no such table", "no such column")
        )

    def has_archive(self, conn: Connection) -> bool:
        """See Dialect.has_archive."""
        return False

    def identity(self, conn: Connection) -> str:
        """See Dialect.identity."""
        rows = conn.exec_driver_sql("PRAGMA database_list").fetchall()
        return str(Path(next(str(row[2]) for row in rows if row[1] == "main")).resolve())

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        """See Dialect.lock_schema."""
        return lambda: None  # BEGIN IMMEDIATE has locked everything

    # ---------------------------------------------------------------------------------------------------- enqueue

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        """See Dialect.enqueue_mode."""
        return Mode.STORE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> set[str]:
        """See Dialect.enqueue."""
        with closing(_raw(conn).cursor()) as cursor:
            return store(cursor, jobs, to_microseconds(self.now(conn)))

    # ------------------------------------------------------------------------------------------------------- turn

    def turn(self, conn: Connection, ask: Ask) -> ClaimReply:
        """See Dialect.turn."""
        try:
            return self._turn(conn, ask, str)
        except sqlite3.OperationalError as error:
            if _UNDECODABLE not in str(error):
                raise
        _raw(conn).rollback()
        self.restore(conn)
        return self._turn(conn, ask, _text)

    def _turn(self, conn: Connection, ask: Ask, text: Callable[[bytes], str | bytes]) -> ClaimReply:
        self.begin(conn, Mode.WORK)
        _raw(conn).text_factory = text
        now = self._clock()
        moment, lent, stands = to_microseconds(now), Lent(), True
        with closing(_raw(conn).cursor()) as cursor:  # one left open half-way would keep its snapshot, and the log grow
            if ask.limit:
                stands = cursor.execute("SELECT 1 FROM workers WHERE id = ?", (ask.worker,)).fetchone() is not None
            settled = settling.in_rounds(ask.settlements, lambda round_: self._settle(conn, cursor, round_, now))
            if ask.limit and stands:
                lent = take(cursor, ask, moment)
        self.end(conn, Mode.WORK)
        if not stands:
            return ClaimReply(settled=tuple(settled), lease_lost=True)
        return answer(lent, ask.worker, moment, settled)

    def _settle(
        self, conn: Connection, cursor: sqlite3.Cursor, round_: Sequence[Settlement], now: datetime
    ) -> list[Settled]:
        shard = shard_of(round_[0].reserved_by)
        plain, others = settling.split(round_)
        if not others:
            return complete(conn, cursor, plain, to_microseconds(now), shard)
        answers = settling.apply(conn, others, now, shard)
        if plain:
            answers += complete(conn, cursor, plain, to_microseconds(now), shard)
        found = {answer.id: answer for answer in answers}
        return [found[s.id] for s in round_]

    # ------------------------------------------------------------------------------------------------------- wait

    def ring(self, queues: Iterable[str], *, takes_none: bool = False, came_back: bool = False) -> None:
        """See Dialect.ring."""
        names = set(queues)
        self._bell.ring(names)
        processes.ring(self._store(), names)  # those in other containers see it by the file's data_version

    def ring_inside(self, conn: Connection, queues: Iterable[str]) -> None:
        """See Dialect.ring_inside."""
        # the commit itself changes data_version

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        """See Dialect.wait."""
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        heard = self._bell.listen()
        with closing(self._open()) as raw, processes.listening(self._store()) as ear:
            seen, due_at = -1, None
            while True:
                version = raw.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen, due_at = version, next_due(raw, queues)
                now = SYSTEM_CLOCK.monotonic()
                if due_at is not None and due_at <= to_microseconds(self._clock()):
                    self._lively_until = now + _LIVELY_S
                    return True
                if now >= ends_at:
                    return False
                pause = min(_LIVELY_POLL_S if now < self._lively_until else _POLL_S, ends_at - now)
                rang = processes.hears(ear, queues, pause) if ear else self._bell.wait(heard, queues, pause)
                if rang:
                    self._lively_until = now + _LIVELY_S
                    return True

    def _store(self) -> str:
        """What those who use this file call it, by whatever path they reach it."""
        try:
            found = os.stat(self._engine.url.database or "")
        except OSError:  # named as a file: URI, or not there (any more)
            return f"sqlite/{zlib.crc32(str(self._engine.url.database).encode())}"
        return f"sqlite/{found.st_dev}-{found.st_ino}"

    def _open(self) -> sqlite3.Connection:
        """A connection apart from the pool's: it looks and sleeps, and nobody shall wait for it."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(isolation_level=None, timeout=0.1)
        return sqlite3.connect(arguments[0], **options)

    def close(self) -> None:
        """See Dialect.close."""


def _set_for_now(conn: Connection, pragma: str, value: int) -> None:
    """One of `_SET_FOR_NOW`, until `restore`."""
    raw = _raw(conn)
    conn.info.setdefault(pragma, raw.execute(f"PRAGMA {pragma}").fetchone()[0])
    raw.execute(f"PRAGMA {pragma} = {value}")


def _patiently(action: Callable[[], object]) -> None:
    """Do it once the file is free, or raise SQLite's own `database is locked` after `_BUSY_S`."""
    gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(_BUSY_S)
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or SYSTEM_CLOCK.monotonic() > gives_up_at:
                raise
        time.sleep(jittered(_BUSY_PAUSE_S, 0.9))
