"""Jobs that commit or vanish with the caller's own rows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid, SchemaOutdated
from protojobs.port.lifecycle import JobState
from protojobs.port.records import ClaimedJob, Fence, NewJob, WorkerInfo
from protojobs_sqlalchemy import FailedJobModel, JobModel, SQLAlchemyDriver

ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "mariadb": "mariadb+asyncmy"}


@pytest.fixture
def driver(store_url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def engine(driver: SQLAlchemyDriver) -> Iterator[Engine]:
    """The application's, with room for one connection: a second one would be a deadlock."""
    engine = create_engine(driver.engine.url, pool_size=1, max_overflow=0, pool_timeout=2)
    if engine.dialect.name == "sqlite":  # as SQLAlchemy's documentation wants it, so that savepoints work
        event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE users (name varchar(20))"))
    yield engine
    engine.dispose()


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data='{"a": 1}')


def lend(driver: SQLAlchemyDriver) -> ClaimedJob:
    driver.enqueue([new_job()])
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    driver.register(worker)
    (claim,) = driver.claim(worker.id, ["q"], slots=1, limit=1)
    return claim


def fence(claim: ClaimedJob) -> Fence:
    return Fence(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by)


class TestEnqueueing:
    def test_a_job_comes_with_the_commit_of_its_session(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        calls: list[str] = []
        job = new_job()
        with Session(engine) as session:
            session.execute(text("INSERT INTO users VALUES ('ada')"))
            (answer,) = driver.enqueue_in(session, [job], on_commit=lambda: calls.append("committed"))
            assert (answer.id, answer.duplicate_of) == (job.id, None)
            assert calls == []
            session.commit()
            assert calls == ["committed"]
            session.execute(text("INSERT INTO users VALUES ('bob')"))
            session.commit()
        assert calls == ["committed"]
        assert [found.data for found in driver.get([job.id])] == ['{"a": 1}']

    def test_a_job_vanishes_with_the_rollback_of_its_session(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        calls: list[str] = []
        with Session(engine) as session:
            driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("committed"))
            session.rollback()
            session.execute(text("SELECT 1"))
            session.commit()
            driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("committed"))
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
            session.commit()
        assert calls == []
        assert driver.stats().total == 0

    def test_a_savepoint_takes_its_jobs_with_it(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        calls: list[str] = []
        with Session(engine) as session:
            session.execute(text("INSERT INTO users VALUES ('ada')"))
            kept = session.begin_nested()
            driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("kept"))
            inner = session.begin_nested()
            driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("dropped"))
            inner.rollback()
            kept.commit()
            assert calls == []
            session.commit()
        assert calls == ["kept"]
        assert driver.stats().pending == 1

    def test_an_outer_savepoint_takes_what_an_inner_one_released(
        self, driver: SQLAlchemyDriver, engine: Engine
    ) -> None:
        calls: list[str] = []
        with Session(engine) as session:
            outer = session.begin_nested()
            with session.begin_nested():
                driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("dropped"))
            outer.rollback()
            session.commit()
        assert calls == []
        assert driver.stats().total == 0

    def test_a_bare_connection_tells_nobody(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        calls: list[str] = []
        with engine.connect() as conn:
            driver.enqueue_in(conn, [new_job()], on_commit=lambda: calls.append("committed"))
            assert conn.in_transaction()
            conn.commit()
            driver.enqueue_in(conn, [new_job()])
            conn.rollback()
        assert calls == []
        assert driver.stats().pending == 1

    def test_a_session_inside_a_connection_s_transaction_tells_nobody(
        self, driver: SQLAlchemyDriver, engine: Engine
    ) -> None:
        calls: list[str] = []
        with engine.connect() as conn:
            outer = conn.begin()
            with Session(conn, join_transaction_mode="create_savepoint") as session:
                driver.enqueue_in(session, [new_job()], on_commit=lambda: calls.append("committed"))
                session.commit()
            outer.rollback()
        assert calls == []
        assert driver.stats().total == 0

    def test_known_ids_are_duplicates_and_spoil_nothing(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        old, new = new_job(), new_job()
        driver.enqueue([old])
        with Session(engine) as session, session.begin():
            session.execute(text("INSERT INTO users VALUES ('ada')"))
            answers = driver.enqueue_in(session, [new, old, new])
        assert [answer.duplicate_of for answer in answers] == [None, old.id, new.id]
        assert driver.stats().pending == 2
        with engine.connect() as conn:
            assert conn.execute(text("SELECT count(*) FROM users")).scalar() == 1

    def test_a_registry_of_sessions_will_do(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        registry = scoped_session(sessionmaker(engine))
        driver.enqueue_in(registry, [new_job()])
        registry.commit()
        registry.remove()
        assert driver.stats().pending == 1

    def test_the_bind_is_that_of_the_jobs_table(self, driver: SQLAlchemyDriver, engine: Engine, tmp_path: Path) -> None:
        other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
        with Session(other, binds={JobModel: engine}) as session:
            session.execute(text("SELECT 1"))
            driver.enqueue_in(session, [new_job()])
            session.commit()
        other.dispose()
        assert driver.stats().pending == 1

    def test_the_wait_ends_with_the_commit(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
        driver.register(worker)
        driver.claim(worker.id, ["q"], slots=1, limit=1)
        with Session(engine) as session:
            driver.enqueue_in(session, [new_job()])
            session.commit()
        assert driver.wait(["q"], 5) is True

    def test_the_commit_waits_for_no_second_connection_of_its_pool_and_is_told_to_other_processes(
        self, make_store_url: Callable[[str], str]
    ) -> None:
        url = make_url(make_store_url("postgresql")).set(drivername="postgresql+psycopg")
        engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=2)
        driver = SQLAlchemyDriver(engine)
        driver.setup()
        with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as listener:
            listener.execute("LISTEN protojobs")
            with Session(engine) as session:
                driver.enqueue_in(session, [new_job()])
                began = SYSTEM_CLOCK.monotonic()
                session.commit()
                assert SYSTEM_CLOCK.monotonic() - began < 1
            assert [note.payload for note in listener.notifies(timeout=5, stop_after=1)] == ["q"]
        driver.close()
        engine.dispose()


class TestRefusals:
    def test_another_database_is_refused(self, driver: SQLAlchemyDriver, make_store_url: Callable[[str], str]) -> None:
        kind = driver.engine.dialect.name
        elsewhere = SQLAlchemyDriver(make_store_url(kind))
        elsewhere.setup()
        with Session(elsewhere.engine) as session, pytest.raises(OptionInvalid, match="elsewhere"):
            driver.enqueue_in(session, [new_job()])
        assert elsewhere.stats().total == 0
        elsewhere.close()

    def test_another_name_of_the_same_server_is_accepted(self, driver: SQLAlchemyDriver) -> None:
        url = driver.engine.url
        if url.host is None:
            folder = Path(str(url.database)).parent
            other = url.set(database=f"{folder}/../{folder.name}/{Path(str(url.database)).name}")
        else:
            other = url.set(host="localhost")
        engine = create_engine(other)
        with Session(engine) as session, session.begin():
            driver.enqueue_in(session, [new_job()])
        driver._joining._identity = "as it was before the server started anew"
        with Session(engine) as session, session.begin():
            driver.enqueue_in(session, [new_job()])
        engine.dispose()
        assert driver.stats().pending == 2

    @pytest.mark.parametrize("transaction", [None, 1, object()])
    def test_what_is_no_transaction_is_refused(self, driver: SQLAlchemyDriver, transaction: object) -> None:
        with pytest.raises(OptionInvalid):
            driver.enqueue_in(transaction, [new_job()])
        with pytest.raises(OptionInvalid):
            asyncio.run(driver.aenqueue_in(transaction, [new_job()]))

    def test_an_unbound_session_is_refused(self, driver: SQLAlchemyDriver) -> None:
        with Session() as session, pytest.raises(OptionInvalid, match="bound to no database"):
            driver.enqueue_in(session, [new_job()])

    def test_missing_tables_do_not_spoil_the_transaction(self, store_url: str) -> None:
        driver = SQLAlchemyDriver(store_url)
        with Session(driver.engine) as session:
            with pytest.raises(SchemaOutdated, match="protojobs migrate"):
                driver.enqueue_in(session, [new_job()])
            assert session.execute(text("SELECT 1")).scalar() == 1
        driver.close()


class TestAsynchronously:
    def test_an_async_session_and_connection_carry_jobs_too(self, driver: SQLAlchemyDriver) -> None:
        calls: list[str] = []

        async def story() -> None:
            engine = create_async_engine(driver.engine.url.set(drivername=ASYNC[kind_of(driver)]))
            async with AsyncSession(engine) as session:
                await driver.aenqueue_in(session, [new_job()], on_commit=lambda: calls.append("session"))
                assert calls == []
                await session.commit()
                await driver.aenqueue_in(session, [new_job()], on_commit=lambda: calls.append("rolled back"))
                await session.rollback()
            async with engine.connect() as conn:
                assert isinstance(conn, AsyncConnection)
                await driver.aenqueue_in(conn, [new_job()])
                await conn.commit()
            with pytest.raises(OptionInvalid, match="apush"):
                driver.enqueue_in(AsyncSession(engine), [new_job()])
            await engine.dispose()

        asyncio.run(story())
        assert calls == ["session"]
        assert driver.stats().pending == 2

    def test_a_registry_of_async_sessions_will_do(self, driver: SQLAlchemyDriver) -> None:
        calls: list[str] = []

        async def story() -> None:
            engine = create_async_engine(driver.engine.url.set(drivername=ASYNC[kind_of(driver)]))
            registry = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
            await driver.aenqueue_in(registry, [new_job()], on_commit=lambda: calls.append("commit"))
            assert calls == []
            await registry.commit()
            await driver.aenqueue_in(registry, [new_job()], on_commit=lambda: calls.append("rolled back"))
            await registry.remove()  # rolls back what was not committed
            with pytest.raises(OptionInvalid, match="apush"):
                driver.enqueue_in(registry, [new_job()])
            await registry.remove()
            await engine.dispose()

        asyncio.run(story())
        assert calls == ["commit"]
        assert driver.stats().pending == 1

    def test_on_postgresql_what_a_connection_is_told_is_told_in_the_words_of_its_dbapi(
        self, make_store_url: Callable[[str], str]
    ) -> None:
        """Also of one that is not tried here: asyncpg has a style of parameters of its own."""
        said: list[str] = []
        driver = SQLAlchemyDriver(make_store_url("postgresql"))
        driver.setup()
        with driver.engine.connect() as conn:
            style = asyncpg.dialect()
            event.listen(
                conn, "before_execute", lambda _conn, clause, *_rest: said.append(clause.compile(dialect=style))
            )
            driver.enqueue_in(conn, [new_job()])
            conn.commit()
        driver.close()
        assert "pg_notify($1::VARCHAR, $2::VARCHAR)" in " ".join(map(str, said))


class TestCompleting:
    def test_a_job_is_completed_with_its_own_work(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        claim = lend(driver)
        with Session(engine) as session:
            driver.complete_in(session, fence(claim))
            session.rollback()
            assert driver.get([claim.id])[0].status is JobState.PROCESSING
            driver.complete_in(session, fence(claim))
            session.commit()
        (job,) = driver.get([claim.id])
        assert (job.status, job.reserved_by) == (JobState.COMPLETED, "")
        assert driver.stats().completed == 1

    def test_a_lost_claim_raises_and_changes_nothing(self, driver: SQLAlchemyDriver, engine: Engine) -> None:
        claim = lend(driver)
        others = [
            Fence(id=claim.id, claim_seq=claim.claim_seq + 1, reserved_by=claim.reserved_by),
            Fence(id=claim.id, claim_seq=claim.claim_seq, reserved_by=fresh_id()),
            Fence(id=fresh_id(), claim_seq=claim.claim_seq, reserved_by=claim.reserved_by),
            Fence(id="no id at all", claim_seq=claim.claim_seq, reserved_by=claim.reserved_by),
        ]
        for other in others:
            with Session(engine) as session, pytest.raises(LeaseLost):
                driver.complete_in(session, other)
        assert driver.get([claim.id])[0].status is JobState.PROCESSING


def test_the_mapped_classes_show_the_rows(driver: SQLAlchemyDriver, engine: Engine) -> None:
    claim = lend(driver)
    with Session(engine) as session:
        job = session.get_one(JobModel, claim.id)
        assert (job.queue, job.status, job.attempts, job.data) == ("q", "processing", 1, '{"a": 1}')
        assert job.created_at == driver.get([claim.id])[0].created_at
        assert job.created_at.utcoffset() is not None
        assert session.query(FailedJobModel).all() == []


def test_a_process_without_sessions_does_not_load_the_orm(tmp_path: Path) -> None:
    code = """
import sys
from protojobs import JobQueue, create_driver, job

@job
def greet() -> None: ...

queue = JobQueue(create_driver(sys.argv[1]))
queue.driver.setup()
queue.push(greet)
assert queue.work(max_jobs=1).done == 1
print([name for name in sys.modules if name in ("sqlalchemy.orm", "sqlalchemy.ext.asyncio")])
"""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    ran = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_one_with_the_orm_loads_what_its_sessions_need_before_the_first_transaction() -> None:
    code = """
import sys
import sqlalchemy.orm
from protojobs import create_driver

create_driver("sqlite:///jobs.db")
print("protojobs_sqlalchemy.sessions.transactions" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "True", ran.stderr


def kind_of(driver: SQLAlchemyDriver) -> str:
    return "mariadb" if driver.engine.dialect.name in ("mysql", "mariadb") else driver.engine.dialect.name
