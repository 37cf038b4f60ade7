"""Who waits for whose connections: heartbeats and workers for nobody's, whatever sessions hold and jobs push."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event, text

import servers
from protojobs.entropy import fresh_id
from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting import connections, pools
from protojobs_sqlalchemy.connecting.urls import parse
from protojobs_sqlalchemy.dialect import Mode, Use

SESSIONS_MAX = 30  # of `driver.engine`


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


def registered(driver: SQLAlchemyDriver) -> str:
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    driver.register(worker)
    return worker.id


def work(driver: SQLAlchemyDriver) -> None:
    """All that a worker asks of its store while its jobs run."""
    worker = registered(driver)
    driver.heartbeat(worker, {})
    (claim,) = driver.claim(worker, ["q"], slots=1, limit=1)
    driver.heartbeat(worker, {})
    assert [held.id for held in driver.held(worker)] == [claim.id]
    done = Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)
    driver.settle([done])
    driver.settle_and_claim(worker, [], ["q"], slots=1, limit=1)
    driver.reclaim(10)
    driver.prune(completed_older_than=3600, failed_older_than=3600)
    driver.due_schedules(10)
    driver.record(worker, [], [])
    driver.sample_depths()
    driver.leave(worker)


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """An application's, with one connection, for which nobody waits long."""
    engine = create_engine(parse(store_url), pool_size=1, max_overflow=0, pool_timeout=0.2)
    yield engine
    engine.dispose()


