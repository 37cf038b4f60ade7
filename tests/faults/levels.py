"""Whether what a worker takes stays level: memory, threads, descriptors, children; and the connections of the store.

Read from /proc while the run goes on. Judged by medians: those of the second quarter of the run, when all kinds of job
have run, against those of the last.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Levels", "connections_of", "process_of"]

MIB = 1024 * 1024
# What may be more at the end: a pool that had not been full, a child that was not at work.
ALLOWED = {"memory in MiB": 24.0, "threads": 6.0, "descriptors": 12.0, "children": 6.0, "connections": 8.0}
ALLOWED_SHARE = 0.1


@dataclass
class Levels:
    """Samples of one thing that should stay level."""

    what: str
    look: Callable[[], Mapping[str, float]]
    every_s: float
    began: float = field(default_factory=time.monotonic)
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _due: float = 0.0

    def sample(self) -> None:
        """Look, if it is time for it. Nothing where the thing is away just now."""
        if (now := time.monotonic()) < self._due:
            return
        self._due = now + self.every_s
        for name, value in self.look().items():
            self.samples.setdefault(name, []).append((now, value))

    def figures(self) -> dict[str, object]:
        """Medians: early, and at the end."""
        return {
            f"{self.what}: {name}": f"{early:,.0f} -> {late:,.0f}" for name, (early, late) in self._medians().items()
        }

    def complaints(self) -> list[str]:
        """What has grown."""
        return [
            f"{self.what}: {name} rose from {early:,.1f} to {late:,.1f}"
            for name, (early, late) in self._medians().items()
            if late > early * (1 + ALLOWED_SHARE) + ALLOWED[name]
        ]

    def _medians(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        for name, samples in self.samples.items():
            ends = samples[-1][0]
            length = ends - self.began
            early = [value for at, value in samples if 0.25 <= (at - self.began) / length <= 0.5]
            late = [value for at, value in samples if (at - self.began) / length >= 0.75]
            if early and late:
                found[name] = (statistics.median(early), statistics.median(late))
        return found


def process_of(pid: int) -> Callable[[], Mapping[str, float]]:
    """What this process takes itself, without its children."""

    def look() -> Mapping[str, float]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = sum(len((task / "children").read_text().split()) for task in tasks if task.exists())
            return {
                "memory in MiB": int(status["RssAnon"].split()[0]) * 1024 / MIB,
                "threads": float(status["Threads"]),
                "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
                "children": float(children),
            }
        return {}

    return look


def connections_of(kind: str, url: str) -> Callable[[], Mapping[str, float]]:
    """How many connections the server has on this database; for SQLite nothing, its files are descriptors."""

    def look() -> Mapping[str, float]:
        count = {"postgresql": _of_postgresql, "mariadb": _of_mariadb, "valkey": _of_valkey}.get(kind)
        if count is not None:
            with contextlib.suppress(Exception):  # the server may be down just now
                return {"connections": float(count(url))}
        return {}

    return look


def _of_postgresql(url: str) -> int:
    import psycopg
    from sqlalchemy import make_url

    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, connect_timeout=2) as connection:
        row = connection.execute("select count(*) from pg_stat_activity where datname = current_database()").fetchone()
        return int(row[0]) if row else 0


def _of_mariadb(url: str) -> int:
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(make_url(url).set(drivername="mysql+pymysql"), poolclass=NullPool)
    with engine.connect() as connection:
        statement = text("select count(*) from information_schema.processlist where db = database()")
        return int(connection.execute(statement).scalar_one())


def _of_valkey(url: str) -> int:
    import redis

    with redis.Redis.from_url(url.partition("?")[0], socket_timeout=2) as client:
        return int(client.info("clients")["connected_clients"])
