"""TestQueue on each kind of store: the same assertions, the same drain, and the application's own transactions."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import servers
from protojobs import Job, JobContext, Scheduler, hookimpl, job
from protojobs.entropy import fresh_id
from protojobs.errors import (
    ConfigurationError,
    JobError,
    NotSupported,
    OptionInvalid,
    ProtojobsError,
    SchemaOutdated,
)
from protojobs.port.lifecycle import JobState
from protojobs.testing import TestQueue, assert_not_pushed, assert_pushed
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.testing import inside

STORES = ["memory", "sqlite file", "inside sqlite", "inside postgresql", "inside mariadb"]
SQL_STORES = [store for store in STORES if store != "memory"]

ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    ran.clear()


class Note(Job):
    name = "suite.note"
    queue = "notes"

    def handle(self, data: dict[str, object]) -> None:
        ran.append(data["text"])


class Broken(Job):
    name = "suite.broken"
    queue = "notes"
    max_retries = 1
    retry_delay = 60

    def handle(self, data: dict[str, object]) -> None:
        ran.append("broken")
        raise ValueError("no luck")


@dataclass
class Application:
    """A queue and, where the store has transactions, the application's database."""

    queue: TestQueue
    session: Callable[[], Session]
    connection: Callable[[], AbstractContextManager[Connection]]

    def orders(self) -> int:
        with self.session() as session:
            return int(session.execute(text("select count(*) from orders")).scalar_one())


def tables_of_the_application(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("create table orders (number integer)"))


def on_sqlite_file(path: Path) -> Iterator[Application]:
    url = f"sqlite:///{path / 'app.db'}"
    engine = create_engine(url)
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    tables_of_the_application(engine)
    with TestQueue(store=url) as queue:
        yield Application(queue, lambda: Session(engine), engine.begin)
    engine.dispose()


def migrated(url: str) -> Engine:
    """The application's engine on a database that has its own tables and ours."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        address = address.set(drivername="postgresql+psycopg")  # SQLAlchemy 2.0 would take psycopg2
    engine = create_engine(address)
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.close()
    tables_of_the_application(engine)
    return engine


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Engine]]:
    """The application's test database of each kind, made once: no test leaves anything in it."""
    made: dict[str, Engine] = {}
    dropped: list[tuple[str, str]] = []

    def engine(kind: str) -> Engine:
        if kind not in made:
            url = f"sqlite:///{tmp_path_factory.mktemp('inside') / 'app.db'}"
            if kind != "sqlite":
                server, name = servers.shared(kind).url, servers.database_name("inside", fresh_id()[-12:])
                url = servers.create_database(server, name)
                dropped.append((server, name))
            made[kind] = migrated(url)
        return made[kind]

    yield engine
    for each in made.values():
        each.dispose()
    for server, name in dropped:
        servers.drop_database(server, name)


def rolled_back(engine: Engine) -> Iterator[Application]:
    """As an application's own fixture does it."""
    with engine.connect() as connection:
        transaction = connection.begin()
        queue = TestQueue(store=inside(connection))
        yield Application(
            queue,
            lambda: Session(connection, join_transaction_mode="create_savepoint"),
            lambda: nullcontext(connection),
        )
        transaction.rollback()
    assert_nothing_left(engine)


def assert_nothing_left(engine: Engine) -> None:
    with engine.connect() as connection:
        for table in ("jobs", "failed_jobs", "workers", "counters", "schedules", "orders"):
            assert connection.execute(text(f"select count(*) from {table}")).scalar_one() == 0, table


@pytest.fixture
def application(
    request: pytest.FixtureRequest, tmp_path: Path, engines: Callable[[str], Engine]
) -> Iterator[Application]:
    match request.param.split():
        case ["inside", kind]:
            yield from rolled_back(engines(kind))
        case ["sqlite", "file"]:
            yield from on_sqlite_file(tmp_path)
        case _:

            def no_database() -> Session:
                raise AssertionError("memory has no sessions")

            yield Application(TestQueue(), no_database, no_database)


@pytest.fixture
def queue(application: Application) -> TestQueue:
    return application.queue


