"""What is read in several statements is read at one moment: a job that moves meanwhile is counted where it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, event

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver


@pytest.fixture
def driver(store_url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    yield driver
    driver.close()


def test_a_job_that_goes_back_while_the_jobs_are_counted_is_not_missed(driver: SQLAlchemyDriver) -> None:
    driver.enqueue([NewJob(id=fresh_id(), queue="q", job_name="j", job_class="j", data="{}")])
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    driver.register(worker)
    (job,) = driver.claim(worker.id, ["q"], slots=1, limit=1)
    back = [Settlement(id=job.id, claim_seq=job.claim_seq, reserved_by=worker.id, verb=Verb.RELEASE)]
    watched = SQLAlchemyDriver(driver.engine.url.render_as_string(hide_password=False))
    assert watched.stats("q").total == 1
    seen: list[str] = []

    @event.listens_for(watched._connections.engine, "after_cursor_execute")
    def _give_back(_conn: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "FROM jobs" in statement and not seen:
            seen.append(statement)
            driver.settle(back)

    stats = watched.stats("q")
    watched.close()
    assert seen
    assert (stats.pending, stats.processing) == (0, 1)
    assert driver.stats("q").pending == 1
