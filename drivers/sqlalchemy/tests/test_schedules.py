"""What a tick asks of each database, and what becomes of schedules that two steps want at the same moment."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pymysql
import pytest
from msgspec.structs import asdict
from sqlalchemy import Connection, create_engine, event, insert, text, update

from protojobs import JobQueue, Scheduler
from protojobs.errors import StoreUnavailable
from protojobs.port.records import NewJob
from protojobs.port.schedules import Fired, FireStatus, Firing, Overlap
from protojobs.testing.conformance.plans import (
    MINUTE,
    a_due_schedule,
    firing_of,
    job_id_of,
    new_schedule,
    outcomes,
    schedule_of,
    store_schedule,
)
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode, Stored
from protojobs_sqlalchemy.tables.tables import PLAIN as tables
from protojobs_sqlalchemy.verbs import schedules
from protojobs_sqlalchemy.verbs.inserting import new_row

STORED = 10_000
WAIT_S = 20.0
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}
IDLE_LIMIT = {
    "postgresql": "SHOW idle_in_transaction_session_timeout",
    "mariadb": "SELECT @@idle_transaction_timeout",
}
IDLE_SOON = {
    "postgresql": "SET LOCAL idle_in_transaction_session_timeout = '1s'",
    "mariadb": "SET SESSION idle_transaction_timeout = 1",
}
WITH_ROW_LOCKS = sorted(WAITING)  # SQLite has one lock for the whole file

# Store time and a query; BEGIN, store time, lock, states of jobs, insert, move, COMMIT; then time and query once more,
# which find nothing. Beside them SQLite sets `synchronous`; MariaDB asks for the jobs' time, and sets a savepoint.
STATEMENTS_MAX = 13


class TestUnreadable:
    """A newer release, or a foreign hand, has written what makes no schedule here. SQLite keeps any type anywhere."""

    @pytest.mark.parametrize(
        ("backend", "spoil"),
        [
            *((backend, "misfire = 'newest_first'") for backend in ("sqlite", "postgresql", "mariadb")),
            *((backend, "overlap = 'queue_two'") for backend in ("sqlite", "postgresql", "mariadb")),
            ("sqlite", "data = x'ff00'"),
            ("sqlite", "last_due_at = 'soon'"),
            ("sqlite", "end_at = 9e18"),
            ("sqlite", "version = 'two'"),
        ],
    )
    def test_hides_no_other_is_told_and_can_be_removed(
        self, make_store_url: Callable[[str], str], backend: str, spoil: str
    ) -> None:
        driver = SQLAlchemyDriver(make_store_url(backend))
        driver.setup()
        due = driver.now() - MINUTE
        odd, *others = [store_schedule(driver, new_schedule(name, due=due)) for name in ("b odd", "a", "c")]
        with driver.engine.begin() as conn:
            conn.execute(text(f"UPDATE schedules SET {spoil} WHERE id = 'b odd'"))
        for page in (driver.list_schedules(), driver.get_schedules(["a", "b odd", "c"]), driver.due_schedules(10)):
            assert [one.id for one in page.unreadable] == ["b odd"]
            assert sorted(one.id for one in page.schedules) == ["a", "c"]
        first = driver.due_schedules(2)
        assert ([one.id for one in first.unreadable], first.cursor and first.cursor.id) == (["b odd"], "b odd")
        assert [one.id for one in driver.due_schedules(2, cursor=first.cursor).schedules] == ["c"]
        said = [firing_of(odd), *map(firing_of, others)]
        assert outcomes(driver, *said) == [FireStatus.LOST, FireStatus.FIRED, FireStatus.FIRED]
        assert driver.remove_schedule("b odd") is True
        assert driver.list_schedules().unreadable == driver.due_schedules(10).unreadable == ()
        driver.close()

    def test_one_whose_time_is_none_is_behind_all_that_are_due(self, sqlite_url: str) -> None:
        driver = SQLAlchemyDriver(sqlite_url)
        driver.setup()
        for name in ("odd", "z"):
            store_schedule(driver, new_schedule(name, due=driver.now() - MINUTE))
        with driver.engine.begin() as conn:
            conn.execute(text("UPDATE schedules SET next_due_at = 'soon' WHERE id = 'odd'"))
        due = driver.due_schedules(10)
        assert ([one.id for one in due.schedules], due.next_due_at) == (["z"], None)
        assert [one.id for one in driver.list_schedules().unreadable] == ["odd"]
        driver.close()


class TestATick:
    def test_of_a_hundred_among_ten_thousand_takes_as_few_statements_as_of_five(self, store_url: str) -> None:
        driver = SQLAlchemyDriver(store_url)
        driver.setup()
        store_many(driver, STORED)
        scheduler = Scheduler(JobQueue(driver))
        scheduler.tick()  # on a connection of the workers' own, which this opens
        with counted(driver) as asked:
            report = scheduler.tick()
        assert (report.fired, report.next_due_in is not None) == (0, True)
        assert len(asked) <= 2, "store time, and one query"
        for overlap in Overlap:
            make_due(driver, 5, overlap=overlap.value)
            with counted(driver) as few:
                assert scheduler.tick().fired == 5
            make_due(driver, 100, overlap=overlap.value)
            with counted(driver) as many:
                assert scheduler.tick().fired == 100
            assert len(many) == len(few) <= STATEMENTS_MAX, "\n".join(many)
        make_due(driver, 10, misfire="all", overlap="allow")
        with counted(driver) as often:
            assert scheduler.tick().fired == 10 * 31  # those of half an hour, and the one of now
        assert len(often) <= STATEMENTS_MAX + 2, "MariaDB's client cuts what it sends at a megabyte"
        driver.close()

    def test_stores_every_id_that_it_makes(self, make_store_url: Callable[[str], str]) -> None:
        """MariaDB's type refuses some UUIDs of version 8: one in 64 of those with random digits."""
        driver = SQLAlchemyDriver(make_store_url("mariadb"))
        driver.setup()
        store_many(driver, 10)
        make_due(driver, 10, minutes=99, misfire="all")
        assert Scheduler(JobQueue(driver)).tick().fired == 1_000
        assert driver.stats("q").pending == 1_000
        driver.close()


