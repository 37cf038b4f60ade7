"""Verbs that meet other transactions: a living worker keeps its lease whatever they hold, and people get an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from protojobs.clock import within
from protojobs.entropy import fresh_id
from protojobs.port.records import Fence, NewJob, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.tables.tables import PLAIN

BRIEF_S = 2.0  # for a busy machine; who waits for a row waits for longer


@pytest.fixture(params=["postgresql", "mariadb"])
def driver(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(make_store_url(request.param))
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def worker(driver: SQLAlchemyDriver) -> str:
    info = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=2, lease_s=60)
    driver.register(info)
    return info.id


def lend_two(driver: SQLAlchemyDriver, worker: str) -> list[Fence]:
    driver.enqueue([NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}") for _ in range(2)])
    claims = driver.claim(worker, ["q"], slots=2, limit=2)
    return [Fence(id=job.id, claim_seq=job.claim_seq, reserved_by=worker) for job in claims]


def test_a_job_that_its_own_transaction_completes_holds_no_heartbeat_up(driver: SQLAlchemyDriver, worker: str) -> None:
    completing, running = lend_two(driver, worker)
    (before,) = driver.workers()
    with Session(driver.engine) as session:
        driver.complete_in(session, completing)
        driver.time_offset = 10.0
        with within(BRIEF_S):
            driver.heartbeat(worker, {completing: 0.5, running: 0.5})
        (after,) = driver.workers()
        assert after.lease_ends_at > before.lease_ends_at
        session.rollback()
    assert [job.progress for job in driver.get([completing.id, running.id])] == [None, 0.5]


def test_on_postgresql_a_claim_that_is_under_way_holds_no_heartbeat_up(
    make_store_url: Callable[[str], str],
) -> None:
    driver = SQLAlchemyDriver(make_store_url("postgresql"))
    driver.setup()
    driver.register(WorkerInfo(id=(worker := fresh_id()), host="h", pid=1, queues=("q",), concurrency=2, lease_s=60))
    with driver.engine.begin() as claiming:
        claiming.execute(text("SELECT id FROM workers FOR KEY SHARE"))  # as it begins
        with within(BRIEF_S):
            driver.heartbeat(worker, {})
        with driver.engine.begin() as other:  # nor does a reclaim take the row
            assert other.execute(text("SELECT id FROM workers FOR UPDATE SKIP LOCKED")).all() == []
    driver.close()


def test_of_two_who_pause_a_queue_at_once_one_is_told_that_it_was_paused(store_url: str) -> None:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    with driver.begin() as first:
        first.execute(insert(PLAIN.queues).values(name="q", paused_at=driver.now()))
        release = threading.Timer(0.3, first.commit)
        release.start()
        assert driver.pause("q") is False
        release.join()
    assert (driver.resume("q"), driver.pause("q"), driver.pause("q")) == (True, True, False)
    driver.close()
