"""How many bytes a job costs PostgreSQL's write-ahead log, counted on a server that does nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from msgspec.structs import replace

import servers
from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver

BATCH = 200
ROUNDS = 4
# For each job, some 15 % above what it is: to settle it and to claim it in a turn, and to fail it beside a claim.
PUSH_BYTES_MAX, BULK_BYTES_MAX, TURN_BYTES_MAX, FAIL_BYTES_MAX = 436, 388, 945, 1_620


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of its own, which logs what is changed, and no whole pages after a checkpoint."""
    with servers.started("postgresql", is_durable=False) as server:
        servers.execute(
            server.url,
            "ALTER SYSTEM SET full_page_writes = off",
            "ALTER SYSTEM SET autovacuum = off",
            "SELECT pg_reload_conf()",
        )
        yield servers.create_database(server.url, "cost_per_job")


@pytest.fixture(scope="module")
def driver(url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(url)
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def logged(url: str) -> Iterator[Callable[[Callable[[], object]], float]]:
    """Gives the bytes that calls of an action, each for a batch, add to the log for one job."""
    with psycopg.connect(servers.plain(url), autocommit=True, connect_timeout=10) as raw:

        def at() -> int:
            found = raw.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
            assert found is not None
            return int(found[0])

        def of(action: Callable[[], object]) -> float:
            action()  # the first one opens connections and finds the lanes
            began = at()
            for _ in range(ROUNDS):
                action()
            return (at() - began) / (ROUNDS * BATCH)

        yield of


def new_jobs() -> list[NewJob]:
    like = NewJob(id="", queue="q", job_name="n", job_class="c", data="{}")
    return [replace(like, id=fresh_id()) for _ in range(BATCH)]


def test_a_push(driver: SQLAlchemyDriver, logged: Callable[[Callable[[], object]], float]) -> None:
    assert 0 < logged(lambda: [driver.enqueue([job]) for job in new_jobs()]) <= PUSH_BYTES_MAX


def test_one_of_many_that_are_pushed_at_once(
    driver: SQLAlchemyDriver, logged: Callable[[Callable[[], object]], float]
) -> None:
    assert 0 < logged(lambda: driver.enqueue(new_jobs())) <= BULK_BYTES_MAX


@pytest.mark.parametrize(("verb", "most"), [(Verb.COMPLETE, TURN_BYTES_MAX), (Verb.FAIL, FAIL_BYTES_MAX)])
def test_a_turn(
    driver: SQLAlchemyDriver, logged: Callable[[Callable[[], object]], float], verb: Verb, most: int
) -> None:
    for _ in range(ROUNDS + 1):
        driver.enqueue(new_jobs())
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=4, lease_s=600)
    driver.register(worker)
    held: list[ClaimedJob] = []

    def turn() -> None:
        done = [Settlement(id=j.id, claim_seq=j.claim_seq, reserved_by=j.reserved_by, verb=verb) for j in held]
        reply = driver.settle_and_claim(worker.id, done, ["q"], slots=BATCH, limit=BATCH)
        held[:] = reply.claimed
        assert len(held) == BATCH

    assert 0 < logged(turn) <= most
