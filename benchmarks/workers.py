"""What one of a hundred workers touches in a store of ten thousand queues, and what it does beside an old snapshot.

The worker that is counted serves ten of the queues. The others are rows only: they were registered, they claimed, and
they send heartbeats, all by the driver's own verbs, but no process is behind them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pymysql
from sqlalchemy import make_url

from backlogs import held_open
from bounds import GROWTH, Finding
from filling import Backlog
from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.records import ClaimedJob, Fence, WorkerInfo
from shapes import BATCH, DAY_S, PER_ROUND, ROUNDS, SMALL, Bench, metered, opened, rounds
from touched import COMMANDS, PAGES, Counts, Meter

SERVED = [*Backlog(0, "later", 9).names, "due"]  # the due jobs lie in the last, so that a claim looks into each
HELD_EACH = 10  # jobs that each of the other workers holds
TURNS = 200  # beside the open transaction: 20,000 jobs
PRUNE_EVERY = 10  # turns
BEATS = 20  # of each worker beside the open transaction
MOST_FINISHED = 20_000
# A look from the front walks past all the dead, less often the longer that takes (docs/decisions/0020). Whole lists and
# sums have as many entries as there are queues. Both are told, and not judged.
LOOK, LISTS = "look and claim", ("stats of all", "list of queues")
# These look at each job that any worker holds, or go through what died since the transaction began.
BY_JOBS = ("reclaim of none", "stats of a queue", "jobs held")
DEAD = ("heartbeat", f"heartbeat, {BATCH} in progress", f"prune of {BATCH}")
SNAPSHOTS = ("postgresql", "mariadb")


@dataclass(frozen=True)
class Size:
    """How much lies in the store."""

    rows: int
    queues: int
    workers: int
    finished: int


LITTLE = Size(SMALL, 10, 2, SMALL)


def measured(store: str, server: str, folder: Path, rows: int) -> Iterator[Finding]:
    """Each verb with a thousand jobs, and with many; and with many beside a transaction that stays open."""
    much = Size(rows, 10_000, 100, MOST_FINISHED)
    with _laid_out(store, server, folder, LITTLE) as (few, _url):
        before = few.counts()
    with _laid_out(store, server, folder, much) as (many, url):
        after = many.counts()
        situations = (f"at {SMALL:,}", f"at {rows:,} of {much.queues:,} queues and {much.workers} workers")
        yield from _findings(store, before, after, situations, told=(*LISTS, *BY_JOBS))
        if store in SNAPSHOTS:
            with _snapshot(store, url):
                many.go_on()
                after = many.counts()
            situations = (situations[0], f"{situations[1]}, a transaction open for {TURNS * BATCH:,} more")
            yield from _findings(store, before, after, situations, told=(LOOK, *LISTS, *BY_JOBS, *DEAD))


class _Working:
    """A worker that is counted, among others that are there and send heartbeats."""

    def __init__(self, driver: Store, meter: Meter, size: Size) -> None:
        self._driver, self._meter = driver, meter
        self._bench = Bench(driver, SERVED)
        self._others = [self._other(at) for at in range(size.workers - 1)]
        self._complete(size.finished // BATCH)

    def counts(self) -> dict[str, Counts]:
        """What each verb touches; the sum over the rounds, without a first one."""
        found = rounds(self._bench, self._meter)
        held = self._bench.turn()
        progress = {Fence(id=j.id, claim_seq=j.claim_seq, reserved_by=j.reserved_by): 0.5 for j in held}
        worker = held[0].reserved_by
        verbs: dict[str, Callable[[], object]] = {
            "heartbeat": lambda: self._driver.heartbeat(worker, {}),
            f"heartbeat, {BATCH} in progress": lambda: self._driver.heartbeat(worker, progress),
            f"prune of {BATCH}": self._prune,
            "reclaim of none": lambda: self._driver.reclaim(BATCH),
            "jobs held": lambda: self._driver.held(worker),
            "stats of a queue": lambda: self._driver.stats("due"),
            LISTS[0]: self._driver.stats,
            LISTS[1]: self._driver.queues,
        }
        for round_ in range(ROUNDS + 1):
            for verb, action in verbs.items():
                counts = self._meter.of(action)
                if round_:
                    found.setdefault(verb, Counter()).update(counts)
        self._bench.turn(held, limit=0)
        return found

    def go_on(self) -> None:
        """Many turns, heartbeats and prunes, as within a minute of a busy store."""
        for _ in range(BEATS):
            for worker in self._others:
                self._driver.heartbeat(worker, {})
            self._complete(TURNS // BEATS)
            for _ in range(TURNS // BEATS // PRUNE_EVERY):
                self._prune()

    def _complete(self, turns: int) -> None:
        held: list[ClaimedJob] = []
        for _ in range(turns):
            held = self._bench.turn(held)
        self._bench.turn(held, limit=0)

    def _prune(self) -> None:
        pruned = self._driver.prune(completed_older_than=0.001, limit=BATCH)
        assert pruned.completed == BATCH, "there was less to prune than was completed"

    def _other(self, at: int) -> str:
        queue = f"mine{at % 10:04}"
        worker = WorkerInfo(
            id=fresh_id(), host="bench", pid=at, queues=(queue,), concurrency=HELD_EACH, lease_s=2 * DAY_S
        )
        self._driver.register(worker)
        lent = self._driver.claim(worker.id, [queue], slots=HELD_EACH, limit=HELD_EACH)
        assert len(lent) == HELD_EACH, "the store is not as it should be"
        return worker.id


@contextlib.contextmanager
def _laid_out(store: str, server: str, folder: Path, size: Size) -> Iterator[tuple[_Working, str]]:
    due = size.finished + (TURNS + 20) * BATCH + 3 * (ROUNDS + 1) * PER_ROUND
    backlogs = [
        Backlog(size.rows, "other", size.queues),
        Backlog(SMALL, "later", len(SERVED) - 1, delay=DAY_S),
        Backlog(due, "due"),
        Backlog(HELD_EACH * (size.workers + 10), "mine", 10),  # what the other workers hold is of these
    ]
    with opened(store, server, folder, backlogs) as (driver, url), metered(driver, url) as meter:
        yield _Working(driver, meter, size), url


@contextlib.contextmanager
def _snapshot(store: str, url: str) -> Iterator[None]:
    if store == "postgresql":
        with held_open(url):
            yield
        return
    at = make_url(url)
    raw = pymysql.connect(
        host=at.host, port=at.port or 3306, user=at.username, password=at.password or "", database=at.database
    )
    with contextlib.closing(raw), raw.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        yield
        cursor.execute("SELECT 1")  # it was not cut meanwhile


def _findings(
    store: str,
    before: dict[str, Counts],
    after: dict[str, Counts],
    situations: tuple[str, str],
    *,
    told: tuple[str, ...],
) -> Iterator[Finding]:
    for verb in before:
        places = {
            name: (before[verb][name] / ROUNDS, after[verb][name] / ROUNDS) for name in before[verb] | after[verb]
        }
        for what in (PAGES, COMMANDS):
            if pair := places.pop(what, None):
                # MariaDB's counter has in it what the server clears away, which comes when it likes.
                is_told = verb in told or store == "mariadb"
                bound = None if is_told else GROWTH * pair[0]
                yield Finding(store, "workers", verb, what, *pair, bound, situations, places)
