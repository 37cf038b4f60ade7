"""A server that takes no more writes: its connections stay open and answer a ping, and lead nowhere.

So it is before a planned failover, and behind a name that leads to a standby now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from protojobs.entropy import fresh_id
from protojobs.errors import StoreUnavailable
from protojobs.port.records import NewJob, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver

READ_ONLY = {
    "postgresql": "set default_transaction_read_only = on",
    "mariadb": "set session transaction read only",
}
IDLE = 4


@pytest.fixture(params=sorted(READ_ONLY))
def driver(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    """One with idle connections to a server that takes no writes; new ones lead to one that does."""
    driver = SQLAlchemyDriver(make_store_url(request.param))
    driver.setup()
    driver.register(WORKER)
    driver.enqueue([new_job()])
    driver.close()
    with ExitStack() as stack:

        def close_to_writes(raw: DBAPIConnection, _record: object) -> None:
            raw.cursor().execute(READ_ONLY[request.param])
            raw.commit()

        event.listen(driver._connections.engine, "connect", close_to_writes)
        for pool in driver._connections._pools.values():
            for _ in range(IDLE):
                stack.callback(pool.keep, pool.connect())
        event.remove(driver._connections.engine, "connect", close_to_writes)
    yield driver
    driver.close()


WORKER = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


def test_a_push_finds_the_server_that_takes_writes_by_itself(driver: SQLAlchemyDriver) -> None:
    (stored,) = driver.enqueue([new_job()])
    assert stored.duplicate_of is None
    assert driver.stats().pending == 2


def test_a_claim_says_that_the_store_is_not_there_and_the_next_one_finds_it(driver: SQLAlchemyDriver) -> None:
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        driver.claim(WORKER.id, ["q"], slots=1, limit=1)
    assert len(driver.claim(WORKER.id, ["q"], slots=1, limit=1)) == 1
