"""The stores that the conformance page is about: a new, empty one of each kind, on a real server, with its version."""

from __future__ import annotations

import contextlib
import importlib.util
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

import servers  # noqa: E402  after the path


@dataclass(frozen=True)
class Store:
    """One column of the matrix. `open` gives the URL of an empty store, and the version of what is behind it."""

    name: str
    driver: str
    open: Callable[[], AbstractContextManager[tuple[str, str]]]


@contextlib.contextmanager
def memory() -> Iterator[tuple[str, str]]:
    yield "memory://conformance", f"Python {sys.version.split()[0]}"


@contextlib.contextmanager
def sqlite() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="protojobs-conformance-") as folder:
        yield f"sqlite:///{Path(folder, 'jobs.db')}", sqlite3.sqlite_version


@contextlib.contextmanager
def database(kind: str, question: str) -> Iterator[tuple[str, str]]:
    """A database of its own on the chain's server."""
    with servers.running(kind) as server:
        name = servers.database_name("conformance")
        url = servers.create_database(server, name)
        try:
            yield url, answer(url, question)
        finally:
            servers.drop_database(server, name)


def answer(url: str, question: str) -> str:
    """One value, asked of the server itself, without what its builder added."""
    from sqlalchemy import create_engine, text

    from protojobs_sqlalchemy.connecting.urls import parse

    engine = create_engine(parse(url))
    try:
        with engine.connect() as connection:
            return str(connection.execute(text(question)).scalar_one()).partition("-")[0].partition(" ")[0]
    finally:
        engine.dispose()


@contextlib.contextmanager
def valkey() -> Iterator[tuple[str, str]]:
    with servers.running("valkey") as server:
        url = f"{server.rstrip('/')}/7"
        yield url, valkey_version(url)


@contextlib.contextmanager
def valkey_cluster() -> Iterator[tuple[str, str]]:
    """Three primaries, as the driver's own tests start them."""
    spec = importlib.util.spec_from_file_location("redis_conftest", ROOT / "drivers/redis/tests/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    with recipe.running_cluster() as urls:
        yield urls[-1], f"{valkey_version(urls[-1])}, three nodes"


def valkey_version(url: str) -> str:
    import redis

    with contextlib.closing(redis.Redis.from_url(url)) as client:
        info = client.info("server")
    return str(info.get("valkey_version") or f"Redis {info['redis_version']}")


STORES = (
    Store("memory", "protojobs-memory", memory),
    Store("SQLite", "protojobs-sqlalchemy", sqlite),
    Store("PostgreSQL", "protojobs-sqlalchemy", lambda: database("postgresql", "show server_version")),
    Store("MariaDB", "protojobs-sqlalchemy", lambda: database("mariadb", "select version()")),
    Store("Valkey", "protojobs-redis", valkey),
    Store("Valkey Cluster", "protojobs-redis", valkey_cluster),
)

# Promised or likely to work, and not to be had where this page is made.
NOT_RUN = (
    ("MySQL 8", "protojobs-sqlalchemy", "mysql"),
    ("PostgreSQL 16", "protojobs-sqlalchemy", "postgresql"),
    ("PostgreSQL 17", "protojobs-sqlalchemy", "postgresql"),
    ("Redis 7.2", "protojobs-redis", "redis"),
    ("Redis 8", "protojobs-redis", "redis"),
    ("Valkey 8", "protojobs-redis", "valkey"),
)
