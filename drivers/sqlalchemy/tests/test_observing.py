"""Notes in the databases: what their statements read, how they are stored and how they go."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, event, func, insert, select, text

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid, StoreUnavailable
from protojobs.port.observing import HOUR, MINUTE, ActionNote, AttemptNote, Result, Rollup
from protojobs.port.records import NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.observing import depths, expiry
from protojobs_sqlalchemy.tables.tables import PLAIN as tables

MINUTES, WORKERS, NAMES = 60, 4, 10
RECORD_STATEMENTS_MAX = 2


@pytest.fixture
def driver(store_url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    yield driver
    driver.close()


def on(url: str) -> SQLAlchemyDriver:
    driver = SQLAlchemyDriver(url)
    driver.setup()
    return driver


def counted(began_at: datetime, queue: str = "", job_name: str = "", **other: object) -> Rollup:
    values = {"period_s": MINUTE, "result": Result.COMPLETED, "count": 3, "wait_s": 1.5, "run_s": 2.5} | other
    return Rollup(began_at=began_at, queue=queue, job_name=job_name, waits={5: 3}, runs={7: 3}, **values)  # type: ignore[arg-type]  (values)


def ran(ended_at: datetime) -> AttemptNote:
    return AttemptNote(
        job_id=fresh_id(),
        attempt=1,
        claim_seq=1,
        worker="w",
        result=Result.RETRIED,
        started_at=ended_at,
        ended_at=ended_at,
        error="Traceback",
        fingerprint="f",
    )


def fill(driver: SQLAlchemyDriver) -> datetime:
    """Rollups of some workers for an hour; answers the last minute."""
    minute = driver.now().replace(second=0, microsecond=0)
    names = [("", ""), *((f"q{n}", f"j{n % 3}") for n in range(NAMES))]
    for worker in range(WORKERS):
        for first in range(0, MINUTES, 30):
            moments = [minute - timedelta(minutes=passed) for passed in range(first, first + 30)]
            driver.record(f"w{worker}", [counted(moment, *pair) for moment in moments for pair in names], [])
    with driver.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        is_mysql = conn.dialect.name in ("mariadb", "mysql")
        conn.execute(text("ANALYZE TABLE rollups" if is_mysql else "ANALYZE"))
    return minute


def statements(driver: SQLAlchemyDriver) -> list[tuple[str, object]]:
    """What the driver asks by SQLAlchemy from now on, with its values."""
    seen: list[tuple[str, object]] = []

    @event.listens_for(driver._connections.engine, "before_cursor_execute")
    def _note(_conn: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        if not statement.startswith("EXPLAIN"):
            seen.append((statement, values))

    return seen


def plan(conn: Connection, statement: str, values: object) -> str:
    sqlite = conn.dialect.name == "sqlite"
    rows = conn.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}", values)  # type: ignore[arg-type]  (ours)
    return "\n".join(" ".join(str(value) for value in row) for row in rows)


READS: dict[str, tuple[Callable[[SQLAlchemyDriver, datetime, datetime], object], dict[str, str]]] = {
    "all": (
        lambda driver, since, until: driver.rollups(MINUTE, since, until),
        {"sqlite": "rollups_queue", "postgresql": "rollups_", "mariadb": "rollups_"},
    ),
    "a queue": (
        lambda driver, since, until: driver.rollups(MINUTE, since, until, queue="q3"),
        {"sqlite": "rollups_queue", "postgresql": "rollups_queue", "mariadb": "rollups_queue"},
    ),
    "a job": (
        lambda driver, since, until: driver.rollups(MINUTE, since, until, job_name="j1"),
        {"sqlite": "rollups_job", "postgresql": "rollups_job", "mariadb": "rollups_job"},
    ),
}


def test_rollups_are_read_by_an_index_that_leads_to_the_names(driver: SQLAlchemyDriver) -> None:
    minute = fill(driver)
    since, until = minute - timedelta(minutes=9), minute + timedelta(minutes=1)
    asked = statements(driver)
    for name, (read, indexes) in READS.items():
        asked.clear()
        assert len(read(driver, since, until)) == 10  # type: ignore[arg-type]  (a list)
        with driver.engine.connect() as conn:
            found = plan(conn, *asked[-1])
        assert indexes[driver.engine.dialect.name] in found, (name, found)
        assert "Seq Scan" not in found


def test_totals_are_added_up_in_one_statement(driver: SQLAlchemyDriver) -> None:
    minute = fill(driver)
    asked = statements(driver)
    totals = driver.totals(MINUTE, minute - timedelta(minutes=9), minute + timedelta(minutes=1), by="queue", limit=4)
    assert len(asked) == 1
    assert [(total.count, total.run_s) for total in totals] == [(WORKERS * 10 * 3, WORKERS * 10 * 2.5)] * 4


def test_a_record_is_a_statement_for_each_kind_of_note(driver: SQLAlchemyDriver) -> None:
    now = driver.now()
    driver.record("w", [], [])
    asked = statements(driver)
    driver.record("w", [counted(now, f"q{n}", "j") for n in range(100)], [ran(now) for _ in range(100)])
    assert len(asked) == RECORD_STATEMENTS_MAX


def test_a_damaged_note_costs_a_chart_a_point(driver: SQLAlchemyDriver) -> None:
    now = driver.now()
    driver.record("a", [counted(now)], [])
    driver.record("b", [counted(now), counted(now, result=Result.FAILED)], [])
    with driver.engine.begin() as conn:
        hurt = tables.rollups.update().where(tables.rollups.c.worker == "b")
        conn.execute(hurt.where(tables.rollups.c.result == "completed").values(waits="{", runs='{"x": "y"}'))
        conn.execute(hurt.where(tables.rollups.c.result == "failed").values(result="unheard of"))
    (found,) = driver.rollups(MINUTE, now, now + timedelta(seconds=1))
    assert (found.count, found.waits, found.runs) == (6, {5: 3}, {7: 3})
    assert driver.totals(MINUTE, now, now + timedelta(seconds=1), by="queue") == []


def test_what_cannot_be_stored_is_refused(driver: SQLAlchemyDriver) -> None:
    now = driver.now()
    action = ActionNote(id="1", at=now, actor="a", action="retry", target="t")
    with pytest.raises(OptionInvalid, match="61 s cannot be kept"):
        driver.record("w", [counted(now, period_s=61)], [])
    with pytest.raises(OptionInvalid, match="'x' is not the id of a job"):
        driver.record(
            "w",
            [],
            [AttemptNote(**{name: getattr(ran(now), name) for name in ran(now).__struct_fields__} | {"job_id": "x"})],
        )
    with pytest.raises(OptionInvalid, match="'1' is no UUID"):
        driver.note_action(action)
    assert driver.attempts("x") == []


def test_old_notes_go_by_an_index_in_steps_for_as_long_as_there_is_time(
    driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_AT_ONCE", 3)
    monkeypatch.setattr("protojobs_sqlalchemy.observing.depths.TIME_S", 0.0)
    now = driver.now()
    old, fresh = now - timedelta(days=100), now
    driver.record("w", [counted(old, f"q{n}", "j") for n in range(5)], [ran(old) for _ in range(8)] + [ran(fresh)])
    driver.record("w", [counted(old, period_s=HOUR), counted(fresh)], [])
    for _ in range(7):
        driver.note_action(ActionNote(id=fresh_id(), at=old, actor="a", action="retry", target="t"))
    asked = statements(driver)
    assert driver.sample_depths()
    assert [count(driver, table) for table in ("rollups", "attempts", "audit")] == [3, 6, 4]
    deletes = [each for each in asked if each[0].startswith("DELETE")]
    with driver._connections.engine.connect() as conn:
        plans = [plan(conn, *each) for each in deletes]
    if driver.engine.dialect.name == "sqlite":
        assert [found for found in plans if "SCAN" in found.replace("SCAN CONSTANT ROW", "")] == []
    if driver.engine.dialect.name == "postgresql":
        assert [found for found in plans if "Seq Scan" in found] == []
    monkeypatch.setattr("protojobs_sqlalchemy.observing.depths.TIME_S", 60.0)
    driver.time_offset += 60  # the next minute
    assert driver.sample_depths()
    assert [count(driver, table) for table in ("rollups", "attempts", "audit")] == [1, 1, 0]


def test_old_notes_go_also_where_counting_takes_too_long(
    driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_given: object) -> None:
        raise StoreUnavailable("no time is left")

    monkeypatch.setattr(depths, "measure", slow)
    driver.record("w", [counted(driver.now() - timedelta(days=100))], [])
    with pytest.raises(StoreUnavailable):
        driver.sample_depths()
    assert count(driver, "rollups") == 0


def count(driver: SQLAlchemyDriver, table: str) -> int:
    with driver.engine.connect() as conn:
        return conn.execute(select(func.count()).select_from(tables.metadata.tables[table])).scalar_one()


def test_only_the_longest_queues_are_counted_to_the_end(
    driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depths, "_COMPARED_MAX", 4)
    for queue, length, delay in (("a", 9, 0.0), ("b", 3, 1000.0), ("c", 4, 0.0), ("d", 1, 0.0), ("e", 30, 0.0)):
        job = {"job_name": "n", "job_class": "c", "data": "{}", "delay": delay}
        driver.enqueue([NewJob(id=fresh_id(), queue=queue, **job) for _ in range(length)])  # type: ignore[arg-type]  (values)
    assert driver.sample_depths(limit=4, counted_max=20)
    now = driver.now()
    samples = driver.depths(now - timedelta(minutes=2), now + timedelta(minutes=1))
    assert {each.queue: (each.ready, each.scheduled, each.is_capped) for each in samples} == {
        "a": (9, 0, False),
        "b": (0, 3, False),
        "c": (4, 0, False),
        "e": (21, 0, True),
    }


def test_on_sqlite_a_note_is_no_more_durable_than_a_claim(sqlite_url: str) -> None:
    driver = on(sqlite_url)
    seen: list[str] = []
    begin = driver._dialect.begin  # pyright: ignore[reportPrivateUsage]

    def traced(conn: Connection, mode: Mode) -> None:
        raw = conn.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_trace_callback(seen.append)
        begin(conn, mode)

    driver._dialect.begin = traced  # type: ignore[method-assign]
    now = driver.now()
    driver.record("w", [counted(now)], [ran(now)])
    driver.note_action(ActionNote(id=fresh_id(), at=now, actor="a", action="retry", target="t"))
    driver.sample_depths()
    assert seen.count("BEGIN IMMEDIATE") > 3
    assert [sql for sql in seen if "synchronous" in sql and "NORMAL" not in sql] == []
    driver.close()


def test_on_sqlite_many_notes_are_stored_in_steps_between_which_others_may_write(sqlite_url: str) -> None:
    driver = on(sqlite_url)
    now = driver.now()
    begun: list[Mode] = []
    begin = driver._dialect.begin  # pyright: ignore[reportPrivateUsage]

    def noting(conn: Connection, mode: Mode) -> None:
        begun.append(mode)
        begin(conn, mode)

    driver._dialect.begin = noting  # type: ignore[method-assign]
    driver.record("w", [counted(now, f"q{n}", "j") for n in range(1_000)], [])
    assert begun == [Mode.WORK] * 4
    assert count(driver, "rollups") == 1_000
    driver.close()


def test_groups_are_found_by_jumping_on_mariadb(make_store_url: Callable[[str], str]) -> None:
    """`Using index for group-by` reads two entries for each group, whatever else the optimizer could do."""
    driver = on(make_store_url("mariadb"))
    now = driver.now()
    row = {"queue": "q", "job_class": "c", "job_name": "n", "data": "{}", "attempts": 1, "exception": "e"}
    rows = [
        row | {"id": fresh_id(), "job_id": fresh_id(), "failed_at": now, "fingerprint": f"f{n % 5}"}
        for n in range(2_000)
    ]
    with driver.engine.begin() as conn:
        conn.execute(insert(tables.failed_jobs), rows)
        conn.execute(text("ANALYZE TABLE failed_jobs"))
    asked = statements(driver)
    groups = driver.failure_groups(counted_max=100)
    assert [(group.count, group.is_capped) for group in groups] == [(100, True)] * 5
    with driver.engine.connect() as conn:
        assert "Using index for group-by" in plan(conn, *asked[0])
    assert len(asked) == 3
    driver.close()
