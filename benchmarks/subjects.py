"""What is measured: protojobs, and beside it the limit, a loop written by hand on the bare client.

A limit gives what a queue for long jobs has to give and nothing more: a push is stored when it returns, a batch is
marked as taken in the store before it runs, and deleted after it has run. So a worker that dies loses nothing. Taking
over the jobs of the dead is left out (it costs nothing while nobody dies), and so are retries, timeouts, priorities,
delays, several queues and hooks.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import counted

OURS = "protojobs"
BATCH = 100  # jobs that a limit takes at once; more is hardly faster, and more to run again after a crash
BULK = 1_000  # jobs in one transaction, or one pipeline, when a limit pushes in bulk
IDLE_S = 0.001  # between two looks of a limit that can only poll
NOOP = "noop"


class Subject(Protocol):
    """What a measurement asks of protojobs and of a limit alike."""

    def setup(self) -> None:
        """Make what an empty store needs."""
        ...

    def push(self) -> None:
        """Store one no-op job; it is durable when this returns."""
        ...

    def push_stamp(self, sent_ns: int) -> None:
        """Store one job that notes when it was pushed and when it started."""
        ...

    def push_many(self, count: int) -> None:
        """Store no-op jobs in bulk."""
        ...

    def left(self) -> int:
        """Jobs that the store still holds as unfinished."""
        ...

    def work(self, over: threading.Event) -> None:
        """Work jobs in this process until it is over."""
        ...


class Store(Protocol):
    """A store as a limit uses it. A job is a key, by which it is forgotten, and its body."""

    def setup(self) -> None:
        """Make what an empty store needs."""
        ...

    def put(self, body: str) -> None:
        """Store one job, durably."""
        ...

    def put_many(self, bodies: Sequence[str]) -> None:
        """Store these, the fastest way there is; durable when this returns."""
        ...

    def left(self) -> int:
        """Jobs waiting or taken."""
        ...

    def take(self, limit: int) -> Sequence[tuple[int, str]]:
        """Mark the oldest as taken, durably, and answer them."""
        ...

    def forget(self, jobs: Sequence[tuple[int, str]]) -> None:
        """Delete these: they have run."""
        ...

    def wait(self) -> None:
        """Nothing was there: wait for more, a second at most."""
        ...


@dataclass(frozen=True)
class Limit:
    """A limit by name: on which kinds of store it is measured, in which workloads, and how it differs from `raw`."""

    name: str
    batch: int = BATCH
    synchronous: str = "NORMAL"  # SQLite's, of taking and forgetting; a push is always FULL
    kinds: tuple[str, ...] = ()  # () = all
    workloads: tuple[str, ...] = ()  # () = all


LIMITS = (
    Limit("raw"),
    Limit("raw-full", synchronous="FULL", kinds=("sqlite",), workloads=("drain1", "drain2")),
    Limit("raw-single", batch=1, kinds=("mariadb",), workloads=("drain1", "drain2")),
)


def limits_of(kind: str, workload: str) -> list[Limit]:
    """What protojobs is measured against on this kind of store."""
    return [
        limit for limit in LIMITS if kind in (limit.kinds or (kind,)) and workload in (limit.workloads or (workload,))
    ]


def open_subject(name: str, kind: str, url: str) -> Subject:
    """Connect to the store as protojobs, or as one of the limits."""
    if name == OURS:
        ours: Subject = importlib.import_module("ours").Ours(url)
        return ours
    limit = next(limit for limit in LIMITS if limit.name == name)
    return Raw(importlib.import_module(f"raw.{kind}").open_store(url, limit.synchronous), limit.batch)


class Raw:
    """The loop, the same on each store."""

    def __init__(self, store: Store, batch: int) -> None:
        self._store = store
        self._batch = batch
        self.setup, self.left = store.setup, store.left

    def push(self) -> None:
        self._store.put(NOOP)

    def push_stamp(self, sent_ns: int) -> None:
        self._store.put(f"stamp {sent_ns}")

    def push_many(self, count: int) -> None:
        for size in _chunks(count):
            self._store.put_many([NOOP] * size)

    def work(self, over: threading.Event) -> None:
        store = self._store
        while not over.is_set():
            jobs = store.take(self._batch)
            for _, body in jobs:
                perform(body)
            if jobs:
                store.forget(jobs)
            else:
                store.wait()


def perform(body: str) -> None:
    """Run one job of a limit."""
    if body == NOOP:
        counted.noop()
    else:
        counted.stamp(int(body.partition(" ")[2]))


def _chunks(total: int) -> Iterator[int]:
    for begun in range(0, total, BULK):
        yield min(BULK, total - begun)
