"""Transactions that meet in MariaDB: the driver's own run again, and a caller's wait for each other and go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from protojobs.entropy import fresh_id
from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Fence, NewJob, Settled, Settlement, SettleStatus, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.verbs.counting import lone_shard

WAIT_S = 20.0
LOCK = text("SELECT id FROM jobs WHERE id = :id FOR UPDATE")
WAITING = text("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")


@pytest.fixture
def driver(make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()
    yield driver
    driver.close()


def test_a_deadlock_on_mariadb_is_met_by_running_the_step_again(driver: SQLAlchemyDriver) -> None:
    jobs = [NewJob(id=fresh_id(), queue="q", job_name="j", job_class="j", data="{}") for _ in range(2)]
    driver.enqueue(jobs)
    driver.register(WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=2, lease_s=60))
    (worker,) = driver.workers()
    first, second = driver.claim(worker.id, ["q"], slots=2, limit=2)
    done = [
        Settlement(id=job.id, claim_seq=job.claim_seq, reserved_by=worker.id, verb=Verb.COMPLETE)
        for job in (first, second)
    ]
    answers: list[Settled] = []
    settling = threading.Thread(target=lambda: answers.extend(driver.settle(done)), daemon=True)
    with driver.engine.connect() as watcher, driver.engine.connect() as other:
        watcher = watcher.execution_options(isolation_level="AUTOCOMMIT")
        watcher.execute(text("CREATE TABLE ballast (n INT)"))
        with other.begin():
            # InnoDB ends the transaction that has changed less: not this one.
            other.execute(text("INSERT INTO ballast (n) VALUES " + ", ".join(["(1)"] * 500)))
            other.execute(LOCK, {"id": second.id})
            settling.start()  # takes the first job, and waits for the second
            ends = time.monotonic() + WAIT_S
            while not watcher.execute(WAITING).scalar_one():
                assert time.monotonic() < ends
                time.sleep(0.15)  # the server refreshes this view only for those who ask less than ten times a second
            other.execute(LOCK, {"id": first.id})
    settling.join(WAIT_S)
    assert [answer.status for answer in answers] == [SettleStatus.APPLIED, SettleStatus.APPLIED]
    assert driver.stats("q").completed == 2


def test_two_transactions_complete_jobs_whose_counters_lie_in_one_row(driver: SQLAlchemyDriver) -> None:
    first_id = fresh_id()
    second_id = next(other for _ in iter(int, 1) if lone_shard(other := fresh_id()) == lone_shard(first_id))
    driver.enqueue([NewJob(id=i, queue="q", job_name="j", job_class="j", data="{}") for i in (first_id, second_id)])
    driver.register(WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=2, lease_s=60))
    (worker,) = driver.workers()
    first, second = (
        Fence(id=job.id, claim_seq=job.claim_seq, reserved_by=worker.id)
        for job in driver.claim(worker.id, ["q"], slots=2, limit=2)
    )
    done: list[str] = []

    def complete_second() -> None:
        with Session(callers) as session:
            driver.complete_in(session, second)  # waits for the counter, whose row has changed by then
            session.commit()
            done.append(second.id)

    callers = create_engine(driver.engine.url)  # as most make one: transactions that read from a snapshot
    waiting = threading.Thread(target=complete_second, daemon=True)
    with driver.engine.connect() as watcher, Session(callers) as session:
        watcher = watcher.execution_options(isolation_level="AUTOCOMMIT")
        driver.complete_in(session, first)
        waiting.start()
        ends = time.monotonic() + WAIT_S
        while not watcher.execute(WAITING).scalar_one():
            assert time.monotonic() < ends
            time.sleep(0.15)
        session.commit()
    waiting.join(WAIT_S)
    callers.dispose()
    assert done == [second.id]
    assert driver.stats("q").completed == 2


def test_a_snapshot_that_is_too_old_to_complete_a_job_says_what_is_in_the_way(driver: SQLAlchemyDriver) -> None:
    driver.enqueue([NewJob(id=fresh_id(), queue="q", job_name="j", job_class="j", data="{}")])
    driver.register(WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=2, lease_s=60))
    (worker,) = driver.workers()
    (job,) = driver.claim(worker.id, ["q"], slots=1, limit=1)
    callers = create_engine(driver.engine.url)
    with Session(callers) as session:
        session.execute(text("SELECT count(*) FROM jobs"))
        with driver.engine.begin() as other:
            other.execute(text("UPDATE jobs SET progress = 0.5"))
        with pytest.raises(StoreUnavailable, match=r"stayed busy.*1020"):
            driver.complete_in(session, Fence(id=job.id, claim_seq=job.claim_seq, reserved_by=worker.id))
    callers.dispose()
    assert driver.get([job.id])[0].status == "processing"