@pytest.mark.parametrize("application", STORES, indirect=True)
class TestOnEveryStore:
    def test_a_push_is_seen_with_what_it_was_pushed_with(self, queue: TestQueue) -> None:
        queue.push(Note, {"text": "now"})
        queue.later(3600, Note, {"text": "later"})
        assert_pushed(queue, Note, count=2)
        assert_pushed(queue, Note, {"text": "later"}, delay=3600, queue_name="notes", count=1)
        assert_not_pushed(queue, Broken)
        with pytest.raises(AssertionError, match="should not have been pushed"):
            assert_not_pushed(queue, Note, {"text": "now"})
        with pytest.raises(AssertionError, match=r"\+ \{'text': 'now'\}"):
            assert_pushed(queue, Note, {"text": "never"})

    def test_a_delayed_job_runs_when_its_time_has_come(self, queue: TestQueue) -> None:
        queue.later(3600, Note, {"text": "later"})
        assert queue.drain().runs == 0
        queue.travel(minutes=59)
        assert queue.drain().runs == 0
        queue.travel(minutes=2)
        assert queue.drain().done == 1
        assert ran == ["later"]

    def test_a_job_that_fails_is_tried_again_when_time_has_passed_and_then_given_up(self, queue: TestQueue) -> None:
        job_id = queue.push(Broken, {})
        with pytest.raises(ValueError, match="no luck"):
            queue.drain()
        assert queue.drain(raises=False).runs == 0
        queue.travel(minutes=10)
        assert queue.drain(raises=False).failed == 1
        assert ran == ["broken", "broken"]
        assert [row.job_id for row in queue.failed_jobs()] == [job_id]
        queue.retry_failed(job_id)
        assert queue.stats().pending == 1
        assert_pushed(queue, Broken, count=1)

    def test_what_a_job_pushes_runs_in_the_same_drain(self, queue: TestQueue) -> None:
        @job(name="suite.first", queue="first")
        def first(rest: int) -> None:
            ran.append(rest)
            if rest:
                queue.push(first.bind(rest - 1))

        queue.push(first.bind(3))
        assert queue.drain().done == 4
        assert ran == [3, 2, 1, 0]
        assert_pushed(queue, first, count=4)

    def test_an_id_is_stored_once_and_seen_once(self, queue: TestQueue) -> None:
        job_id = fresh_id()
        assert queue.push(Note, {"text": "a"}, id=job_id) == queue.push(Note, {"text": "a"}, id=job_id) == job_id
        assert_pushed(queue, Note, count=1)
        assert queue.drain().runs == 1
        queue.push(Note, {"text": "a"}, id=job_id)
        assert queue.drain().runs == 0
        assert_pushed(queue, Note, count=1)

    def test_many_are_pushed_and_drained(self, queue: TestQueue) -> None:
        queue.push_many((Note, {"text": str(number)}) for number in range(250))
        assert_pushed(queue, Note, count=250)
        assert queue.drain().done == 250
        assert len(ran) == 250
        assert queue.stats().completed == 250

    def test_inline_runs_each_push_and_what_it_leads_to(self, queue: TestQueue) -> None:
        with queue.inline():
            queue.push(Note, {"text": "at once"})
            assert ran == ["at once"]
            queue.later(60, Note, {"text": "later"})
            with pytest.raises(ValueError, match="no luck"):
                queue.push(Broken, {})
        queue.push(Note, {"text": "not inline"})
        assert ran == ["at once", "broken"]

    def test_a_schedule_pushes_when_it_is_due(self, queue: TestQueue) -> None:
        scheduler = Scheduler(queue)
        scheduler.every(Note, 3600, {"text": "tick"}, id="hourly")
        scheduler.tick()
        assert queue.drain().runs == 0
        for _ in range(2):
            queue.travel(hours=1, seconds=5)
            scheduler.tick()
        assert queue.drain().done == 2

    def test_a_cancelled_job_does_not_run(self, queue: TestQueue) -> None:
        job_id = queue.push(Note, {"text": "a"})
        queue.cancel(job_id)
        assert queue.drain().runs == 0
        record = queue.get(job_id)
        assert record is not None
        assert record.status is JobState.CANCELLED
        assert_pushed(queue, Note, count=1)

    def test_coroutines_push_and_drain_on_their_own_loop(self, queue: TestQueue) -> None:
        loops: list[object] = []

        @job(name="suite.async")
        async def on_loop() -> None:
            loops.append(asyncio.get_running_loop())

        async def test() -> None:
            await queue.apush(on_loop)
            await queue.alater(60, on_loop)
            assert_pushed(queue, on_loop, count=2)
            assert (await queue.adrain()).done == 1
            queue.travel(minutes=2)
            assert (await queue.adrain()).done == 1
            assert loops == [asyncio.get_running_loop()] * 2

        asyncio.run(test())

    def test_reset_leaves_nothing(self, queue: TestQueue) -> None:
        queue.push(Note, {"text": "a"})
        queue.drain()
        queue.push(Broken, {})
        queue.reset()
        assert queue.pushed() == []
        assert queue.stats().total == 0
        assert queue.drain().runs == 0
        queue.check_empty()

    def test_a_store_that_holds_jobs_is_told_before_the_test_begins(self, queue: TestQueue) -> None:
        queue.push(Note, {"text": "a"})
        with pytest.raises(ConfigurationError, match=r"holds 1 job\(s\) before the test begins"):
            queue.check_empty()

    def test_plugins_see_the_pushes(self, application: Application) -> None:
        seen: list[str] = []

        class Watch:
            @hookimpl
            def protojobs_job_queued(self) -> None:
                seen.append("queued")

            @hookimpl
            def protojobs_job_processed(self) -> None:
                seen.append("processed")

        queue = TestQueue(store=application.queue.driver, plugins=[("watch", Watch())])
        queue.push(Note, {"text": "a"})
        queue.drain()
        assert seen == ["queued", "processed"]


