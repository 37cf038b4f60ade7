"""Our own connections and the application's: what stays open, what is left as it was, and what a fork may touch."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.orm import Session

from protojobs.clock import SYSTEM_CLOCK, within
from protojobs.entropy import fresh_id
from protojobs.errors import ContractBroken, LeaseLost, OptionInvalid, StoreUnavailable
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting import connections
from protojobs_sqlalchemy.connecting.urls import parse
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.mariadb.waiting import Watcher
from protojobs_sqlalchemy.sqlite import dialect as sqlite
from protojobs_sqlalchemy.tables.tables import PLAIN
from protojobs_sqlalchemy.waking.threads import Wakeup

NORMAL, FULL = 1, 2


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """The application's own: as create_engine makes it, with one connection."""
    scheme = (
        store_url.partition(":")[0].replace("postgresql", "postgresql+psycopg").replace("mariadb", "mariadb+pymysql")
    )
    url = scheme.replace("+psycopg+psycopg", "+psycopg").replace("+pymysql+pymysql", "+pymysql")
    engine = create_engine(f"{url}:{store_url.partition(':')[2]}", pool_size=1, max_overflow=0, pool_timeout=2)
    yield engine
    engine.dispose()


def new_job() -> NewJob:
    return NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")


def work_one(driver: SQLAlchemyDriver) -> None:
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    driver.register(worker)
    (claim,) = driver.claim(worker.id, ["q"], slots=1, limit=1)
    done = Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)
    driver.settle_and_claim(worker.id, [done], ["q"], slots=0, limit=0)
    driver.heartbeat(worker.id, {})
    driver.leave(worker.id)


def test_an_application_s_engine_serves_the_whole_life_of_a_job_by_one_connection(engine: Engine) -> None:
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    work_one(driver)
    assert driver.stats().completed == 1
    driver.close()
    assert engine.pool.status().startswith("Pool size: 1  Connections in pool: 1")


def test_an_application_s_connections_keep_their_settings(engine: Engine) -> None:
    def settings() -> tuple[object, ...]:
        with engine.connect() as conn:
            raw: Any = conn.connection.driver_connection
            if engine.dialect.name == "sqlite":
                mode = conn.execute(text("PRAGMA synchronous")).scalar()
                return (raw.isolation_level, mode)
            level = conn.get_isolation_level()
            return (raw.autocommit if engine.dialect.name == "postgresql" else raw.get_autocommit(), level)

    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda raw, _record: raw.execute("PRAGMA synchronous = OFF"))
    before = settings()
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job(), new_job()])
    work_one(driver)
    assert settings() == before


