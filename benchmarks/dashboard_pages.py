"""`python3 dev.py scale --dashboard`: what each page of the dashboard asks of a store with 1,000 jobs, and a million.

The bounds: as many statements as PAGE_STATEMENTS, whatever lies in the store; no statement that reads the table `jobs`
from end to end; and TIMES the time of the small store. That last one is of one run on one machine, medians against
medians, and generous: what it is to find is a page that grows with the store.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, event
from starlette.testclient import TestClient

import shapes
from filling import Backlog
from protojobs import JobQueue
from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.observing import HOUR, MINUTE, Observes, Result, Rollup
from protojobs.port.records import JobFilter, NewJob, Settlement, WorkerInfo
from protojobs.port.schedules import Schedule
from protojobs_dashboard.app import PAGES, Dashboard
from protojobs_sqlalchemy import SQLAlchemyDriver

STORES = ("sqlite", "postgresql")
PAGE_STATEMENTS = 12
TIMES = 10.0
FLOOR_S = 0.02  # what a page takes at least here: below it the ratio is that of noise
ROUNDS = 7
QUEUES = 200
GROUPS = 20  # causes of failures
RUNNING = 50
EXAMINED_S = 60.0
WORKERS = 5
HERE = ("127.0.0.1", 50000)


@dataclass(frozen=True)
class PageFinding:
    """A page of the two stores."""

    store: str
    page: str
    before_s: float
    after_s: float
    statements: int
    scans: Sequence[str]

    @property
    def ratio(self) -> float:
        """How many times slower it is in the large store."""
        return self.after_s / max(self.before_s, FLOOR_S)

    @property
    def complaint(self) -> str:
        """What is wrong with it, or nothing."""
        wrong = [f"reads all of jobs: {scan}" for scan in self.scans]
        if self.statements > PAGE_STATEMENTS:
            wrong.append(f"{self.statements} statements, more than {PAGE_STATEMENTS}")
        if self.ratio > TIMES:
            wrong.append(f"{self.after_s * 1e3:.0f} ms, {self.ratio:.1f} times the {self.before_s * 1e3:.0f} ms")
        return f"{self.store}: {self.page}: {'; '.join(wrong)}" if wrong else ""


def measured(store: str, server: str, folder: Path, rows: int) -> Iterator[PageFinding]:
    """Each page in a store of SMALL jobs and in one of `rows`."""
    small, large = (_visited(store, server, folder, depth) for depth in (shapes.SMALL, rows))
    for page, (before_s, statements, scans) in small.items():
        after_s, more, others = large[page]
        yield PageFinding(store, page, before_s, after_s, max(statements, more), [*scans, *others])


def table(found: Sequence[PageFinding]) -> str:
    """A line for each page."""
    lines = [f"\n{found[0].store}, pages of the dashboard: ms in the small store | in the large one, statements"]
    for one in found:
        mark = "  TOO MUCH" if one.complaint else ""
        times = f"{one.before_s * 1e3:8.1f}  {one.after_s * 1e3:8.1f}  {one.ratio:5.1f}"
        lines.append(f"  {one.page:34}  {times}  {one.statements:3}{mark}")
    return "\n".join(lines)


def _visited(store: str, server: str, folder: Path, rows: int) -> dict[str, tuple[float, int, list[str]]]:
    failures = min(max(rows // 50, GROUPS), 2_000)
    finished = Backlog(rows // 4, queue="done", is_finished=True)
    backlogs = [Backlog(rows - rows // 4 - failures, queue="q", queues=QUEUES, job_name="shop.pack"), finished]
    place = Path(tempfile.mkdtemp(dir=folder))
    with shapes.opened(store, server, place, backlogs) as (driver, _url):
        assert isinstance(driver, SQLAlchemyDriver)
        worker = _lived_in(driver, failures)
        client = TestClient(Dashboard(JobQueue(driver, {})), base_url="http://127.0.0.1", client=HERE)
        _examined(client)
        return {
            page: _visit(driver._connections.engine, client, address)
            for page, address in _addresses(driver, worker).items()
        }


def _addresses(driver: SQLAlchemyDriver, worker: str) -> dict[str, str]:
    """Every page that there is, and those of it that ask for something else; each name once."""
    failed = driver.failed(limit=1).jobs[0]
    (waiting,) = driver.find(JobFilter(states=(JobState.PENDING,), queue="q0150"), limit=1).jobs
    values = {"/jobs/{id}/why": f"/jobs/{waiting.id}/why"}
    values |= {"/jobs/{id}": f"/jobs/{failed.job_id}", "/errors/{fingerprint}": f"/errors/{failed.fingerprint}"}
    values |= {"/queue": "/queue?name=q0007", "/worker": f"/worker?id={worker}", "/schedule": "/schedule?id=nightly-7"}
    values |= {"/operations/{id}": "/operations/none"}
    states = ("pending", "ready", "scheduled", "processing", "completed", "failed", "cancelled")
    searches = [f"state:{state}" for state in states] + ["queue:q0007", "job:shop.*", "state:failed queue:q0007"]
    found = {page: values.get(page, page) for page in PAGES}
    return found | {f"/jobs  {search}": f"/jobs?q={search.replace(' ', '+')}" for search in searches}


def _examined(client: TestClient) -> None:
    """The doctor looks aside, and his statements are no page's."""
    ends = time.monotonic() + EXAMINED_S
    while 'data-testid="examining"' in client.get("/doctor").text:
        if time.monotonic() > ends:
            raise AssertionError("the doctor does not come to an end")
        time.sleep(0.05)