def closing(application: Application, ending: str) -> object:
    """A job that stores an order and completes itself in one transaction, which then ends like this."""

    @job(name=f"suite.close-{ending}", queue="orders", retry_delay=60)
    def close(context: JobContext) -> None:
        with application.session() as session:
            session.execute(text("insert into orders values (1)"))
            context.complete_in(session)
            if ending == "rollback":
                session.rollback()
            else:
                session.commit()
        if ending == "raise":
            raise ValueError("after the commit")

    return close


@pytest.mark.parametrize("application", SQL_STORES, indirect=True)
class TestInTheApplicationsTransaction:
    def test_a_push_is_seen_and_runs_after_the_commit(self, application: Application) -> None:
        queue = application.queue
        with application.session() as session:
            session.execute(text("insert into orders values (1)"))
            queue.push(Note, {"text": "a"}, session=session)
            queue.later(60, Note, {"text": "later"}, session=session)
            queue.push_many([(Note, {"text": "b"}), (Note, {"text": "c"})], session=session)
            session.commit()
        assert_pushed(queue, Note, count=4)
        assert_pushed(queue, Note, {"text": "later"}, delay=60)
        assert queue.drain().done == 3
        queue.travel(minutes=2)
        assert queue.drain().done == 1
        assert ran == ["a", "b", "c", "later"]
        assert application.orders() == 1

    def test_what_the_application_rolls_back_was_not_pushed(self, application: Application) -> None:
        queue = application.queue
        with application.session() as session:
            queue.push(Note, {"text": "a"}, session=session)
            session.rollback()
            queue.push(Note, {"text": "b"}, session=session)
            session.commit()
        with pytest.raises(RuntimeError, match="out of stock"), application.session() as session, session.begin():
            session.execute(text("insert into orders values (1)"))
            queue.push(Note, {"text": "c"}, session=session)
            raise RuntimeError("out of stock")
        assert_not_pushed(queue, Note, {"text": "a"})
        assert_not_pushed(queue, Note, {"text": "c"})
        assert_pushed(queue, Note, count=1)
        assert queue.drain().done == 1
        assert ran == ["b"]
        assert application.orders() == 0

    def test_a_savepoint_takes_its_pushes_along(self, application: Application) -> None:
        queue = application.queue
        with application.session() as session:
            kept = session.begin_nested()
            queue.push(Note, {"text": "kept"}, session=session)
            inner = session.begin_nested()
            queue.push(Note, {"text": "dropped"}, session=session)
            inner.rollback()
            kept.commit()
            outer = session.begin_nested()
            with session.begin_nested():
                queue.push(Note, {"text": "released, and dropped"}, session=session)
            outer.rollback()
            session.commit()
        assert [push.data for push in queue.pushed()] == [{"text": "kept"}]
        queue.drain()
        assert ran == ["kept"]

    def test_a_connection_will_do(self, application: Application) -> None:
        queue = application.queue
        with application.connection() as connection:
            connection.execute(text("insert into orders values (1)"))
            queue.push(Note, {"text": "a"}, session=connection)
        assert_pushed(queue, Note, count=1)
        assert queue.drain().done == 1

    def test_a_job_completes_itself_with_its_effects(self, application: Application) -> None:
        queue = application.queue
        job_id = queue.push(closing(application, "commit"))
        report = queue.drain()
        assert (report.runs, report.done, report.errors) == (1, 1, ())
        record = queue.get(job_id)
        assert record is not None
        assert record.status is JobState.COMPLETED
        assert application.orders() == 1
        queue.travel(hours=1)
        assert queue.drain().runs == 0

    def test_a_job_that_never_commits_its_completion_is_told(self, application: Application) -> None:
        queue = application.queue
        job_id = queue.push(closing(application, "rollback"))
        with pytest.raises(JobError, match="has not been committed"):
            queue.drain()
        record = queue.get(job_id)
        assert record is not None
        assert (record.status, record.attempts) == (JobState.PENDING, 1)
        assert application.orders() == 0

    def test_a_job_that_has_completed_itself_and_raises_is_told_and_does_not_run_again(
        self, application: Application
    ) -> None:
        queue = application.queue
        queue.push(closing(application, "raise"))
        with pytest.raises(ValueError, match="after the commit"):
            queue.drain()
        queue.travel(hours=1)
        assert queue.drain().runs == 0
        assert queue.stats().completed == 1
        assert application.orders() == 1

    def test_a_job_pushes_the_next_one_in_its_own_transaction(self, application: Application) -> None:
        queue = application.queue

        @job(name="suite.step", queue="steps")
        def step(number: int, context: JobContext) -> None:
            with application.session() as session, session.begin():
                session.execute(text("insert into orders values (:number)"), {"number": number})
                if number < 3:
                    queue.push(step.bind(number + 1), session=session)
                context.complete_in(session)

        queue.push(step.bind(1))
        assert queue.drain().done == 3
        assert application.orders() == 3
        assert_pushed(queue, step, count=3)

    def test_inline_runs_what_a_session_has_committed(self, application: Application) -> None:
        queue = application.queue
        with queue.inline():
            with application.session() as session, session.begin():
                session.execute(text("insert into orders values (1)"))
                queue.push(closing(application, "commit"), session=session)
            assert application.orders() == 2
        assert queue.stats().completed == 1


ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mariadb": "mariadb+asyncmy"}


