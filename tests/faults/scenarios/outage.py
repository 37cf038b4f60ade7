"""The store is away for three leases, twice: killed, then frozen (SQLite: locked by another process, both times).

Two workers with long jobs in hand, and a producer. Nobody leaves, no job runs twice, `push` answers in time, and new
jobs start within seconds of the return. `--minutes` is the length of each outage.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from urllib.parse import urlsplit

from ..crew import Crew, wait_for
from ..figures import summed_up
from ..history import Journal
from ..jobs import Plan, act, act_async
from ..proxy import Mode, Proxy
from ..stage import Report, Stage

MINUTES = 1.0
LEASES = 3
WORKERS = 2
LONG_JOBS = 6  # begun before the outage, and not done until it is over
DUE_JOBS = 40  # become due during the outage: the first new starts after it
JOBS_A_SECOND = 20
PUSH_TIMEOUT_S = 5.0
PUSH_WITHIN_S = PUSH_TIMEOUT_S + 1
START_WITHIN_S = 5.0
STOP_S = 30.0
DRAIN_S = 60.0


def run(stage: Stage) -> Report:
    """See above."""
    outage_s = 60 * (stage.minutes or MINUTES)
    crew = Crew(stage.folder, lease_s=outage_s / LEASES)
    with contextlib.ExitStack() as stack:
        stack.callback(crew.dismiss)
        proxy = None
        if stage.kind != "sqlite" and stage.server is None:  # somebody's: not ours to hurt
            parts = urlsplit(stage.url)
            proxy = stack.enter_context(Proxy(parts.hostname or "localhost", parts.port or 0))
        story = _Story(stage, crew, proxy.url(stage.url) if proxy else stage.url)
        for how, away in _outages(stage, proxy):
            story.sit_out(how, away, outage_s)
        return story.ended()


def _outages(stage: Stage, proxy: Proxy | None) -> list[tuple[str, Callable[[], AbstractContextManager[None]]]]:
    if stage.server is not None:
        return [("killed", stage.server.down), ("frozen", lambda: _frozen(stage))]
    if proxy is not None:
        return [("refused", lambda: _cut_off(proxy, "refuse")), ("black hole", lambda: _cut_off(proxy, "black hole"))]
    return [("locked", lambda: _locked(stage)), ("locked again", lambda: _locked(stage))]


@contextlib.contextmanager
def _frozen(stage: Stage) -> Iterator[None]:
    assert stage.server is not None
    stage.server.freeze()
    try:
        yield
    finally:
        stage.server.thaw()


@contextlib.contextmanager
def _cut_off(proxy: Proxy, mode: Mode) -> Iterator[None]:
    proxy.mode = mode
    try:
        yield
    finally:
        proxy.mode = "pass"


@contextlib.contextmanager
def _locked(stage: Stage) -> Iterator[None]:
    path = stage.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


class _Story:
    """What happens in each of the outages, and what is counted."""

    def __init__(self, stage: Stage, crew: Crew, url: str) -> None:
        self._stage, self._crew, self._url = stage, crew, url
        self._journal = Journal(stage.folder, name="scenario")
        self._count = 0
        self._figures: dict[str, object] = {}
        self._complaints: list[str] = []
        for _ in range(WORKERS):
            crew.hire(url)
        wait_for("the workers", lambda: len(crew.ready) == WORKERS, 30)

    def sit_out(self, how: str, away: Callable[[], AbstractContextManager[None]], outage_s: float) -> None:
        """One outage."""
        crew = self._crew
        long_jobs = self._push([Plan(outage_s + 6)] * LONG_JOBS)
        wait_for("the long jobs", lambda: long_jobs <= {entry["id"] for entry in crew.entries("start")}, 30)
        count = round(JOBS_A_SECOND * (outage_s + 4))
        crew.produce(self._url, count=count, rate=JOBS_A_SECOND, calm=1, push_timeout=PUSH_TIMEOUT_S, seed=self._count)
        self._count += count
        producer = crew.producers[-1].name
        wait_for("the producer", lambda: (self._stage.folder / f"{producer}.log").exists(), 10)
        pushed = len(crew.entries("acknowledged"))
        wait_for("its jobs", lambda: len(crew.entries("acknowledged")) > pushed + JOBS_A_SECOND, 30)
        due = self._push([Plan(0.05)] * DUE_JOBS, delay=1.0)
        began = time.monotonic()
        with away():
            self._stage.say(how)
            time.sleep(outage_s)  # the outage itself
        returned = time.monotonic()
        crew.note("outage", began)

        def new_start() -> float | None:
            starts = [entry for entry in crew.entries("start") if entry["id"] in due]
            return min((float(str(entry["at"])) for entry in starts), default=None)

        try:
            wait_for("a new start", lambda: new_start() is not None, 4 * START_WITHIN_S)
            took_s = max(0.0, (new_start() or 0.0) - returned)
            self._figures[f"{how}: new start after s"] = round(took_s, 2)
            if took_s > START_WITHIN_S:
                self._complaints.append(f"{how}: the first new job began {took_s:.1f} s after the return")
        except TimeoutError as error:
            self._complaints.append(f"{how}: {error}")
        told = [entry for entry in crew.entries("worker.degraded") if began < float(str(entry["at"])) < returned + 10]
        self._figures[f"{how}: degraded told"] = len(told)
        if len(told) != WORKERS:
            self._complaints.append(f"{how}: {WORKERS} workers told {len(told)} times that they were degraded")
        wait_for("the long jobs", lambda: long_jobs <= {entry["id"] for entry in crew.entries("finish")}, 60)

    def ended(self) -> Report:
        """All has been done: judge and count."""
        crew = self._crew
        left = len(crew.left)
        report = summed_up(self._stage, crew, self._count, drain_s=DRAIN_S)
        for member in crew.at_work:
            crew.stop(member, within_s=STOP_S)
        took = [float(str(entry["took_s"])) for entry in crew.entries("acknowledged", "refused")]
        again = len(crew.entries("start")) - len({entry["id"] for entry in crew.entries("start")})
        report.figures |= {
            "second runs": again,
            "workers that left": left,
            "pushes refused": len(crew.entries("refused")),
        }
        report.figures |= {"slowest answer of push in s": round(max(took), 2)} | self._figures
        report.complaints += self._complaints
        if left:
            report.complaints.append(f"{left} workers left")
        if again:
            report.complaints.append(f"{again} runs were second ones")
        if max(took) > PUSH_WITHIN_S:
            report.complaints.append(f"push answered after {max(took):.1f} s, with a push_timeout of {PUSH_TIMEOUT_S}")
        return report

    def _push(self, plans: list[Plan], delay: float = 0.0) -> set[object]:
        ids = [str(uuid.UUID(int=self._stage.dice.getrandbits(128), version=4)) for _ in plans]
        self._journal.write("pushing", jobs=[(job, delay, False) for job in ids])
        with self._stage.queue() as queue:
            for number, (job, plan) in enumerate(zip(ids, plans, strict=True)):
                kind, began = act_async if number % 2 else act, time.monotonic()
                queue.later(delay, kind.bind(plan), id=job)
                self._journal.write("acknowledged", id=job, took_s=time.monotonic() - began)
        self._count += len(plans)
        return set(ids)
