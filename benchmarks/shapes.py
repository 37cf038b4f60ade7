"""How jobs may lie in a store: one long line, behind a million that are not due, in two hundred queues."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import stores
from filling import Backlog, fill
from protojobs import create_driver
from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from touched import CommandsOfValkey, Counts, Meter, PagesOfMariadb, PagesOfPostgresql, PagesOfSqlite

SMALL = 1_000  # jobs, of the smaller store
BATCH = 100
ROUNDS = 3
PER_ROUND = 4 * BATCH  # claimed in a round
SPARE = (ROUNDS + 1) * PER_ROUND  # with a first round that does not count: connections open, statements are planned
DAY_S = 86_400.0
LOOK_AGAIN_S = 2.0  # a driver may remember the lanes for a second of store time
TICK_S = 0.02  # from one turn to the next; more than the time that a turn takes before it looks at the clock
QUEUES = 200


@dataclass(frozen=True)
class Shape:
    """What lies in the store, for a depth; the worker asks for all of `queues`, in their order."""

    backlogs: Callable[[int], list[Backlog]]
    queues: Sequence[str] = ("default",)


def _pending(rows: int) -> list[Backlog]:
    """One long line. So many are left in the end: the measurement takes the others."""
    return [Backlog(rows + SPARE)]


def _delayed(rows: int) -> list[Backlog]:
    """Not due: half of them in a better lane than the due ones, half behind these in their own."""
    half = rows // 2
    later = [Backlog(half, priority=10, delay=DAY_S), Backlog(rows - half, delay=DAY_S)]
    return [*later, Backlog(SMALL + SPARE)]


def _spread(rows: int) -> list[Backlog]:
    """Not due, over many queues; the due ones lie in one behind them all, so that each claim looks into each."""
    return [Backlog(rows, queue="q", queues=QUEUES, delay=DAY_S), Backlog(SMALL + SPARE, queue="z")]


SHAPES = {
    "pending": Shape(_pending),
    "delayed": Shape(_delayed),
    "queues": Shape(_spread, [*Backlog(0, "q", QUEUES).names, "z"]),
}


class Bench:
    """A worker's hands on a store whose clock moves from turn to turn, and not by itself."""

    def __init__(self, driver: Store, queues: Sequence[str]) -> None:
        self.driver = driver
        self._queues = queues
        self._began = time.monotonic()
        self._offset = 0.0
        worker = WorkerInfo(
            id=fresh_id(), host="bench", pid=1, queues=tuple(queues), concurrency=BATCH, lease_s=3_600.0
        )
        self._worker = worker.id
        driver.register(worker)

    def forget_lanes(self) -> None:
        """The next claim must look which lanes there are; those after it need not, however slow this machine is."""
        self._offset += LOOK_AGAIN_S

    def turn(self, done: Sequence[ClaimedJob] = (), *, limit: int = BATCH) -> list[ClaimedJob]:
        """Settle these, and claim more."""
        self._offset += TICK_S
        self.driver.time_offset = self._offset - (time.monotonic() - self._began)  # type: ignore[attr-defined]
        settlements = [
            Settlement(id=one.id, claim_seq=one.claim_seq, reserved_by=one.reserved_by, verb=Verb.COMPLETE)
            for one in done
        ]
        reply = self.driver.settle_and_claim(self._worker, settlements, self._queues, slots=BATCH, limit=limit)
        assert all(one.status == "applied" for one in reply.settled), "a settlement was refused"
        if len(reply.claimed) != limit:
            raise AssertionError(f"claimed {len(reply.claimed)} of {limit}: the store is not as it should be")
        return list(reply.claimed)


@contextlib.contextmanager
def opened(store: str, server: str, folder: Path, backlogs: Sequence[Backlog]) -> Iterator[tuple[Store, str]]:
    """A driver on a new store with these jobs, and the store's URL."""
    place = Path(tempfile.mkdtemp(dir=folder))
    with stores.empty(store, server, place) as url:
        driver = create_driver(url)
        driver.setup()
        for backlog in backlogs:
            fill(driver, backlog)
        driver.close()  # a meter counts what goes over connections that it has seen opening
        try:
            yield driver, url
        finally:
            driver.close()


@contextlib.contextmanager
def metered(driver: Store, url: str) -> Iterator[Meter]:
    """What counts what the driver touches from now on."""
    meter: Meter
    if not isinstance(driver, SQLAlchemyDriver):
        meter = CommandsOfValkey(url)
    elif driver.engine.dialect.name == "sqlite":
        meter = PagesOfSqlite(driver)
    elif driver.engine.dialect.name == "postgresql":
        meter = PagesOfPostgresql(driver, url)
    else:
        meter = PagesOfMariadb(url)
    try:
        yield meter
    finally:
        meter.close()


def measured(name: str, store: str, server: str, folder: Path, depth: int) -> dict[str, Counts]:
    """What each verb touches at this depth, for 100 jobs; the sum over the rounds."""
    shape = SHAPES[name]
    with opened(store, server, folder, shape.backlogs(depth)) as (driver, url), metered(driver, url) as meter:
        return rounds(Bench(driver, shape.queues), meter)


def rounds(bench: Bench, meter: Meter) -> dict[str, Counts]:
    """What each verb touches for 100 jobs; the sum over the rounds, without a first one."""
    found: dict[str, Counts] = {}
    for round_ in range(ROUNDS + 1):
        for verb, counts in _round(bench, meter):
            if round_:
                found.setdefault(verb, Counter()).update(counts)
    return found


def _round(bench: Bench, meter: Meter) -> Iterator[tuple[str, Counts]]:
    held: list[ClaimedJob] = []

    def claim() -> None:
        held.extend(bench.turn())

    def settle() -> None:
        bench.turn(held, limit=0)
        held.clear()

    def both() -> None:
        held[:] = bench.turn(held)

    bench.forget_lanes()
    yield "look and claim", meter.of(claim)
    yield "settle", meter.of(settle)
    yield "claim", meter.of(claim)
    yield "settle and claim", meter.of(both)
    settle()