def store_many(driver: SQLAlchemyDriver, count: int) -> None:
    """So many schedules, none of them due."""
    ahead = driver.now() + timedelta(days=1)
    row = asdict(new_schedule(due=ahead)) | {"misfire": "latest", "overlap": "allow", "is_paused": 0, "version": 1}
    rows = [row | {"id": f"s{n:05}", "next_due_at": ahead + n * MINUTE} for n in range(count)]
    with driver.engine.begin() as conn:
        conn.execute(insert(tables.schedules), rows)


def make_due(driver: SQLAlchemyDriver, count: int, *, minutes: int = 30, **more: object) -> None:
    """So many of them wait for a time that is some minutes back, their jobs being done; `more` is set too."""
    due = driver.now() - minutes * MINUTE
    values = {"next_due_at": due, "last_due_at": None, "catch_up": 86_400.0, **more}
    with driver.engine.begin() as conn:
        conn.execute(update(tables.jobs).values(status="completed"))
        conn.execute(update(tables.schedules).where(tables.schedules.c.id < f"s{count:05}").values(values))


@contextmanager
def counted(driver: SQLAlchemyDriver) -> Iterator[list[str]]:
    """The statements that reach the database, whoever sends them; those that wake workers after the commit apart."""
    seen: list[str] = []

    def trace(raw: sqlite3.Connection, _record: object) -> None:
        raw.set_trace_callback(seen.append)

    with pytest.MonkeyPatch.context() as patch:
        if driver.engine.dialect.name == "sqlite":
            driver.close()  # its connections are made anew, and tell
            event.listen(driver._connections.engine, "connect", trace)
        for of, name in (
            (psycopg.Cursor, "execute"),
            (psycopg.Cursor, "executemany"),
            (pymysql.connections.Connection, "_execute_command"),
        ):
            patch.setattr(of, name, noting(getattr(of, name), seen))
        driver.get_schedules([])
        seen.clear()
        yield seen
    if driver.engine.dialect.name == "sqlite":
        event.remove(driver._connections.engine, "connect", trace)
        driver.close()
    apart = [statement for statement in seen if "pg_notify" not in statement]
    # SQLite runs its one prepared INSERT for each job, inside this process.
    seen[:] = [one for one, before in zip(apart, ["", *apart], strict=False) if one[:40] != before[:40]]


