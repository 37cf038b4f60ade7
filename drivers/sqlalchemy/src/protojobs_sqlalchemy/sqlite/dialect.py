"""SQLite: how a step gets the only write lock, how workers wait, and what else is different there.

Every step is a short BEGIN IMMEDIATE on a write-ahead log. The statements of a job's way are in `jobs.py`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Insert, Table, Text, cast, event, func, text
from sqlalchemy.dialects import sqlite

from protojobs.clock import SYSTEM_CLOCK, time_left
from protojobs.entropy import jittered
from protojobs.errors import SchemaOutdated
from protojobs.port.records import ClaimReply, NewJob, Pruned
from protojobs.port.schedules import Schedule
from protojobs_sqlalchemy.connecting.translation import MIGRATE
from protojobs_sqlalchemy.connecting.urls import masked
from protojobs_sqlalchemy.dialect import Age, Change, Dialect, FailedAlike, LiveLane, Look, Mode, Stored, TurnRequest
from protojobs_sqlalchemy.inspecting.live import walked_lanes
from protojobs_sqlalchemy.observing.failures import walked_groups
from protojobs_sqlalchemy.sqlite import jobs as sql
from protojobs_sqlalchemy.sqlite.jobs import next_due, raw_of
from protojobs_sqlalchemy.tables.indexes import other_indexes
from protojobs_sqlalchemy.tables.naming import Names
from protojobs_sqlalchemy.tables.tables import Tables
from protojobs_sqlalchemy.tables.types import to_microseconds
from protojobs_sqlalchemy.verbs import settling
from protojobs_sqlalchemy.verbs.administration import prune_rows
from protojobs_sqlalchemy.waking import processes
from protojobs_sqlalchemy.waking.threads import Wakeup

__all__ = ["SQLiteDialect"]

_BUSY_S = 5.0  # how long a step waits for the write lock
_BUSY_PAUSE_S = 0.0005  # a turn takes 3 ms. SQLite's own handler sleeps up to 100 ms: 342 ms at worst against 5
_POLL_S = 0.025  # PRAGMA data_version costs 2.4 us; 40 a second are 0.1 ms
_ADDRESS_S = 1.0  # so long a file is taken for the same: to look costs a tenth of a push
_LIVELY_POLL_S, _LIVELY_S = 0.002, 2.0  # where jobs came lately, more are likely: 500 a second are 1 ms

_UNUSABLE = (sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)

_PRAGMAS = ("journal_mode = WAL", "temp_store = MEMORY", "cache_size = -16000", "mmap_size = 268435456")
_SET_FOR_NOW = ("synchronous", "busy_timeout")  # on an application's connection, which gets its own back after a verb
_LEVEL = "protojobs_synchronous"  # in the `info` of a connection of ours
_UNDECODABLE = "Could not decode to UTF-8"  # so the module refuses to hand a text out

_MOVE_SCHEDULES = """
UPDATE @schedules SET next_due_at = m.next_due_at, last_due_at = m.last_due_at, last_job_id = m.last_job_id,
                     version = m.version
FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS next_due_at,
             json_extract(value, '$[2]') AS last_due_at, json_extract(value, '$[3]') AS last_job_id,
             json_extract(value, '$[4]') AS version FROM json_each(:moved)) AS m
WHERE @schedules.id = m.id
"""


def _text(stored: bytes) -> str | bytes:
    """A text as it is stored; bytes where it is none, so that whoever reads it can tell."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


