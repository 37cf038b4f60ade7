"""Counters of finished jobs: as many rows as there are queues and workers, and no jobs that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import Fence, NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode, Use
from protojobs_sqlalchemy.tables.tables import COUNTER_SHARDS
from protojobs_sqlalchemy.tables.tables import PLAIN as tables
from protojobs_sqlalchemy.verbs import counting

JOBS = 12


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def driver(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(make_store_url(request.param))
    driver.setup()
    yield driver
    driver.close()


def complete_in_transactions(driver: SQLAlchemyDriver, queue: str = "q") -> None:
    driver.enqueue([NewJob(id=fresh_id(), queue=queue, job_name="n", job_class="c", data="{}") for _ in range(JOBS)])
    worker = fresh_id()
    driver.register(WorkerInfo(id=worker, host="h", pid=1, queues=(queue,), concurrency=1, lease_s=60))
    for claim in driver.claim(worker, [queue], slots=JOBS, limit=JOBS):
        with Session(driver.engine) as session, session.begin():
            driver.complete_in(session, Fence(id=claim.id, claim_seq=claim.claim_seq, reserved_by=worker))


def shards(driver: SQLAlchemyDriver) -> dict[tuple[str, str, int], int]:
    with driver.engine.connect() as conn:
        return {(row[0], row[1], row[2]): row[3] for row in conn.execute(select(tables.counters))}


def test_prune_sums_up_what_complete_in_has_counted(driver: SQLAlchemyDriver) -> None:
    complete_in_transactions(driver)
    assert len(shards(driver)) == JOBS
    driver.prune(completed_older_than=3600)
    assert shards(driver) == {("q", "completed", 0): JOBS}
    assert driver.stats("q").completed == JOBS


def test_so_many_at_once_as_one_step_may_take(driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_GATHERED_MAX", 5)
    complete_in_transactions(driver)
    left: list[int] = []
    for _ in range(3):
        driver.prune(completed_older_than=3600)
        left.append(sum(shard >= COUNTER_SHARDS for _, _, shard in shards(driver)))
        assert driver.stats("q").completed == JOBS
    assert left == [JOBS - 5, JOBS - 10, 0]


@pytest.mark.parametrize("driver", ["postgresql", "mariadb"], indirect=True)  # on SQLite nobody can hold a row
def test_a_counter_that_a_transaction_holds_is_passed_over(driver: SQLAlchemyDriver) -> None:
    complete_in_transactions(driver)
    held = next(key for key in shards(driver))
    of_it = select(tables.counters.c.count).where(tables.counters.c.shard == held[2]).with_for_update()
    with driver.engine.begin() as conn:
        conn.execute(of_it)
        driver.prune(completed_older_than=3600)
        assert set(shards(driver)) == {held, ("q", "completed", 0)}
    driver.prune(completed_older_than=3600)
    assert shards(driver) == {("q", "completed", 0): JOBS}


def test_counters_that_have_come_to_nothing_are_forgotten(driver: SQLAlchemyDriver) -> None:
    complete_in_transactions(driver, "gone")
    complete_in_transactions(driver, "kept")
    worker = fresh_id()
    driver.register(WorkerInfo(id=worker, host="h", pid=1, queues=("gone",), concurrency=1, lease_s=60))
    driver.enqueue([NewJob(id=fresh_id(), queue="gone", job_name="n", job_class="c", data="{}")])
    for claim in driver.claim(worker, ["gone"], slots=1, limit=1):
        driver.settle([Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=worker, verb=Verb.FAIL)])
    assert driver.clear("gone").total == JOBS + 1
    driver.prune(completed_older_than=3600)
    assert shards(driver) == {("kept", "completed", 0): JOBS}
    assert [queue.name for queue in driver.queues()] == ["kept"]


def test_rows_that_cancel_each_other_out_go_together(driver: SQLAlchemyDriver) -> None:
    row = {"queue": "q", "status": "failed"}
    with driver.engine.begin() as conn:
        conn.execute(insert(tables.counters), [row | {"shard": 1, "count": 3}, row | {"shard": 2, "count": -3}])
    driver.prune(completed_older_than=3600)
    assert shards(driver) == {}


@pytest.mark.parametrize("driver", ["postgresql", "mariadb"], indirect=True)  # SQLite has one writer at a time
def test_two_steps_of_one_worker_in_flight_count_in_rows_of_their_own(driver: SQLAlchemyDriver) -> None:
    driver.enqueue([NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}") for _ in range(3)])
    worker = fresh_id()
    driver.register(WorkerInfo(id=worker, host="h", pid=1, queues=("q",), concurrency=1, lease_s=60))
    done = [
        Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=worker, verb=Verb.COMPLETE)
        for claim in driver.claim(worker, ["q"], slots=3, limit=3)
    ]
    driver.settle(done[:1])
    driver.settle(done[1:2])
    assert list(shards(driver).values()) == [2]  # one connection, one row
    # The outer step has the pool's connection, so the settlement in it takes another.
    driver._connections.run(lambda _conn: driver.settle(done[2:3]), Mode.READ, use=Use.WORK)
    assert sorted(shards(driver).values()) == [1, 2]
    assert driver.stats("q").completed == 3
