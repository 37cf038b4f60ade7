"""PyMySQL, READ COMMITTED: InnoDB's gap locks would make two workers wait for each other.

The primary key is forced on the server: on a table of few rows it would read all, and wait for the other worker's. What
deadlocks are left are tried again, as every client of InnoDB has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import pymysql

import servers
import subjects

T = TypeVar("T")

PUT = "INSERT INTO job (body) VALUES (%s)"
TAKE = "SELECT id, body FROM job WHERE is_taken = 0 ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
MARK = "UPDATE job FORCE INDEX (PRIMARY) SET is_taken = 1 WHERE id IN %s"
FORGET = "DELETE job FROM job FORCE INDEX (PRIMARY) WHERE id IN %s"
DEADLOCK = 1213


class Mariadb:
    """A `Store`; a multi-row INSERT for many, which PyMySQL makes of `executemany`."""

    def __init__(self, url: str) -> None:
        where = servers.mysql_arguments(url) | {"database": urlsplit(url).path.lstrip("/")}
        self._db = pymysql.connect(**where, autocommit=True)
        self._cursor = self._db.cursor()
        self._cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def setup(self) -> None:
        self._cursor.execute(
            "CREATE TABLE job (id bigint AUTO_INCREMENT PRIMARY KEY, body varchar(200) NOT NULL,"
            " is_taken tinyint NOT NULL DEFAULT 0, KEY waiting (is_taken, id))"
        )

    def put(self, body: str) -> None:
        self._cursor.execute(PUT, (body,))

    def put_many(self, bodies: Sequence[str]) -> None:
        self._db.begin()
        self._cursor.executemany(PUT, [(body,) for body in bodies])
        self._db.commit()

    def left(self) -> int:
        self._cursor.execute("SELECT count(*) FROM job")
        found = self._cursor.fetchone()
        return int(found[0]) if found else 0

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        return self._again(lambda: self._take(limit))

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        self._again(lambda: self._cursor.execute(FORGET, ([key for key, _ in jobs],)))

    def wait(self) -> None:
        time.sleep(subjects.IDLE_S)

    def _take(self, limit: int) -> Sequence[tuple[int, str]]:
        self._db.begin()
        self._cursor.execute(TAKE, (limit,))
        jobs = list(self._cursor.fetchall())
        if jobs:
            self._cursor.execute(MARK, ([key for key, _ in jobs],))
        self._db.commit()
        return jobs

    @staticmethod
    def _again(statement: Callable[[], T]) -> T:
        while True:
            try:
                return statement()
            except pymysql.err.OperationalError as error:
                if error.args[0] != DEADLOCK:  # which has rolled back, and is over
                    raise


def open_store(url: str, synchronous: str) -> Mariadb:
    """`synchronous` is SQLite's affair: here each commit is on disk."""
    return Mariadb(url)