class TestAStoreByItsURL:
    def test_sessions_of_coroutines_push_and_complete(self, store_url: str) -> None:
        url = make_url(store_url)
        engine = create_async_engine(url.set(drivername=ASYNC[url.get_backend_name()]))

        @job(name="suite.async-close")
        async def close(context: JobContext) -> None:
            async with AsyncSession(engine) as session, session.begin():
                await context.acomplete_in(session)

        async def test() -> None:
            with TestQueue(store=store_url) as queue:
                async with AsyncSession(engine) as session, session.begin():
                    await queue.apush(close, session=session)
                    assert_not_pushed(queue, close)
                assert_pushed(queue, close)
                async with AsyncSession(engine) as session:
                    await queue.apush(close, session=session)
                assert_pushed(queue, close, count=1)
                assert (await queue.adrain()).done == 1
            await engine.dispose()

        asyncio.run(test())

    def test_a_driver_of_the_application_s_is_taken_as_it_is(self, tmp_path: Path) -> None:
        driver = SQLAlchemyDriver(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))
        driver.setup()
        queue = TestQueue(store=driver)
        queue.push(Note, {"text": "a"})
        assert queue.drain().done == 1
        driver.close()


class TestMemory:
    def test_still_has_no_sessions_and_says_what_to_do(self) -> None:
        queue = TestQueue()
        with pytest.raises(NotSupported, match="Use a SQLAlchemy driver on the same database"):
            queue.push(Note, {"text": "a"}, session=object())
        assert queue.pushed() == []


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def connection(request: pytest.FixtureRequest, engines: Callable[[str], Engine]) -> Iterator[Connection]:
    with engines(request.param).connect() as connection:
        yield connection
        connection.rollback()


