"""Two transactions that wait for each other: the database ends one, and if it was the driver's, it runs again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from protojobs.entropy import fresh_id
from protojobs.lifecycle import Verb
from protojobs.records import NewJob, Settled, Settlement, SettleStatus, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver

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
