"""psycopg 3, statements prepared at once."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

import servers
import subjects

TAKE = """
UPDATE job SET taken_at = now() WHERE id IN (
    SELECT id FROM job WHERE taken_at IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING id, body
"""


class Postgresql:
    """A `Store`; each statement is a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(servers.plain(url), autocommit=True, connect_timeout=10)
        self._db.prepare_threshold = 0

    def setup(self) -> None:
        self._db.execute(
            "CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL,"
            " taken_at timestamptz)"
        )
        self._db.execute("CREATE INDEX job_waiting ON job (id) WHERE taken_at IS NULL")

    def put(self, body: str) -> None:
        self._db.execute("INSERT INTO job (body) VALUES (%s)", (body,))

    def put_many(self, bodies: Sequence[str]) -> None:
        with self._db.cursor().copy("COPY job (body) FROM STDIN") as copy:
            for body in bodies:
                copy.write_row((body,))

    def left(self) -> int:
        found = self._db.execute("SELECT count(*) FROM job").fetchone()
        return int(found[0]) if found else 0

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        return self._db.execute(TAKE, (limit,)).fetchall()

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        self._db.execute("DELETE FROM job WHERE id = ANY(%s)", ([key for key, _ in jobs],))

    def wait(self) -> None:
        time.sleep(subjects.IDLE_S)


def open_store(url: str, synchronous: str) -> Postgresql:
    """`synchronous` is SQLite's affair: here each commit is on disk."""
    return Postgresql(url)