class SQLiteDialect(Dialect):
    """SQLite, in the time of this machine's clock."""

    is_server = False
    busy_mend = (
        "Another connection holds SQLite's only write lock; most often it is a job's own transaction that stays"
        " open while the job runs. Commit it sooner, or push with session= inside it."
    )
    unavailable_mend = "Check the file, its folder's permissions and the space on the disk."

    def __init__(self, engine: Engine, tables: Tables, time_offset: float, *, is_ours: bool) -> None:
        super().__init__(tables, time_offset)
        self._engine = engine
        self._is_ours = is_ours
        self._wakeup = Wakeup()
        self._lively_until = 0.0
        self._address, self._address_until = "", 0.0

    def prepare(self, engine: Engine) -> None:

        @event.listens_for(engine, "connect")
        def _set_up(raw: sqlite3.Connection, _record: object) -> None:
            raw.isolation_level = None  # the module begins nothing by itself: it would begin too late, and too weakly
            for pragma in _PRAGMAS:
                _patiently(raw.execute, f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _begin(conn: Connection) -> None:
            options = conn.get_execution_options()
            if options.get("isolation_level") != "AUTOCOMMIT":  # a session of the application's on our engine
                # A writer had better ask for IMMEDIATE: one that reads first may find the lock taken when it writes.
                kind = options.get("sqlite_begin", "DEFERRED")
                raw_of(conn).execute("PRAGMA synchronous = FULL")  # the application may have set another level
                _patiently(raw_of(conn).execute, f"BEGIN {kind}")

    def prepare_sessions(self, engine: Engine) -> None:
        self.prepare(engine)

    def begin(self, conn: Connection, mode: Mode) -> None:
        raw = raw_of(conn)
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
            _set_synchronous(conn, "FULL" if mode is Mode.STORE else "NORMAL")
        elif mode is Mode.STORE:
            _set_for_now(conn, "synchronous", 2)  # FULL
        _patiently(raw.execute, "BEGIN IMMEDIATE")

    def end(self, conn: Connection, mode: Mode) -> None:
        _patiently(raw_of(conn).commit)
        self.restore(conn)

    def restore(self, conn: Connection) -> None:
        if self._is_ours:
            return
        if (factory := conn.info.pop("text_factory", None)) is not None:
            raw_of(conn).text_factory = factory
        for pragma in _SET_FOR_NOW:
            if (before := conn.info.pop(pragma, None)) is not None:
                raw_of(conn).execute(f"PRAGMA {pragma} = {int(before)}")

    def now(self, conn: Connection) -> datetime:
        return SYSTEM_CLOCK.now() + timedelta(seconds=self.time_offset)

    def is_conflict(self, error: BaseException) -> bool:
        code = getattr(error, "sqlite_errorcode", 0) or 0
        return isinstance(error, sqlite3.OperationalError) and code & 0xFF in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )

    def is_unusable(self, error: BaseException) -> bool:
        # Something has closed or moved the files beneath it, such as a job that closed all descriptors. What SQLite
        # keeps for the file is shared by all connections of the process, so all are closed before one is opened.
        return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _UNUSABLE

    def is_schema_missing(self, error: BaseException) -> bool:
        return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
            ("no such table", "no such column")
        )

    def refused_mend(self, error: BaseException) -> str:
        match (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF:
            case sqlite3.SQLITE_NOTADB:
                return "The file is of another kind, or encrypted. Name another path in the URL."
            case sqlite3.SQLITE_CORRUPT:
                return "The file is damaged. Put back a copy of it, or save what can be read: sqlite3 FILE .recover"
            case _:
                return super().refused_mend(error)

    def identity(self, conn: Connection) -> str:
        rows = conn.exec_driver_sql("PRAGMA database_list").fetchall()
        return str(Path(next(str(row[2]) for row in rows if row[1] == "main")).resolve())

    def lock_schema(self, conn: Connection) -> Callable[[], None]:
        return lambda: None  # BEGIN IMMEDIATE has locked everything

    def check_file(self) -> None:
        path = self._engine.url.database
        if path and not path.startswith("file:") and not Path(path).exists():
            raise SchemaOutdated(f"There is no database {masked(self._engine.url)} yet.", mend=MIGRATE)

    def looks(self, connect: Callable[[], Connection], script: str) -> list[Look]:
        from protojobs_sqlalchemy.sqlite import diagnosis

        return [lambda conn: other_indexes(conn, self.names, script), *diagnosis.looks(is_ours=self._is_ours)]

    def holds_id(self, job_id: str) -> bool:
        return True  # the column holds any text, which a foreign hand may have written

    def first_chars(self, text: ColumnElement[str], number: int) -> ColumnElement[str]:
        return func.substr(cast(text, Text), 1, number)  # of bytes not so many bytes, but characters

    def last_chars(self, text: ColumnElement[str], number: int) -> ColumnElement[str]:
        return func.substr(text, -number, number)

    def delete_some(self, table: str, condition: str) -> str:
        return f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT :most)"

    def insert_unless_there(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))

    def insert_or_change(self, table: Table, change: Change) -> Insert:
        new = sqlite.insert(table)
        return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(change(new.excluded)))

    def enqueue_mode(self, jobs: Sequence[NewJob]) -> Mode:
        return Mode.STORE

    def enqueue(self, conn: Connection, jobs: Sequence[NewJob]) -> Stored:
        with closing(raw_of(conn).cursor()) as cursor:
            return Stored(sql.enqueue(cursor, self.names, jobs, to_microseconds(self.now(conn))))

    def write_settled(
        self, conn: Connection, settled: Sequence[Mapping[str, object]], failures: Sequence[Mapping[str, object]]
    ) -> None:
        settling.write_each(conn, self, settled, failures)  # there are no round trips

    def turn(self, conn: Connection, request: TurnRequest) -> ClaimReply:
        try:
            return sql.turn(conn, self, request, str)
        except sqlite3.OperationalError as error:
            if _UNDECODABLE not in str(error):
                raise
        self.undo(conn)
        self.restore(conn)
        return sql.turn(conn, self, request, _text)

    def prune(self, conn: Connection, ages: Sequence[Age], *, limit: int, now: datetime) -> Pruned:
        return prune_rows(conn, self, ages, limit=limit, now=now)

    def move_schedules(self, conn: Connection, schedules: Sequence[Schedule]) -> None:
        rows = [
            (
                one.id,
                *(at and to_microseconds(at) for at in (one.next_due_at, one.last_due_at)),
                one.last_job_id,
                one.version,
            )
            for one in schedules
        ]
        conn.execute(text(self.names.sql(_MOVE_SCHEDULES)), {"moved": json.dumps(rows)})

    def live_lanes(self, conn: Connection, values: Mapping[str, Any]) -> Iterable[LiveLane]:
        return walked_lanes(conn, self, values)

    def failed_alike(self, conn: Connection, values: Mapping[str, int]) -> list[FailedAlike]:
        return walked_groups(conn, self, values)

    def wake(self, queues: Iterable[str], *, told: Collection[str] = (), came_back: bool = False) -> None:
        names = set(queues)
        self._wakeup.wake(names)
        processes.send(self._store(), names)  # those in other containers see it by the file's data_version

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        ends_at = SYSTEM_CLOCK.monotonic() + timeout
        mark = self._wakeup.mark()
        with closing(self._open()) as raw, processes.receiver(self._store()) as receiver:
            seen, due_at = -1, None
            while True:
                version = raw.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen, due_at = version, next_due(raw, self.names, queues)
                now = SYSTEM_CLOCK.monotonic()
                if due_at is not None and due_at <= to_microseconds(SYSTEM_CLOCK.now()) + round(self.time_offset * 1e6):
                    self._lively_until = now + _LIVELY_S
                    return True
                if now >= ends_at:
                    return False
                pause = min(_LIVELY_POLL_S if now < self._lively_until else _POLL_S, ends_at - now)
                if receiver:
                    is_woken = processes.receives(receiver, queues, pause)
                else:
                    is_woken = self._wakeup.wait(mark, queues, pause)
                if is_woken:
                    self._lively_until = now + _LIVELY_S
                    return True

    def _store(self) -> str:
        """What those who use this file call it, by whatever path they reach it."""
        now = SYSTEM_CLOCK.monotonic()
        if now >= self._address_until:  # another file may have its name by now; who is not woken for that, polls
            self._address, self._address_until = _address(self._engine.url.database or "", self.names), now + _ADDRESS_S
        return self._address

    def _open(self) -> sqlite3.Connection:
        """A connection apart from the pool's: it looks and sleeps, and nobody shall wait for it."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(isolation_level=None, timeout=0.1)
        return sqlite3.connect(arguments[0], **options)


def _address(path: str, names: Names) -> str:
    try:
        file = os.stat(path)
    except OSError:  # named as a file: URI, or not there (any more)
        return f"sqlite/{zlib.crc32(path.encode())}{names.prefix}"
    return f"sqlite/{file.st_dev}-{file.st_ino}{names.prefix}"


def _set_synchronous(conn: Connection, level: str) -> None:
    """On a connection of ours, which remembers it: the PRAGMA costs as much as the INSERT of a job."""
    if conn.info.get(_LEVEL) != level:
        raw_of(conn).execute(f"PRAGMA synchronous = {level}")
        conn.info[_LEVEL] = level


def _set_for_now(conn: Connection, pragma: str, value: int) -> None:
    """One of `_SET_FOR_NOW`, until `restore`."""
    raw = raw_of(conn)
    conn.info.setdefault(pragma, raw.execute(f"PRAGMA {pragma}").fetchone()[0])
    raw.execute(f"PRAGMA {pragma} = {value}")


def _patiently(action: Callable[..., object], *arguments: object) -> None:
    """Do it once the file is free, or raise SQLite's own `database is locked` after `_BUSY_S`."""
    gives_up_at = SYSTEM_CLOCK.monotonic() + time_left(_BUSY_S)
    while True:
        try:
            action(*arguments)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or SYSTEM_CLOCK.monotonic() > gives_up_at:
                raise
        time.sleep(jittered(_BUSY_PAUSE_S, 0.9))