def noting(method: Callable[..., object], seen: list[str]) -> Callable[..., object]:
    def noted(self: object, *arguments: object, **options: object) -> object:
        assert method.__name__ != "executemany", "it sends a statement for each row"
        seen.append(str(arguments[1 if method.__name__ == "_execute_command" else 0]))
        return method(self, *arguments, **options)

    return noted


# --------------------------------------------------------------------------------------------------- two at one moment


@pytest.fixture(params=WITH_ROW_LOCKS)
def driver(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(make_store_url(request.param))
    driver.setup()
    yield driver
    driver.close()


class TestTwoAtOnce:
    def test_a_job_that_another_stores_meanwhile_is_not_stored_again(self, driver: SQLAlchemyDriver) -> None:
        said = firing_of(a_due_schedule(driver))
        with driver.engine.connect() as other:
            store_its_job(driver, other, said)
            with firing(driver, said) as answers:
                until_one_waits(driver)
                other.commit()
        assert [answer.status for answer in answers] == [FireStatus.DUPLICATE]
        assert schedule_of(driver, "s").last_job_id == job_id_of(said)
        assert driver.stats().total == 1

    def test_a_deadlock_is_met_by_firing_again(self, driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        kind = driver.engine.dialect.name
        free, said = (firing_of(a_due_schedule(driver, name)) for name in ("free", "s"))
        conflicts = noted_conflicts(driver, monkeypatch)
        with driver.engine.begin() as conn:
            conn.execute(text("CREATE TABLE ballast (n INT)"))
            if kind == "postgresql":  # of two it ends the one that looks first: time for the other to begin its wait
                conn.execute(text(f'ALTER DATABASE "{driver.engine.url.database}" SET deadlock_timeout = 2000'))
        driver.close()
        with driver.engine.connect() as other:
            if kind == "postgresql":
                other.execute(text("SET LOCAL deadlock_timeout = 20000"))
            # InnoDB ends the transaction that has changed less: not this one.
            other.execute(text("INSERT INTO ballast (n) VALUES " + ", ".join(["(1)"] * 500)))
            store_its_job(driver, other, said)
            with firing(driver, free, said) as answers:  # holds the schedules, and waits for the job
                until_one_waits(driver)
                other.execute(text("UPDATE schedules SET jitter = 1 WHERE id = 's'"))
                other.commit()
        assert len(conflicts) == 1
        assert [answer.status for answer in answers] == [FireStatus.FIRED, FireStatus.DUPLICATE]
        assert (schedule_of(driver, "s").jitter, schedule_of(driver, "s").version) == (1.0, 2)

    def test_a_schedule_that_another_holds_is_lost_and_the_others_fire(
        self, driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schedules, "_HELD_S", 0.2)
        said = [firing_of(a_due_schedule(driver, name)) for name in ("a", "held", "z")]
        with driver.engine.connect() as other:
            other.execute(text("SELECT id FROM schedules WHERE id = 'held' FOR UPDATE"))
            assert outcomes(driver, *said) == [FireStatus.FIRED, FireStatus.LOST, FireStatus.FIRED]
        assert outcomes(driver, said[1]) == [FireStatus.FIRED]

    def test_a_schedule_that_another_is_about_to_let_go_is_waited_for(
        self, driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a ticker, which asks again at once, would be told `lost` of one version again and again."""
        said = firing_of(a_due_schedule(driver))
        waits: list[float] = []
        with driver.engine.connect() as other:

            def commit_meanwhile(pause_s: float, _share: float) -> float:
                waits.append(pause_s)
                other.commit()
                return 0.0

            monkeypatch.setattr(schedules, "jittered", commit_meanwhile)
            other.execute(text("UPDATE schedules SET jitter = 1 WHERE id = 's'"))
            assert outcomes(driver, said) == [FireStatus.FIRED]
        assert len(waits) == 1
        assert schedule_of(driver, "s").jitter == 1.0


class TestAFrozenTicker:
    def test_loses_its_locks_and_fires_nothing_when_it_wakes(
        self, driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schedules, "_HELD_S", 0.2)
        said = firing_of(a_due_schedule(driver))
        may_go_on, woken = frozen_while_it_inserts(driver, said, monkeypatch)
        other = SQLAlchemyDriver(driver.engine.url)
        assert outcomes(other, firing_of(a_due_schedule(other, "t"))) == [FireStatus.FIRED]
        ends = time.monotonic() + WAIT_S
        while outcomes(other, said) == [FireStatus.LOST]:
            assert time.monotonic() < ends, "the server has not ended it"
        moved = schedule_of(other, "s")
        may_go_on.set()
        assert woken() in ("StoreUnavailable", [FireStatus.LOST])
        assert schedule_of(driver, "s") == moved
        assert driver.stats().total == 2
        other.close()

    def test_would_be_ended_by_the_server(self, driver: SQLAlchemyDriver) -> None:
        assert self.limit_of(driver) in ("10s", 10)

    def test_would_be_ended_behind_a_pooler_and_on_an_application_s_engine(
        self, make_store_url: Callable[[str], str]
    ) -> None:
        url = make_store_url("postgresql")
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        for driver in (SQLAlchemyDriver(url, is_pooled=True, timeout=7.0), SQLAlchemyDriver(engine, timeout=7.0)):
            driver.setup()
            assert self.limit_of(driver) == "7s"
            with driver.engine.connect() as conn:
                assert conn.execute(text(IDLE_LIMIT["postgresql"])).scalar_one() == "0", "a setting outlives its step"
            driver.close()
        engine.dispose()

    def limit_of(self, driver: SQLAlchemyDriver) -> object:
        ask = IDLE_LIMIT[driver.engine.dialect.name]
        return driver._connections.run(lambda conn: conn.exec_driver_sql(ask).scalar_one(), Mode.STORE)


def frozen_while_it_inserts(
    driver: SQLAlchemyDriver, said: Firing, monkeypatch: pytest.MonkeyPatch
) -> tuple[threading.Event, Callable[[], object]]:
    """A thread that fires and stands still with the schedule's row locked; what lets it go on, and what it then got."""
    has_locked, may_go_on = threading.Event(), threading.Event()
    got: list[object] = []
    real = driver._dialect.enqueue

    def stand_still(conn: Connection, jobs: Sequence[NewJob]) -> Stored:
        if not has_locked.is_set():
            conn.exec_driver_sql(IDLE_SOON[conn.dialect.name])
            has_locked.set()
            may_go_on.wait(2 * WAIT_S)
        return real(conn, jobs)

    def fire() -> None:
        try:
            got.append(outcomes(driver, said))
        except StoreUnavailable as error:
            got.append(type(error).__name__)

    def woken() -> object:
        frozen.join(WAIT_S)
        return got[0]

    frozen = threading.Thread(target=fire, daemon=True)
    monkeypatch.setattr(driver._dialect, "enqueue", stand_still)
    frozen.start()
    assert has_locked.wait(WAIT_S)
    return may_go_on, woken


@contextmanager
def firing(driver: SQLAlchemyDriver, *said: Firing) -> Iterator[list[Fired]]:
    """Fire in a thread of its own while the block runs; the answers stand in the list after it."""
    answers: list[Fired] = []
    thread = threading.Thread(target=lambda: answers.extend(driver.fire(said)), daemon=True)
    thread.start()
    yield answers
    thread.join(WAIT_S)
    assert not thread.is_alive()


def store_its_job(driver: SQLAlchemyDriver, conn: Connection, said: Firing) -> None:
    assert said.job is not None
    conn.execute(insert(tables.jobs), new_row(said.job, driver.now()))


def until_one_waits(driver: SQLAlchemyDriver) -> None:
    with driver.engine.connect() as watcher:
        watcher = watcher.execution_options(isolation_level="AUTOCOMMIT")
        ends = time.monotonic() + WAIT_S
        while not watcher.execute(text(WAITING[driver.engine.dialect.name])).scalar_one():
            assert time.monotonic() < ends
            time.sleep(0.15)  # MariaDB refreshes this view only for those who ask less than ten times a second


def noted_conflicts(driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The errors after which a step is run again."""
    conflicts: list[BaseException] = []
    real = driver._dialect.is_conflict

    def is_conflict(error: BaseException) -> bool:
        if real(error):
            conflicts.append(error)
        return real(error)

    monkeypatch.setattr(driver._dialect, "is_conflict", is_conflict)
    return conflicts