def test_an_application_s_own_begin_recipe_does_no_harm(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")

    @event.listens_for(engine, "connect")
    def quiet(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None

    event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    driver = SQLAlchemyDriver(engine)
    driver.setup()
    driver.enqueue([new_job()])
    work_one(driver)
    assert driver.stats().completed == 1
    engine.dispose()


def test_a_forked_child_starts_afresh(store_url: str) -> None:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    driver.enqueue([new_job()])
    driver.wait(["q"], 0.2)
    pid = os.fork()
    if not pid:
        try:
            driver.enqueue([new_job()])
            work_one(driver)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    driver.enqueue([new_job()])
    stats = driver.stats()
    assert (stats.pending, stats.completed) == (2, 1)
    driver.close()


def test_on_mariadb_a_forked_child_waits_on_a_connection_of_its_own(make_store_url: Callable[[str], str]) -> None:
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()
    watcher = Watcher(driver.engine, Wakeup(), PLAIN.names)
    watcher.wait(0, ["q"], 0.01, 0.0)
    (idle,) = watcher._idle
    pid = os.fork()
    if not pid:
        watcher.wait(0, ["q"], 0.01, 0.0)
        is_apart = [raw.thread_id() != idle.thread_id() for raw in watcher._idle] == [True]
        watcher.close()
        os._exit(0 if is_apart else 1)
    assert os.waitpid(pid, 0)[1] == 0
    watcher.wait(0, ["q"], 0.01, 0.0)
    assert list(watcher._idle) == [idle]  # which the child has not closed
    watcher.close()
    driver.close()


def test_on_mariadb_our_connections_read_what_is_committed_also_when_they_come_from_the_pool(
    make_store_url: Callable[[str], str],
) -> None:
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()

    def levels() -> set[str]:
        for _ in range(2):
            with pytest.raises(LeaseLost):  # a failed step gives its connection back
                driver.heartbeat("gone", {})
        ask = text("SELECT @@session.tx_isolation")
        with driver.engine.connect() as plain, driver.begin() as session:
            ours = driver._connections.run(lambda conn: conn.execute(ask).scalar_one(), Mode.SINGLE)
            return {ours, str(plain.execute(ask).scalar()), str(session.execute(ask).scalar())}

    assert levels() | levels() == {"READ-COMMITTED"}
    driver.close()


class TestAPostgreSQLURLWithSettings:
    """Two paths to two schemas are two stores, and what one path pushes the other never runs."""

    @pytest.fixture
    def plain(self, make_store_url: Callable[[str], str]) -> str:
        return make_store_url("postgresql")

    @pytest.fixture
    def url(self, plain: str) -> str:
        with create_engine(parse(plain)).begin() as conn:
            conn.execute(text("CREATE SCHEMA app"))
        return f"{plain}?options=-csearch_path%3Dapp&application_name=shop"

    def test_they_hold_on_each_of_our_connections_beside_our_own(self, url: str) -> None:
        driver = SQLAlchemyDriver(url)
        driver.setup()
        assert inspect(driver.engine).get_table_names("public") == []
        with driver.engine.connect() as conn:
            shown = [conn.execute(text(f"SHOW {name}")).scalar() for name in ("search_path", "application_name", "jit")]
        assert shown == ["app", "shop", "off"]
        driver.enqueue([new_job()])
        pooled, theirs = SQLAlchemyDriver(url, is_pooled=True), SQLAlchemyDriver(create_engine(parse(url)))
        assert [each.stats().pending for each in (pooled, theirs)] == [1, 1]
        for each in (driver, pooled, theirs):
            each.close()

    def test_those_of_the_environment_hold_too(self, plain: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGOPTIONS", "-csearch_path=app")
        driver = SQLAlchemyDriver(plain)
        driver.setup()
        assert "jobs" in inspect(driver.engine).get_table_names("app")
        driver.close()

    def test_a_session_that_would_reach_another_schema_is_refused(self, plain: str, url: str) -> None:
        driver, other = SQLAlchemyDriver(url), SQLAlchemyDriver(plain)
        driver.setup()
        other.setup()
        same = create_engine(parse(url), connect_args={"application_name": "another"})
        for engine in (same, create_engine(parse(plain), connect_args={"options": "-c search_path=app"})):
            with Session(engine) as session, session.begin():
                driver.enqueue_in(session, [new_job()])
            engine.dispose()
        with Session(other.engine) as session, pytest.raises(OptionInvalid, match="elsewhere"):
            driver.enqueue_in(session, [new_job()])
        assert (driver.stats().pending, other.stats().total) == (2, 0)
        driver.close()
        other.close()


def test_three_threads_share_a_driver(store_url: str) -> None:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    errors: list[BaseException] = []

    def push_many() -> None:
        try:
            for _ in range(20):
                driver.enqueue([new_job()])
                driver.stats()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push_many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert driver.stats().pending == 60
    driver.close()


def test_a_closed_driver_may_be_used_again(store_url: str) -> None:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    driver.close()
    driver.enqueue([new_job()])
    assert driver.stats().pending == 1
    driver.close()


def test_a_damaged_file_is_told_with_the_way_to_what_can_be_read(tmp_path: Path) -> None:
    driver = SQLAlchemyDriver(f"sqlite:///{tmp_path / 'jobs.db'}")
    driver.setup()
    driver.enqueue([new_job() for _ in range(200)])
    driver.close()
    page, kept = 4096, (tmp_path / "jobs.db").read_bytes()
    (tmp_path / "jobs.db").write_bytes(kept[:page] + b"\xff" * (len(kept) - page))
    with pytest.raises(ContractBroken, match="sqlite3 FILE .recover"):
        driver.enqueue([new_job()])
    driver.close()


class TestBusySQLite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "jobs.db"

    @pytest.fixture
    def driver(self, path: Path) -> Iterator[SQLAlchemyDriver]:
        driver = SQLAlchemyDriver(f"sqlite:///{path}")
        driver.setup()
        yield driver
        driver.close()

    def test_a_verb_waits_for_another_writer(self, driver: SQLAlchemyDriver, path: Path) -> None:
        with sqlite3.connect(path, isolation_level=None, check_same_thread=False) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.3, other.execute, ["COMMIT"])
            release.start()
            driver.enqueue([new_job()])
            release.join()
        assert driver.stats().pending == 1

    def test_readers_do_not_wait(self, driver: SQLAlchemyDriver, path: Path) -> None:
        driver.enqueue([new_job()])
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            started = SYSTEM_CLOCK.monotonic()
            assert driver.stats().pending == 1
            assert SYSTEM_CLOCK.monotonic() - started < 1
            other.execute("ROLLBACK")

    def test_the_wait_ends_and_its_error_names_the_likely_cause(
        self, driver: SQLAlchemyDriver, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "_BUSY_S", 0.1)
        monkeypatch.setattr(connections, "_CONFLICT_S", 0.1)
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match=r"database is locked.*a job's own transaction"):
                driver.enqueue([new_job()])
            other.execute("ROLLBACK")
        driver.enqueue([new_job()])

    def test_a_session_on_our_engine_is_synced_whatever_the_connection_did_before(
        self, driver: SQLAlchemyDriver
    ) -> None:
        for _ in range(2):
            with pytest.raises(LeaseLost):  # less would have done for it
                driver.heartbeat("gone", {})
            with driver.begin() as session:
                driver.enqueue_in(session, [new_job()])
                assert session.execute(text("PRAGMA synchronous")).scalar() == FULL

    def test_a_failed_verb_leaves_the_application_s_connection_as_it_was(
        self, driver: SQLAlchemyDriver, path: Path
    ) -> None:
        engine = create_engine(driver.engine.url, pool_size=1, max_overflow=0, connect_args={"timeout": 0})
        event.listen(engine, "connect", lambda raw, _record: raw.execute(f"PRAGMA synchronous = {NORMAL}"))
        on_theirs = SQLAlchemyDriver(engine)

        def fail(conn: Connection) -> None:
            raise LookupError

        for _ in range(2):
            with pytest.raises(LookupError):
                on_theirs._connections.run(fail, Mode.STORE)
            with engine.connect() as conn:
                assert conn.execute(text("PRAGMA synchronous")).scalar() == NORMAL
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable), within(0.2):
                on_theirs.enqueue([new_job()])
            other.execute("ROLLBACK")
        with engine.connect() as conn:
            assert conn.execute(text("PRAGMA synchronous")).scalar() == NORMAL
        engine.dispose()

    def test_what_is_stored_is_synced_and_what_may_be_repeated_is_not(self, driver: SQLAlchemyDriver) -> None:
        seen: list[int] = []
        plain = driver._dialect.end  # pyright: ignore[reportPrivateUsage]

        def spy(conn: object, mode: object) -> None:
            seen.append(conn.connection.driver_connection.execute("PRAGMA synchronous").fetchone()[0])  # type: ignore[attr-defined]
            plain(conn, mode)  # type: ignore[arg-type]

        driver._dialect.end = spy  # type: ignore[method-assign]
        driver.enqueue([new_job()])
        work_one(driver)
        assert seen[0] == FULL
        assert set(seen[1:]) == {NORMAL}
