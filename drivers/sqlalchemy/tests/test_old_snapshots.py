"""PostgreSQL while a transaction stays open: what is dead piles up, and claims, counters and prune begin behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.postgresql import pruning
from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect
from protojobs_sqlalchemy.tables.tables import COUNTER_SHARDS
from protojobs_sqlalchemy.verbs.lanes import Lanes

SOON_S = 20.0


@pytest.fixture
def url(make_store_url: Callable[[str], str]) -> str:
    return make_store_url("postgresql")


@pytest.fixture
def driver(url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(url)
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def other(url: str, driver: SQLAlchemyDriver) -> Iterator[SQLAlchemyDriver]:
    """Another process."""
    other = SQLAlchemyDriver(url)
    yield other
    other.close()


def push(driver: SQLAlchemyDriver, number: int) -> list[str]:
    jobs = [NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}") for _ in range(number)]
    return [answer.id for answer in driver.enqueue(jobs)]


def join(driver: SQLAlchemyDriver, *, lease_s: float = 60.0) -> str:
    worker = fresh_id()
    driver.register(WorkerInfo(id=worker, host="h", pid=1, queues=("q",), concurrency=1, lease_s=lease_s))
    return worker


def lanes_of(driver: SQLAlchemyDriver) -> Lanes:
    dialect = driver._dialect
    assert isinstance(dialect, PostgreSQLDialect)
    return dialect._lanes._known[("q",)]


def saturate(driver: SQLAlchemyDriver, worker: str) -> None:
    """Claim so that the lane has a floor, and as if walking the front took three seconds."""
    for _ in range(3):
        assert len(driver.claim(worker, ["q"], slots=5, limit=5)) == 5
    lanes = lanes_of(driver)
    assert lanes.has_floors
    lanes._walk_every_s, lanes.walked_at = 60.0, time.monotonic()
    assert len(driver.claim(worker, ["q"], slots=5, limit=5)) == 5


def comes_soon(driver: SQLAlchemyDriver, worker: str, job_id: str) -> bool:
    ends_at = time.monotonic() + SOON_S
    while time.monotonic() < ends_at:
        claims = driver.claim(worker, ["q"], slots=1, limit=1)
        if any(claim.id == job_id for claim in claims):
            return True
        time.sleep(0.02)
    return False


def say(driver: SQLAlchemyDriver, claim: ClaimedJob, verb: Verb) -> None:
    said = Settlement(
        id=claim.id,
        claim_seq=claim.claim_seq,
        reserved_by=claim.reserved_by,
        verb=verb,
        available_at=claim.available_at,
    )
    driver.settle([said])


@pytest.mark.parametrize("way", ["reclaimed", "released"])
def test_a_job_that_another_process_gives_back_is_lent_before_newer_ones_at_once(
    driver: SQLAlchemyDriver, other: SQLAlchemyDriver, way: str
) -> None:
    push(driver, 1_000)
    holder = join(other)
    (old,) = other.claim(holder, ["q"], slots=1, limit=1)
    worker = join(driver)
    saturate(driver, worker)
    assert not comes_at_once(driver, worker, old.id)
    if way == "reclaimed":
        other.leave(holder)
        assert [job.id for job in other.reclaim(10).jobs] == [old.id]
    else:
        say(other, old, Verb.RELEASE)
    assert comes_soon(driver, worker, old.id)


def comes_at_once(driver: SQLAlchemyDriver, worker: str, job_id: str) -> bool:
    time.sleep(0)  # the listener begins with the first claim from floors that stay
    return any(job_id == claim.id for _ in range(5) for claim in driver.claim(worker, ["q"], slots=1, limit=1))


def test_completions_are_counted_in_fresh_rows_while_old_versions_stay(driver: SQLAlchemyDriver) -> None:
    push(driver, 100)
    worker = join(driver)
    saturate(driver, worker)
    held = driver.held(worker)
    done = [Settlement(id=job.id, claim_seq=job.claim_seq, reserved_by=worker, verb=Verb.COMPLETE) for job in held]
    driver.settle_and_claim(worker, done, ["q"], slots=5, limit=5)
    with driver.engine.connect() as conn:
        ((shard, number),) = conn.execute(text("SELECT shard, count FROM counters")).fetchall()
    assert shard >= COUNTER_SHARDS
    assert number == len(done) == driver.stats("q").completed
    driver.prune(completed_older_than=3600)
    assert driver.stats("q").completed == len(done)


def finish(driver: SQLAlchemyDriver, number: int) -> None:
    push(driver, number)
    worker = join(driver)
    for claim in driver.claim(worker, ["q"], slots=number, limit=number):
        say(driver, claim, Verb.COMPLETE)


def test_prune_begins_where_it_ended_while_walking_the_front_takes_long(
    driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    begin = pruning.Floors.begin

    def noted(floors: pruning.Floors, state: JobState) -> object:
        seen.append(begin(floors, state))
        return seen[-1]

    monkeypatch.setattr(pruning.Floors, "begin", noted)
    finish(driver, 6)
    assert driver.prune(completed_older_than=0, limit=2).completed == 2
    assert driver.prune(completed_older_than=0, limit=2).completed == 2
    assert set(seen) == {pruning._FRONT}  # it is quick, so every batch walks the front
    monkeypatch.setattr(pruning, "_SLOW_S", -1.0)
    monkeypatch.setattr(pruning, "_WALK_SHARE", 1e9)
    assert driver.prune(completed_older_than=0, limit=1).completed == 1
    seen.clear()
    assert driver.prune(completed_older_than=0, limit=1).completed == 1
    floor = seen[0]
    assert floor is not pruning._FRONT
    driver.time_offset -= 100
    finish(driver, 1)  # one that ends before that place
    driver.time_offset += 100
    assert driver.prune(completed_older_than=timedelta(0).total_seconds(), limit=5).completed == 0
    later = time.monotonic() + pruning._WALK_EVERY_MAX_S + 1
    monkeypatch.setattr(pruning.SYSTEM_CLOCK, "monotonic", lambda: later)
    assert driver.prune(completed_older_than=0, limit=5).completed == 1
