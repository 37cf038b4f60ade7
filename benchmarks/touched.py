"""What one verb of a driver touches in the store, counted where no noise reaches: pages, steps, commands."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString, Protocol

import psycopg
import pymysql
import redis
from psycopg import sql
from sqlalchemy import event, make_url

from protojobs_sqlalchemy import SQLAlchemyDriver
from stores import servers

IO = Path("/proc/self/io")
PAGES, STEPS, COMMANDS = "pages", "steps", "commands"
STILL_S, STILL_MAX_S = 0.05, 30.0  # nothing was touched for so long; and how long that may take

Counts = Counter[str]


class Meter(Protocol):
    """Counts what an action makes the store touch."""

    def of(self, action: Callable[[], object]) -> Counts:
        """What it touched; `pages`, `steps` or `commands` are the sums, other names say where."""
        ...

    def close(self) -> None:
        """Leave the store as it was found."""
        ...


class PagesOfPostgresql:
    """Pages that a backend took up, in the buffers or from disk, by table and index. A page is counted each time.

    By the server's own statistics of each relation: nothing but the driver works on them meanwhile.
    """

    def __init__(self, driver: SQLAlchemyDriver, url: str) -> None:
        self._sessions: list[Any] = []
        self._admin = psycopg.connect(servers.plain(url), autocommit=True, connect_timeout=10)
        event.listen(driver._connections.engine, "connect", lambda raw, _record: self._sessions.append(raw))
        self._alter("ALTER TABLE {} SET (autovacuum_enabled = false)")  # its visits would be counted too

    def of(self, action: Callable[[], object]) -> Counts:
        before = self._now()
        action()
        found = self._now()
        found.subtract(before)
        return Counter({name: count for name, count in found.items() if count})

    def close(self) -> None:
        self._alter("ALTER TABLE {} RESET (autovacuum_enabled)")
        self._admin.close()

    def _alter(self, statement: LiteralString) -> None:
        # A partitioned table has no pages of its own, and takes no such setting.
        tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND oid IN (SELECT relid FROM pg_stat_user_tables)"
        for (name,) in self._admin.execute(tables).fetchall():
            self._admin.execute(sql.SQL(statement).format(sql.Identifier(name)))

    def _now(self) -> Counts:
        for raw in self._sessions:
            if not raw.closed:
                raw.execute("SELECT pg_stat_force_next_flush()")
        rows = self._admin.execute(
            "SELECT relname, heap_blks_read + heap_blks_hit + coalesce(toast_blks_read + toast_blks_hit, 0)"
            " FROM pg_statio_user_tables UNION ALL"
            " SELECT indexrelname, idx_blks_read + idx_blks_hit FROM pg_statio_user_indexes"
        ).fetchall()
        found: Counts = Counter({str(name): int(count or 0) for name, count in rows})
        found[PAGES] = sum(found.values())
        return found


class PagesOfMariadb:
    """Pages that InnoDB looked up in its buffers, by the server's own counter. A page is counted each time.

    The server deletes dead rows by itself soon after: it is waited for until it touches nothing more, and counts too.
    """

    def __init__(self, url: str) -> None:
        at = make_url(url)
        self._admin = pymysql.connect(
            host=at.host, port=at.port or 3306, user=at.username, password=at.password or "", autocommit=True
        )

    def of(self, action: Callable[[], object]) -> Counts:
        before = self._when_still()
        action()
        return Counter({PAGES: self._when_still() - before})

    def close(self) -> None:
        self._admin.close()

    def _when_still(self) -> int:
        ends_at = time.monotonic() + STILL_MAX_S
        seen, count = -1, self._now()
        while seen != count:
            if time.monotonic() > ends_at:
                raise AssertionError(f"MariaDB went on touching pages for {STILL_MAX_S:g} s")
            time.sleep(STILL_S)
            seen, count = count, self._now()
        return count

    def _now(self) -> int:
        with self._admin.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'")
            (_name, count) = cursor.fetchone() or ("", 0)
        return int(count)


class PagesOfSqlite:
    """Different pages of the file that a connection reads which remembers none, and the steps of SQLite's machine.

    With no page in memory each one that is needed is read once, by one call of the system, which Linux counts for the
    process. Elsewhere only the steps are counted: the turns of the virtual machine's loops, by its progress handler.
    """

    def __init__(self, driver: SQLAlchemyDriver) -> None:
        self._raws: list[sqlite3.Connection] = []
        self._steps = 0
        self._page_bytes = 4096
        event.listen(driver._connections.engine, "connect", self._connected)

    def of(self, action: Callable[[], object]) -> Counts:
        for raw in self._raws:
            with suppress(sqlite3.ProgrammingError):  # closed
                raw.execute("PRAGMA shrink_memory")
        self._steps = 0
        before = _bytes_read()
        action()
        counts: Counts = Counter({STEPS: self._steps})
        if IO.exists():
            # What reading the figure itself costs is less than a page.
            counts[PAGES] = (_bytes_read() - before) // self._page_bytes
        return counts

    def close(self) -> None:
        pass  # the settings are those of the driver's connections

    def _connected(self, raw: sqlite3.Connection, _record: object) -> None:
        # No pages by the memory's map, which no call fetches; nor any moved from the log to the file by a commit.
        raw.execute("PRAGMA mmap_size = 0").fetchall()
        raw.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        self._page_bytes = raw.execute("PRAGMA page_size").fetchone()[0]
        raw.set_progress_handler(self._step, 1)
        self._raws.append(raw)

    def _step(self) -> int:
        self._steps += 1
        return 0


class CommandsOfValkey:
    """Commands that the server ran, those of a script included."""

    def __init__(self, url: str) -> None:
        self._admin = redis.Redis.from_url(url, socket_timeout=30)

    def of(self, action: Callable[[], object]) -> Counts:
        self._admin.config_resetstat()
        action()
        told = self._admin.info("commandstats")
        found: Counts = Counter({str(name).removeprefix("cmdstat_"): int(one["calls"]) for name, one in told.items()})
        for own in ("info", "config|resetstat", "config"):
            found.pop(own, None)
        found[COMMANDS] = sum(found.values())
        return found

    def close(self) -> None:
        self._admin.close()


def _bytes_read() -> int:
    if not IO.exists():
        return 0
    return int(IO.read_text().split(maxsplit=2)[1])
