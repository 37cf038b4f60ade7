"""What it costs the claims that finished jobs are being pruned: counted, and beside that as a rate."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import bounds
from bounds import Finding
from filling import Backlog, fill
from protojobs import JobQueue, create_driver, job
from protojobs.port.driver import Store
from protojobs.port.records import ClaimedJob
from protojobs.worker.lease import maintenance
from shapes import BATCH, ROUNDS, Bench, metered, opened
from touched import PAGES, STEPS, Counts, Meter

SLOWED = 1.1  # "at most 10 %"
PRUNED = 1_000  # jobs in one call, as a worker's upkeep does
DAY_S, YEAR_H = 86_400.0, 8_760.0
JOBS = 20_000  # of each window: many times as long as a prune, and the pause after it
OFTEN_S = 0.01
FEW = 5_000  # finished jobs: little more than what the prunes take
SITUATIONS = ("without", "while pruning")

Pair = tuple[Counts, Counts]

_moments: list[float] = []


@job(name="moment")
def moment() -> None:
    """Note when it ran."""
    _moments.append(time.perf_counter())


def measured(store: str, server: str, folder: Path, finished: int, pairs: int) -> Iterator[Finding]:
    """Pages of a prune, few jobs and many to choose from; of a turn after one; and what a worker does that prunes."""
    due = (2 * ROUNDS + 2) * BATCH  # what the turns take: none is left for the worker, who does not know them
    counts: list[tuple[Pair, Counts]] = []
    told: list[Finding] = []
    for rows in (FEW, finished):
        with opened(store, server, folder, [Backlog(rows, is_finished=True), Backlog(due)]) as (driver, url):
            with metered(driver, url) as meter:
                counts.append(_counted(driver, meter))
            if rows == finished:
                told += _rates(store, create_driver(url), pairs)
    among = (f"among {FEW:,}", f"among {finished:,}")
    # PostgreSQL looks each one up by its id, through a level more each time.
    more = bounds.levels_more(store, finished / FEW) * PRUNED if store == "postgresql" else 0
    yield from _compared(store, "prune of 1,000", (counts[0][1], counts[1][1]), (bounds.GROWTH, more), among)
    yield from _compared(store, "settle and claim", counts[1][0], (SLOWED, 0), SITUATIONS)
    yield from told


def _counted(driver: Store, meter: Meter) -> tuple[Pair, Counts]:
    """A turn without a prune before it, one with; and the prune."""
    bench = Bench(driver, ["default"])
    held: list[ClaimedJob] = []
    turns: Pair = (Counter(), Counter())
    prunes: Counts = Counter()

    def turn() -> None:
        held[:] = bench.turn(held)

    def prune() -> None:
        pruned = driver.prune(completed_older_than=DAY_S, limit=PRUNED)
        assert pruned.completed == PRUNED, "there was less to prune than was filled in"

    for round_ in range(2 * ROUNDS + 2):
        counts = meter.of(prune) if round_ % 2 else Counter[str]()
        if round_ > 1:  # the first of each does not count: connections open, statements are planned
            prunes.update(counts)
        counts = meter.of(turn)
        if round_ > 1:
            turns[round_ % 2].update(counts)
    return turns, prunes


def _compared(
    store: str, verb: str, pair: Pair, allowed: tuple[float, int], situations: tuple[str, str]
) -> Iterator[Finding]:
    places = {name: (pair[0][name] / ROUNDS, pair[1][name] / ROUNDS) for name in pair[0] | pair[1]}
    for what in (PAGES, STEPS):
        if both := places.pop(what, None):
            yield Finding(store, "retention", verb, what, *both, allowed[0] * both[0] + allowed[1], situations, places)


def _rates(store: str, driver: Store, pairs: int) -> Iterator[Finding]:
    """A worker's jobs a second in windows of both kinds by turns, and how many jobs it pruned for each that it ran.

    By a driver that no meter knows; it is closed in the end.
    """
    usual = maintenance.PRUNE_EVERY_S
    windows: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    shares: list[float] = []
    try:
        for at in range(2 * pairs + 2):
            is_pruning = at % 2
            fill(driver, Backlog(JOBS, job_name="moment"))
            before = driver.stats("default").completed
            maintenance.PRUNE_EVERY_S = OFTEN_S if is_pruning else usual
            window = _window(driver, 24.0 if is_pruning else YEAR_H)
            if at > 1:  # the first two warm up
                windows[is_pruning].append(window)
            if at > 1 and is_pruning:
                shares.append((before + JOBS - driver.stats("default").completed) / JOBS)
    finally:
        maintenance.PRUNE_EVERY_S = usual
        driver.close()
    for place, what in enumerate(("jobs/s", "CPU us/job")):
        yield _told(store, what, *(statistics.median(window[place] for window in kind) for kind in windows))
    yield _told(store, "pruned/job", 0.0, statistics.median(shares))


def _window(driver: Store, retention_h: float) -> tuple[float, float]:
    """Jobs a second, and microseconds of processor time that a job took this process: on SQLite that is all of it."""
    _moments.clear()
    queue = JobQueue(driver, {"concurrency": 8, "completed_job_retention": retention_h})
    began = time.process_time()
    queue.work(max_jobs=JOBS)
    spent = time.process_time() - began
    return (len(_moments) - 1) / (_moments[-1] - _moments[0]), spent / JOBS * 1e6


def _told(store: str, what: str, without: float, during: float) -> Finding:
    return Finding(store, "retention", "worker", what, without, during, None, SITUATIONS, {})