@contextmanager
def all_held(engine: Engine, count: int) -> Iterator[None]:
    """As by jobs that keep a session open while they work."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(engine.connect()).execute(text("SELECT 1"))
        yield


@contextmanager
def holding(driver: SQLAlchemyDriver, use: Use) -> Iterator[None]:
    """A step of this use that goes on for the time of the block."""
    has_begun, may_end = threading.Event(), threading.Event()

    def step(_conn: Connection) -> None:
        has_begun.set()
        may_end.wait(30)

    thread = threading.Thread(
        target=driver._connections.run, args=(step, Mode.SINGLE), kwargs={"use": use, "needs_tables": False}
    )
    thread.start()
    try:
        assert has_begun.wait(30)
        yield
    finally:
        may_end.set()
        thread.join(30)


def test_a_worker_waits_for_none_of_the_sessions_that_hold_an_application_s_pool(engine: Engine) -> None:
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    with all_held(engine, 1):
        with pytest.raises(StoreUnavailable, match="larger pool_size"):
            driver.enqueue([new_job()])  # a push is a call of the application's, and waits for its pool
        work(driver)
    assert driver.stats().completed == 1
    driver.close()


def test_a_worker_waits_for_none_of_the_sessions_of_the_driver_s_own_engine(store_url: str) -> None:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    with all_held(driver.engine, SESSIONS_MAX):
        driver.enqueue([new_job()])
        work(driver)
    assert driver.stats().completed == 1
    driver.close()


def test_a_heartbeat_waits_neither_for_pushes_nor_for_claims(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_AT_ONCE_MAX", 1)
    monkeypatch.setattr(connections, "_PLACE_S", 0.2)
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    worker = registered(driver)
    driver.enqueue([new_job()])
    with holding(driver, Use.CALL):
        with pytest.raises(StoreUnavailable, match="busy"):
            driver.stats()
        work(driver)
        with holding(driver, Use.WORK):
            with pytest.raises(StoreUnavailable, match="busy"):
                driver.claim(worker, ["q"], slots=1, limit=1)
            driver.heartbeat(worker, {})
    driver.close()


def test_connections_beside_a_pool_are_opened_as_the_application_opens_its_own(
    make_store_url: Callable[[str], str],
) -> None:
    url = make_store_url("postgresql")
    opened: list[str] = []

    def connect() -> psycopg.Connection[Any]:
        opened.append("creator")
        return psycopg.connect(servers.plain(url))

    engine = create_engine("postgresql+psycopg://hidden:***@nowhere/app", creator=connect, pool_size=1, max_overflow=0)
    driver = SQLAlchemyDriver(engine)
    event.listen(engine, "connect", lambda _raw, _record: opened.append("connect"))
    event.listen(engine, "checkout", lambda _raw, _record, _proxy: opened.append("checkout"))
    event.listen(engine, "before_cursor_execute", lambda *_: opened.append("statement"))
    driver.setup()
    worker = registered(driver)
    opened.clear()
    with all_held(engine, 1):
        driver.heartbeat(worker, {})
    assert {"creator", "connect", "checkout", "statement"} == set(opened)
    driver.close()
    engine.dispose()


def test_do_connect_of_an_application_s_engine_is_asked_for_each_connection_beside_its_pool(
    make_store_url: Callable[[str], str],
) -> None:
    url = parse(make_store_url("postgresql"))
    engine = create_engine(url.set(username="nobody", password="stale"), pool_size=1, max_overflow=0)
    tokens: list[str] = []

    @event.listens_for(engine, "do_connect")
    def _token(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        tokens.append("fresh")
        options.update(user=url.username, password=url.password)

    driver = SQLAlchemyDriver(engine)
    driver.setup()
    worker = registered(driver)
    with all_held(engine, 1):
        driver.heartbeat(worker, {})
    assert len(tokens) == 3  # the application's, the worker's, and that of heartbeats
    driver.close()
    engine.dispose()


def test_an_engine_without_a_pool_is_given_no_pool(store_url: str) -> None:
    engine = create_engine(parse(store_url), poolclass=NullPool)
    open_now: list[int] = [0]
    event.listen(engine, "connect", lambda _raw, _record: open_now.append(open_now[-1] + 1))
    event.listen(engine, "close", lambda _raw, _record: open_now.append(open_now[-1] - 1))
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    work(driver)
    assert open_now[-1] == 0
    driver.close()


def test_a_pool_that_cannot_be_made_a_second_time_is_shared_with_a_warning(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(parse(store_url), poolclass=StaticPool)
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    work(driver)
    work_again = registered(driver)
    driver.heartbeat(work_again, {})
    warnings = [record.getMessage() for record in caplog.records if "StaticPool" in record.getMessage()]
    assert len(warnings) == len({Use.WORK, Use.BEAT})
    driver.close()
    engine.dispose()


def test_where_the_server_takes_no_more_connections_a_free_one_of_the_application_s_pool_is_used_with_a_warning(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(parse(store_url), pool_size=1, max_overflow=0)
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    is_full = threading.Event()

    @event.listens_for(engine, "do_connect")
    def _refuse(*_: object) -> None:
        if is_full.is_set():
            raise engine.dialect.loaded_dbapi.OperationalError("sorry, too many clients already")

    is_full.set()
    worker = registered(driver)
    driver.heartbeat(worker, {})
    driver.heartbeat(worker, {})
    assert sum("too many clients" in record.getMessage() for record in caplog.records) == len({Use.WORK, Use.BEAT})
    is_full.clear()
    driver.heartbeat(worker, {})
    with all_held(engine, 1):
        driver.heartbeat(worker, {})
    driver.close()
    engine.dispose()


def test_a_forked_child_of_an_application_opens_connections_of_its_own(engine: Engine) -> None:
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    worker = registered(driver)
    driver.heartbeat(worker, {})
    pid = os.fork()
    if not pid:
        try:
            engine.dispose(close=False)  # as SQLAlchemy wants it of the application
            driver.heartbeat(worker, {})
            driver.held(worker)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    driver.heartbeat(worker, {})
    assert driver.held(worker) == []
    driver.close()


def test_closing_a_driver_closes_what_it_opened_beside_an_application_s_pool(
    make_store_url: Callable[[str], str],
) -> None:
    engine = create_engine(parse(make_store_url("postgresql")), pool_size=1, max_overflow=0)
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    work(driver)
    count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    for wanted in (3, 1):
        # Each in a transaction of its own: within one the server shows the processes of its first look.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            for _ in range(600):  # a server process takes a moment to end
                if conn.execute(count).scalar_one() == wanted:
                    break
                conn.execute(text("SELECT pg_sleep(0.05)"))
            assert conn.execute(count).scalar_one() == wanted
        driver.close()
    engine.dispose()


@pytest.mark.parametrize(("concurrency", "warns"), [(3, True), (4, True), (2, False)])
def test_a_worker_with_as_many_slots_as_the_application_s_pool_has_connections_is_warned(
    make_store_url: Callable[[str], str], caplog: pytest.LogCaptureFixture, concurrency: int, *, warns: bool
) -> None:
    caplog.set_level(logging.WARNING)
    engine = create_engine(parse(make_store_url("sqlite")), pool_size=1, max_overflow=2)
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.register(WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=concurrency, lease_s=60))
    assert any("pool_size above" in record.getMessage() for record in caplog.records) is warns
    driver.close()
    engine.dispose()


class TestTheDriversOwnEngineForSessions:
    """What runs there is the application's own SQL: planned as anywhere else, and limited by nobody else's needs."""

    def test_on_postgresql_it_is_planned_as_usual_and_has_no_time_limit(
        self, make_store_url: Callable[[str], str]
    ) -> None:
        names = ("enable_seqscan", "enable_bitmapscan", "enable_sort", "jit", "plan_cache_mode", "statement_timeout")
        names = (*names, "idle_in_transaction_session_timeout")
        url = make_store_url("postgresql")
        driver, plain = SQLAlchemyDriver(url), create_engine(parse(url))

        def settings(conn: Connection) -> list[object]:
            return [conn.execute(text(f"SHOW {name}")).scalar() for name in names]

        with driver.begin() as session, plain.connect() as usual:
            assert settings(session.connection()) == settings(usual)
            raw: Any = session.connection().connection.driver_connection
            assert type(raw) is psycopg.Connection
        assert driver._connections.run(settings, Mode.SINGLE, needs_tables=False) != settings(plain.connect())
        driver.close()
        plain.dispose()

    def test_on_mariadb_it_has_no_time_limit(self, make_store_url: Callable[[str], str]) -> None:
        driver = SQLAlchemyDriver(make_store_url("mariadb"))
        with driver.begin() as session:
            ask = "SELECT @@session.idle_transaction_timeout, @@session.innodb_lock_wait_timeout = @@global."
            idle_s, is_usual = session.execute(text(f"{ask}innodb_lock_wait_timeout")).one()
            raw: Any = session.connection().connection.driver_connection
            assert (idle_s, bool(is_usual), raw._read_timeout, raw._write_timeout) == (0, True, None, None)
        driver.close()

    def test_behind_a_pooler_it_prepares_nothing(self, make_store_url: Callable[[str], str]) -> None:
        driver = SQLAlchemyDriver(make_store_url("postgresql"), is_pooled=True)
        with driver.begin() as session:
            raw: Any = session.connection().connection.driver_connection
            assert raw.prepare_threshold is None
        driver.close()
