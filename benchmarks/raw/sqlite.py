"""sqlite3 of the standard library: WAL, a local file; a push is on disk when it returns (synchronous FULL)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import subjects

PUT = "INSERT INTO job (body) VALUES (?)"
TAKE = """
UPDATE job SET taken_at = julianday()
WHERE id IN (SELECT id FROM job WHERE taken_at IS NULL ORDER BY id LIMIT ?) RETURNING id, body
"""


class Sqlite:
    """A `Store` in a file."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._synchronous = synchronous

    def setup(self) -> None:
        self._db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, body TEXT NOT NULL, taken_at REAL)")
        self._db.execute("CREATE INDEX job_waiting ON job (id) WHERE taken_at IS NULL")
        self._db.execute("PRAGMA synchronous = FULL")  # of the pushing connection; the worker's begins without

    def put(self, body: str) -> None:
        self._db.execute(PUT, (body,))

    def put_many(self, bodies: Sequence[str]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(PUT, ((body,) for body in bodies))
        self._db.execute("COMMIT")

    def left(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM job").fetchone()[0])

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        self._begin()
        jobs = self._db.execute(TAKE, (limit,)).fetchall()
        self._db.execute("COMMIT")
        return jobs

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        self._begin()
        self._db.executemany("DELETE FROM job WHERE id = ?", [(key,) for key, _ in jobs])
        self._db.execute("COMMIT")

    def wait(self) -> None:
        time.sleep(subjects.IDLE_S)

    def _begin(self) -> None:
        if self._synchronous:
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._synchronous = ""  # said once: only a worker takes and forgets, and that is all it does
        self._db.execute("BEGIN IMMEDIATE")


def open_store(url: str, synchronous: str) -> Sqlite:
    """`synchronous` is that of taking and forgetting."""
    return Sqlite(url.removeprefix("sqlite:///"), synchronous)