class TestInsideAConnection:
    def test_a_push_without_a_session_goes_with_the_savepoint_around_it(self, connection: Connection) -> None:
        queue = TestQueue(store=inside(connection))
        with connection.begin_nested() as outer:
            queue.push(Note, {"text": "a"})
            with connection.begin_nested():
                queue.push(Note, {"text": "b"})
            assert_pushed(queue, Note, count=2)
            outer.rollback()
        assert queue.pushed() == []
        assert queue.stats().total == 0

    def test_a_push_counts_before_its_session_commits(self, connection: Connection) -> None:
        queue = TestQueue(store=inside(connection))
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            queue.push(Note, {"text": "a"}, session=session)
            assert_pushed(queue, Note)
            assert queue.drain().done == 1
        assert_not_pushed(queue, Note)

    def test_the_end_of_the_transaction_removes_everything(self, connection: Connection) -> None:
        queue = TestQueue(store=inside(connection))
        queue.push(Note, {"text": "a"})
        queue.drain()
        connection.rollback()
        assert queue.pushed() == []
        with pytest.raises(ConfigurationError, match="has ended.*create_savepoint"):
            queue.stats()
        assert TestQueue(store=inside(connection)).stats().total == 0

    def test_a_session_on_another_connection_is_refused(self, connection: Connection) -> None:
        queue = TestQueue(store=inside(connection))
        with Session(connection.engine) as session, pytest.raises(OptionInvalid, match="on another connection"):
            queue.push(Note, {"text": "a"}, session=session)

    def test_a_statement_that_fails_leaves_the_transaction_as_it_was(self, connection: Connection) -> None:
        driver = inside(connection)
        queue = TestQueue(store=driver)
        queue.push(Note, {"text": "a"})

        def fails(conn: Connection) -> None:
            conn.execute(text("update jobs set queue = 'other'"))
            conn.execute(text("select nonsense from jobs"))

        with pytest.raises(ProtojobsError):
            driver._run(fails, Mode.STORE)
        assert queue.stats("notes").pending == 1
        assert queue.drain().done == 1

    def test_a_session_of_the_driver_s_own_is_a_savepoint(self, connection: Connection) -> None:
        driver = inside(connection)
        queue = TestQueue(store=driver)
        with pytest.raises(RuntimeError), driver.begin() as session:
            queue.push(Note, {"text": "a"}, session=session)
            raise RuntimeError
        assert_not_pushed(queue, Note)

    def test_what_needs_more_than_one_connection_is_refused(self, connection: Connection) -> None:
        driver = inside(connection)
        with pytest.raises(NotSupported, match="Run the jobs by drain"):
            driver.wait(["q"], 0)
        with pytest.raises(NotSupported, match="protojobs migrate"):
            driver.migrate()
        with pytest.raises(NotSupported, match="create_savepoint"):
            _ = driver.engine

    def test_tables_that_are_not_there_are_told(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
        with engine.connect() as connection, pytest.raises(SchemaOutdated, match="protojobs migrate"):
            inside(connection).setup()
        engine.dispose()

    def test_only_a_connection_is_taken(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
        with pytest.raises(OptionInvalid, match=r"engine\.connect\(\)"):
            inside(engine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def test_a_store_with_names_of_its_own_is_found(self, connection: Connection) -> None:
        where = {"schema": "jobs"} if connection.engine.dialect.name == "postgresql" else {"prefix": "pj_"}
        driver = SQLAlchemyDriver(connection.engine, **where)
        if "schema" in where:
            with connection.engine.begin() as conn:
                conn.execute(text("create schema if not exists jobs"))
        driver.setup()
        try:
            queue = TestQueue(store=inside(connection, **where))
            queue.push(Note, {"text": "a"})
            with Session(connection, join_transaction_mode="create_savepoint") as session, session.begin():
                queue.push(Note, {"text": "b"}, session=session)
            assert queue.drain().done == 2
            assert_pushed(queue, Note, count=2)
            connection.rollback()
            assert driver.stats().total == 0
        finally:
            connection.rollback()
            driver.teardown()
            driver.close()


SHARED = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


@asynccontextmanager
async def rolled_back_by(engine: Engine) -> AsyncIterator[AsyncConnection]:
    """As an asynchronous application's own fixture does it."""
    other = create_async_engine(engine.url.set(drivername=SHARED[engine.dialect.name]))
    async with other.connect() as connection:
        transaction = await connection.begin()
        yield connection
        if transaction.is_active:
            await transaction.rollback()
    await other.dispose()
    gc.collect()  # a plain connection that is left behind may say nothing, and close nothing
    assert_nothing_left(engine)


def session_on(connection: AsyncConnection) -> AsyncSession:
    return AsyncSession(bind=connection, join_transaction_mode="create_savepoint")


@pytest.mark.parametrize("kind", SHARED)
class TestInsideAnAsyncConnection:
    def test_pushes_of_sessions_are_seen_drained_and_rolled_back(
        self, kind: str, engines: Callable[[str], Engine]
    ) -> None:
        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                queue = TestQueue(store=inside(connection))

                @job(name="suite.async-step", queue="steps")
                async def step(number: int, context: JobContext) -> None:
                    async with session_on(connection) as session, session.begin():
                        await session.execute(text("insert into orders values (:number)"), {"number": number})
                        if number < 3:
                            await queue.apush(step.bind(number + 1), session=session)
                        await context.acomplete_in(session)

                async with session_on(connection) as session:
                    await session.execute(text("insert into orders values (0)"))
                    await queue.apush(step.bind(1), session=session)
                    assert_pushed(queue, step.bind(1), count=1)
                    await session.commit()
                    await queue.apush(step.bind(99), session=session)
                    await session.rollback()
                assert_pushed(queue, step, count=1)
                report = await queue.adrain()
                assert (report.runs, report.done) == (3, 3)
                assert (await connection.execute(text("select count(*) from orders"))).scalar_one() == 4
                assert queue.stats().completed == 3

        asyncio.run(test())

    def test_a_savepoint_takes_its_pushes_along(self, kind: str, engines: Callable[[str], Engine]) -> None:
        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                driver = inside(connection)
                queue = TestQueue(store=driver)
                async with session_on(connection) as session, session.begin():
                    outer = await session.begin_nested()
                    await session.execute(text("insert into orders values (1)"))
                    await queue.apush(Note, {"text": "dropped"})
                    with driver.begin() as ours:
                        queue.push(Note, {"text": "released, and dropped"}, session=ours)
                    assert_pushed(queue, Note, count=2)
                    await outer.rollback()
                    await queue.apush(Note, {"text": "kept"}, session=session)
                assert [push.data for push in queue.pushed()] == [{"text": "kept"}]
                assert (await queue.adrain()).done == 1
                assert ran == ["kept"]

        asyncio.run(test())

    def test_plain_calls_work_between_two_awaits(self, kind: str, engines: Callable[[str], Engine]) -> None:
        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                await connection.execute(text("insert into orders values (1)"))
                queue = TestQueue(store=inside(connection))
                queue.push(Broken, {})
                assert (await connection.execute(text("select count(*) from orders"))).scalar_one() == 1
                assert queue.drain(raises=False).runs == 1
                queue.travel(minutes=10)
                assert queue.drain(raises=False).failed == 1
                with queue.inline():
                    await queue.apush(Note, {"text": "at once"})
                assert ran == ["broken", "broken", "at once"]
                assert (await connection.execute(text("select count(*) from failed_jobs"))).scalar_one() == 1

        asyncio.run(test())

    def test_a_statement_that_fails_leaves_the_transaction_as_it_was(
        self, kind: str, engines: Callable[[str], Engine]
    ) -> None:
        def fails(conn: Connection) -> None:
            conn.execute(text("update jobs set queue = 'other'"))
            conn.execute(text("select nonsense from jobs"))

        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                driver = inside(connection)
                queue = TestQueue(store=driver)
                await queue.apush(Note, {"text": "a"})
                with pytest.raises(ProtojobsError):
                    driver._run(fails, Mode.STORE)
                assert (await connection.execute(text("select queue from jobs"))).scalars().all() == ["notes"]
                assert (await queue.adrain()).done == 1

        asyncio.run(test())

    def test_the_end_of_the_transaction_removes_everything(self, kind: str, engines: Callable[[str], Engine]) -> None:
        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                queue = TestQueue(store=inside(connection))
                await queue.apush(Note, {"text": "a"})
                await connection.rollback()
                assert queue.pushed() == []
                with pytest.raises(ConfigurationError, match="has ended.*create_savepoint"):
                    queue.stats()
                with pytest.raises(OptionInvalid, match=r"has no transaction.*await connection\.begin\(\)"):
                    inside(connection)

        asyncio.run(test())

    def test_a_session_on_another_connection_is_refused(self, kind: str, engines: Callable[[str], Engine]) -> None:
        async def test() -> None:
            async with rolled_back_by(engines(kind)) as connection:
                queue = TestQueue(store=inside(connection))
                async with AsyncSession(connection.engine) as session:
                    with pytest.raises(OptionInvalid, match="on another connection"):
                        await queue.apush(Note, {"text": "a"}, session=session)

        asyncio.run(test())


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_an_async_connection_without_a_plain_one_inside_is_refused(kind: str, engines: Callable[[str], Engine]) -> None:
    async def test() -> None:
        engine = create_async_engine(engines(kind).url.set(drivername=ASYNC[kind]))
        async with engine.connect() as connection, connection.begin():
            name = ASYNC[kind].replace("+", r"\+")
            with pytest.raises(
                OptionInvalid, match=rf"on {name} has no plain.*postgresql\+psycopg or sqlite\+aiosqlite"
            ):
                inside(connection)
        await engine.dispose()

    asyncio.run(test())


def test_a_call_while_another_task_waits_on_the_async_connection_is_refused(
    engines: Callable[[str], Engine],
) -> None:
    engine = engines("postgresql")

    async def test(holder: Connection) -> None:
        async with rolled_back_by(engine) as connection:
            queue = TestQueue(store=inside(connection))
            raw = (await connection.get_raw_connection()).driver_connection
            assert isinstance(raw, psycopg.AsyncConnection)
            waiting = asyncio.create_task(connection.execute(text("select pg_advisory_xact_lock(17)")))
            while not raw.lock.locked():
                await asyncio.sleep(0)
            with pytest.raises(ConfigurationError, match="Another task waits for an answer"):
                queue.stats()
            holder.rollback()
            await waiting
            assert queue.stats().total == 0

    with engine.connect() as holder:
        holder.execute(text("select pg_advisory_xact_lock(17)"))
        asyncio.run(test(holder))


def test_notices_still_reach_the_async_connection(engines: Callable[[str], Engine]) -> None:
    heard: list[str | None] = []

    async def test() -> None:
        async with rolled_back_by(engines("postgresql")) as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert isinstance(raw, psycopg.AsyncConnection)
            raw.add_notice_handler(lambda notice: heard.append(notice.message_primary))
            TestQueue(store=inside(connection)).push(Note, {"text": "a"})
            await connection.execute(text("do $$ begin raise notice 'hello'; end $$"))

    asyncio.run(test())
    assert heard == ["hello"]


def test_sqlite_needs_no_other_database_s_library(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    migrated(url).dispose()
    program = f"""
import sys
sys.modules.update(dict.fromkeys(["psycopg", "pymysql", "asyncpg", "asyncmy"]))  # importing these fails
from sqlalchemy import create_engine
from protojobs_sqlalchemy.testing import inside
with create_engine({url!r}).connect() as connection:
    print(inside(connection).stats().total)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr
