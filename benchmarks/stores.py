"""Servers for one run, and an empty store on them for each measurement."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import servers

if TYPE_CHECKING:
    import redis

__all__ = ["KINDS", "empty", "rest", "running", "servers"]

KINDS = ("memory", "sqlite", "postgresql", "mariadb", "valkey")
REWRITE_S = 60.0  # for a log of a million pushes it is a few


@contextlib.contextmanager
def running(kinds: Sequence[str], *, is_durable: bool) -> Iterator[dict[str, str]]:
    """The URL of a server for each kind that needs one; durable: a write that is acknowledged is on disk."""
    with contextlib.ExitStack() as stack:
        yield {
            kind: stack.enter_context(servers.started(kind, is_durable=is_durable)).url
            for kind in kinds
            if kind in servers.KINDS
        }


@contextlib.contextmanager
def empty(kind: str, server: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if kind == "memory":
        yield "memory://benchmark"
    elif kind == "sqlite":
        yield f"sqlite:///{folder / 'jobs.db'}"
    elif kind == "valkey":
        _flush(server)
        yield server
        _flush(server)
    else:
        name = servers.database_name("benchmark")
        url = servers.create_database(server, name)
        try:
            yield url
        finally:
            servers.drop_database(server, name)


def rest(kind: str, url: str) -> None:
    """What the server does by itself within a minute, in a database that lives longer than a benchmark."""
    if kind == "postgresql":
        servers.execute(url, "ANALYZE", "CHECKPOINT")
    if kind == "valkey":
        import redis

        with contextlib.closing(redis.Redis.from_url(url, socket_timeout=30)) as client:
            servers.until(lambda: not _is_rewriting(client), "the log is still being rewritten", limit=REWRITE_S)


def _is_rewriting(client: redis.Redis) -> bool:
    told = client.info("persistence")
    return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])


def _flush(server: str) -> None:
    import redis

    with contextlib.closing(redis.Redis.from_url(server, socket_timeout=30)) as client:
        client.flushall()
