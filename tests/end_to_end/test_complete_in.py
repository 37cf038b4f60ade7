"""A job that stores its effects and its own completion in one transaction: exactly once, or a failed attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from faults import transacting
from protojobs import JobContext, JobQueue, create_driver, events, job
from protojobs.entropy import fresh_id
from protojobs.jobs.definition import Registry
from protojobs.port.lifecycle import SUSPECT_RECLAIMS
from protojobs.port.records import WorkerInfo
from protojobs.stopping import StopToken

ENGINE: list[Engine] = []
ENDS = ("job.processed", "job.retrying", "job.failed", "job.late")
HOOKS: dict[str, Callable[[JobContext], None]] = {}


def record(connection: object, context: JobContext) -> None:
    insert = text("insert into effects (job, attempt) values (:job, :attempt)")
    connection.execute(insert, {"job": context.id, "attempt": context.attempt})  # type: ignore[attr-defined]


@job(name="transactional", queue="work", max_retries=1, retry_delay=0)
def transactional(then: str, ctx: JobContext) -> str:
    HOOKS.get("at the start", lambda _: None)(ctx)
    with Session(ENGINE[0]) as session:
        record(session, ctx)
        ctx.complete_in(session)
        if then == "roll back" and ctx.attempt == 1:
            session.rollback()
        else:
            session.commit()
    if then == "raise":
        raise RuntimeError("after the commit")
    return "stored"


@job(name="async transactional", queue="work", max_retries=0)
async def async_transactional(url: str, ctx: JobContext) -> None:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(
            text("insert into effects (job, attempt) values (:job, :attempt)"), {"job": ctx.id, "attempt": ctx.attempt}
        )
        await ctx.acomplete_in(session)
    await engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def queue(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[JobQueue]:
    with JobQueue(create_driver(make_store_url(request.param))) as queue:
        queue.driver.setup()
        engine = queue.driver.engine  # type: ignore[attr-defined]
        with engine.begin() as connection:
            connection.execute(text("create table effects (job varchar(40), attempt int, claim_seq int)"))
        ENGINE[:] = [engine]
        yield queue
    HOOKS.clear()


@pytest.fixture
def seen() -> Iterator[list[tuple[str, object]]]:
    heard: list[tuple[str, object]] = []
    listener = lambda event: heard.append((event.event_name, event.get("result")))  # noqa: E731
    for name in ENDS:
        events.on(name, listener)
    yield heard
    for name in ENDS:
        events.off(name, listener)


def effects(job_id: str) -> list[int]:
    with ENGINE[0].begin() as connection:
        found = connection.execute(text("select attempt from effects where job = :job"), {"job": job_id})
        return [attempt for (attempt,) in found]


def test_what_is_committed_is_completed_and_the_worker_does_not_say_it_again(
    queue: JobQueue, seen: list[tuple[str, object]]
) -> None:
    job_id = queue.push(transactional.bind("commit"))
    report = queue.work("work", 10)
    assert (report.done, report.runs, queue.stats("work").completed) == (1, 1, 1)
    assert effects(job_id) == [1]
    assert seen == [("job.processed", "stored")]


def test_an_exception_after_the_commit_changes_nothing(queue: JobQueue, seen: list[tuple[str, object]]) -> None:
    job_id = queue.push(transactional.bind("raise"))
    report = queue.work("work", 10)
    assert (report.done, report.runs, report.failed) == (1, 1, 0)
    assert effects(job_id) == [1]
    assert [name for name, _ in seen] == ["job.processed"]


def test_a_transaction_that_was_rolled_back_is_a_failed_attempt_and_leaves_no_effect(
    queue: JobQueue, seen: list[tuple[str, object]]
) -> None:
    job_id = queue.push(transactional.bind("roll back"))
    report = queue.work("work", 10)
    assert (report.done, report.runs) == (1, 2)
    assert effects(job_id) == [2]
    assert [name for name, _ in seen] == ["job.retrying", "job.processed"]


def test_a_run_whose_job_was_taken_away_cannot_complete_it(queue: JobQueue, seen: list[tuple[str, object]]) -> None:
    def take_away(ctx: JobContext) -> None:
        HOOKS.clear()
        queue.driver.leave(ctx.fence.reserved_by)  # as if the lease had lapsed ...
        assert [lost.id for lost in queue.driver.reclaim(10).jobs] == [ctx.id]  # ... and been reclaimed
        queue.pause("work")

    HOOKS["at the start"] = take_away
    job_id = queue.push(transactional.bind("commit"))
    report = queue.work("work", 10)
    assert (report.done, queue.driver.get([job_id])[0].status) == (0, "pending")
    assert effects(job_id) == []  # LeaseLost passed through the session, which rolled back
    assert [name for name, _ in seen] == ["job.late"]


def test_in_an_async_session_too(queue: JobQueue) -> None:
    url = ENGINE[0].url
    asynchronous = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "mariadb": "mariadb+asyncmy"}
    target = url.set(drivername=asynchronous[url.get_backend_name()]).render_as_string(hide_password=False)
    job_id = queue.push(async_transactional.bind(target))
    report = queue.work("work", 10)
    assert (report.done, report.failed) == (1, 0)
    assert effects(job_id) == [1]


def test_one_that_died_twice_with_its_workers_is_completed_where_suspects_run_in_child_processes(
    queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOJOBS_URL", queue.driver.engine.url.render_as_string(hide_password=False))  # type: ignore[attr-defined]
    monkeypatch.setenv("FAULTS_FOLDER", str(tmp_path))
    monkeypatch.setenv("FAULTS_WORKER", "w")
    registry = Registry()
    registry.add(transacting.complete_async.definition)
    queue = JobQueue(queue.driver, {"executor": "process"}, registry=registry)
    job_id = queue.push(transacting.complete_async.bind(transacting.Effect(0.0)))
    for _ in range(SUSPECT_RECLAIMS):
        worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("work",), concurrency=1, lease_s=60, isolates=True)
        queue.driver.register(worker)
        assert [claimed.id for claimed in queue.driver.claim(worker.id, ["work"], slots=1, limit=1)] == [job_id]
        queue.driver.leave(worker.id)
        assert [lost.id for lost in queue.driver.reclaim(10).jobs] == [job_id]
    stop = StopToken()
    ends = lambda _: stop.stop()  # noqa: E731
    for name in ENDS:
        events.on(name, ends)
    try:
        queue.work("work", stop=stop)
    finally:
        for name in ENDS:
            events.off(name, ends)
    (record,) = queue.driver.get([job_id])
    assert (record.status, record.attempts) == ("completed", 1)
    assert len(effects(job_id)) == 1
