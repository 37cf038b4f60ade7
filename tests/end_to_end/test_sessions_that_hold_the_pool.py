"""Jobs that keep their sessions open for longer than a lease: their worker keeps its lease, and each job runs once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from protojobs import JobQueue, StopToken, job
from protojobs_sqlalchemy import SQLAlchemyDriver

LEASE_S = 4.0
HOLDS_S = 10.0
SLOTS = 2
OWN_SESSIONS_MAX = 30  # of `driver.engine`
WITHIN_S = 90.0
RUNS: list[int] = []
SESSIONS: list[Session] = []


@job(name="report", queue="reports", timeout=0, max_retries=0)
def report(number: int) -> None:
    RUNS.append(number)
    with ExitStack() as stack:
        for session in SESSIONS[number::SLOTS]:
            stack.enter_context(session).execute(text("select 1"))
        time.sleep(HOLDS_S)


@contextmanager
def working(queue: JobQueue) -> Iterator[None]:
    stop = StopToken()
    thread = threading.Thread(target=queue.work, args=("reports",), kwargs={"stop": stop})
    thread.start()
    try:
        yield
    finally:
        stop.stop()
        thread.join(WITHIN_S)
    assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["the application", "the driver"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_their_worker_keeps_its_lease_and_each_job_runs_once(
    make_store_url: Callable[[str], str], kind: str, whose: str
) -> None:
    RUNS.clear()
    url, settings = make_store_url(kind), {"lease": LEASE_S, "concurrency": SLOTS}
    elsewhere = SQLAlchemyDriver(url)
    elsewhere.setup()
    if whose == "the application":
        engine = create_engine(elsewhere.engine.url, pool_size=SLOTS, max_overflow=0)
        driver, sessions_each = SQLAlchemyDriver(engine), 1
    else:
        driver, sessions_each = SQLAlchemyDriver(url), OWN_SESSIONS_MAX // SLOTS
        engine = driver.engine
    SESSIONS[:] = [Session(engine) for _ in range(sessions_each * SLOTS)]
    with JobQueue(driver, settings) as queue, JobQueue(elsewhere, settings) as other:
        for number in range(SLOTS):
            other.push(report.bind(number))
        with working(queue):
            until(lambda: len(RUNS) == SLOTS)
            with working(other):  # it would take back the jobs of a worker whose lease is over
                until(lambda: other.stats().completed == SLOTS)
    assert sorted(RUNS) == list(range(SLOTS))
    engine.dispose()