def _visit(engine: Engine, client: TestClient, address: str) -> tuple[float, int, list[str]]:
    with _heard(engine) as statements:
        answer = client.get(address)
    known = address.startswith("/operations/") and answer.status_code == 404
    if answer.status_code != 200 and not known:
        raise AssertionError(f"{address} answers {answer.status_code}: {answer.text[:500]}")
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        client.get(address)
        times.append(time.monotonic() - began)
    scans = [scan for sql, values in statements if (scan := _scan(engine, sql, values))]
    return statistics.median(times), len(statements), scans


@contextmanager
def _heard(engine: Engine) -> Iterator[list[tuple[str, object]]]:
    """The statements that go over the engine's connections."""
    found: list[tuple[str, object]] = []

    def listen(*told: object) -> None:
        statement, parameters = str(told[2]), told[3]
        if statement.lstrip().split(None, 1)[0].upper() in ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "EXPLAIN"):
            found.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def _scan(engine: Engine, statement: str, parameters: object) -> str:
    """Where the plan reads `jobs` from end to end, or nothing."""
    if statement.lstrip().upper().startswith("EXPLAIN"):
        return ""
    is_postgresql = engine.dialect.name == "postgresql"
    word = "EXPLAIN (FORMAT JSON) " if is_postgresql else "EXPLAIN QUERY PLAN "
    with engine.connect() as conn:
        rows = conn.exec_driver_sql(word + statement, cast("tuple[object, ...]", parameters or ())).fetchall()
    if is_postgresql:
        plan = rows[0][0] if isinstance(rows[0][0], list) else json.loads(rows[0][0])
        return statement[:200] if _reads_all(plan[0]["Plan"]) else ""
    lines = [str(row[3]) for row in rows]
    return next((line for line in lines if line.startswith("SCAN jobs") and " INDEX" not in line), "")


def _reads_all(node: dict[str, Any], *, is_limited: bool = False) -> bool:
    """Whether the plan goes through the table, or through an index of it, without a place to begin or to end at."""
    is_limited = is_limited or node["Node Type"] == "Limit"
    walks = "Seq Scan" in node["Node Type"] or ("Index" in node["Node Type"] and "Index Cond" not in node)
    if walks and node.get("Relation Name") == "jobs" and node.get("Index Name", "jobs_pkey") == "jobs_pkey":
        return not is_limited
    return any(_reads_all(child, is_limited=is_limited) for child in node.get("Plans", ()))


def _lived_in(driver: SQLAlchemyDriver, failures: int) -> str:
    """What a store has beside a backlog: failures of some causes, workers at work, schedules, notes of three hours."""
    workers = [_worker(driver) for _ in range(WORKERS)]
    for first in range(0, failures, shapes.BATCH):
        _fail(driver, workers[0], first, min(shapes.BATCH, failures - first))
    names = [f"q{at:04}" for at in range(RUNNING)]
    for worker in workers:
        driver.claim(worker, names, slots=RUNNING // WORKERS, limit=RUNNING // WORKERS)
    for at in range(QUEUES):
        driver.save_schedule(_schedule(at, driver.now()), version=0)
    _note(driver, workers, driver.now())
    if driver._connections.engine.dialect.name == "postgresql":  # as its own upkeep does within a minute
        with driver._connections.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("ANALYZE")
    return workers[0]


def _worker(driver: Store) -> str:
    worker = fresh_id()
    driver.register(
        WorkerInfo(id=worker, host="bench", pid=1, queues=("q0000",), concurrency=RUNNING, lease_s=86_400.0)
    )
    return worker


def _fail(driver: Store, worker: str, first: int, count: int) -> None:
    driver.enqueue([_failing_job(at) for at in range(first, first + count)])
    claims = driver.claim(worker, ["failing"], slots=count, limit=count)
    driver.settle(
        [
            Settlement(
                id=one.id,
                claim_seq=one.claim_seq,
                reserved_by=one.reserved_by,
                verb=Verb.FAIL,
                error=f"Traceback (most recent call last):\nValueError: cause {at % GROUPS}",
                fingerprint=f"{at % GROUPS:016x}",
            )
            for at, one in enumerate(claims, first)
        ]
    )


def _failing_job(at: int) -> NewJob:
    return NewJob(id=fresh_id(), queue="failing", job_name="shop.fail", job_class="shop.fail", data=f'{{"n": {at}}}')


def _schedule(at: int, now: datetime) -> Schedule:
    return Schedule(
        id=f"nightly-{at}",
        spec="0 3 * * *",
        queue="q0000",
        job_name="shop.report",
        job_class="shop.report",
        data="{}",
        next_due_at=now + timedelta(hours=1, minutes=at),
    )


def _note(driver: Observes, workers: Sequence[str], now: datetime) -> None:
    hour = now.replace(minute=0, second=0, microsecond=0)
    for worker in workers:
        rollups: list[Rollup] = []
        for minute in range(180):
            began = now.replace(second=0, microsecond=0) - timedelta(minutes=minute)
            rollups.append(_rollup(MINUTE, began, "", ""))
            rollups += [_rollup(MINUTE, began, f"q{(minute + at) % QUEUES:04}", "shop.pack") for at in range(20)]
        rollups += [_rollup(HOUR, hour - timedelta(hours=at), "", "") for at in range(100)]
        for first in range(0, len(rollups), 1_000):
            driver.record(worker, rollups[first : first + 1_000], [])


def _rollup(period_s: int, began_at: datetime, queue: str, job_name: str) -> Rollup:
    return Rollup(
        period_s=period_s,
        began_at=began_at,
        queue=queue,
        job_name=job_name,
        result=Result.COMPLETED,
        count=100,
        wait_s=5.0,
        run_s=20.0,
        waits={60: 50, 64: 50},
        runs={70: 90, 80: 10},
    )
