"""The plans of the hot statements: each walks an index, and none reads or sorts what it does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import asdict
from pymysql.cursors import DictCursor
from sqlalchemy import create_engine, event, insert, text

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, WorkerInfo
from protojobs.testing.conformance.plans import firing_of, new_schedule
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import TurnRequest
from protojobs_sqlalchemy.mariadb import turn, waiting
from protojobs_sqlalchemy.mariadb.turn import raw_of
from protojobs_sqlalchemy.postgresql import statements
from protojobs_sqlalchemy.postgresql.turn import claim_values
from protojobs_sqlalchemy.postgresql.values import completions_of
from protojobs_sqlalchemy.sqlite import jobs as sqlite_turn
from protojobs_sqlalchemy.tables.tables import PLAIN as tables
from protojobs_sqlalchemy.verbs.lanes import Lanes

ROWS = 6_000
SCHEDULES = 2_000
IDS = object()  # stands for the ids of twenty jobs
Values = tuple[Any, ...] | dict[str, Any]


def filled(url: str) -> SQLAlchemyDriver:
    """A store with due, delayed, processing, completed and failed jobs in six lanes."""
    driver = SQLAlchemyDriver(url)
    driver.setup()
    for first in range(0, ROWS, 500):
        driver.enqueue([new_job(number) for number in range(first, first + 500)])
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q0",), concurrency=1, lease_s=60)
    driver.register(worker)
    claims = driver.claim(worker.id, ["q0", "q1"], slots=500, limit=500)
    driver.settle(
        [
            Settlement(
                id=c.id, claim_seq=c.claim_seq, reserved_by=c.reserved_by, verb=Verb.COMPLETE if n % 3 else Verb.FAIL
            )
            for n, c in enumerate(claims[:400])
        ]
    )
    with driver._connections.engine.begin() as conn:
        conn.execute(
            text({"mariadb": "ANALYZE TABLE jobs", "mysql": "ANALYZE TABLE jobs"}.get(conn.dialect.name, "ANALYZE"))
        )
    return driver


def new_job(number: int) -> NewJob:
    return NewJob(
        id=fresh_id(),
        queue=f"q{number % 3}",
        job_name="n",
        job_class="c",
        data="{}",
        priority=number % 2,
        delay=1000.0 if number % 5 == 0 else 0.0,
    )


def with_schedules(driver: SQLAlchemyDriver) -> SQLAlchemyDriver:
    """And of schedules: a few due, most of them not, every tenth paused or ended."""
    now = driver.now()
    row = asdict(new_schedule(due=now)) | {"misfire": "latest", "overlap": "allow", "version": 1}
    rows = [
        row
        | {
            "id": f"s{n:05}",
            "is_paused": int(n % 10 == 1),
            "next_due_at": None if n % 10 == 2 else now + timedelta(minutes=n - 50),
        }
        for n in range(SCHEDULES)
    ]
    with driver._connections.engine.begin() as conn:
        conn.execute(insert(tables.schedules), rows)
        conn.execute(text("ANALYZE TABLE schedules" if conn.dialect.name in ("mariadb", "mysql") else "ANALYZE"))
    return driver


def asked_of_schedules(driver: SQLAlchemyDriver) -> list[tuple[str, Values]]:
    """What a tick asks of the table by SQLAlchemy, with its values: it looks, locks and moves."""
    seen: list[tuple[str, Values]] = []

    @event.listens_for(driver._connections.engine, "before_cursor_execute")
    def _note(_conn: object, _cursor: object, statement: str, values: Values, *_: object) -> None:
        if "schedules" in statement and not statement.startswith("EXPLAIN"):
            seen.append((statement, values))

    due = driver.due_schedules(20)
    assert len(due.schedules) == 20
    driver.due_schedules(20, cursor=due.cursor)
    driver.fire([firing_of(schedule) for schedule in due.schedules])
    look, look_on, lock, move = seen
    assert " FOR UPDATE" in lock[0] or driver._connections.engine.dialect.name == "sqlite"
    return [look, look_on, lock, move]


class TestOnSQLite:
    @pytest.fixture
    def driver(self, sqlite_url: str) -> Iterator[SQLAlchemyDriver]:
        driver = filled(sqlite_url)
        yield driver
        driver.close()

    @pytest.mark.parametrize(
        ("statement", "values", "index"),
        [
            (sqlite_turn._LANES, ['["q0", "q2"]'], "jobs_ready"),
            (sqlite_turn._DUE, ["q2", 1, 2**60], "jobs_ready"),
            (sqlite_turn._LEND, [1, "w", "[1, 2]"], "INTEGER PRIMARY KEY"),
            (sqlite_turn._COMPLETE, [1, '{"a": 1}', "w"], "sqlite_autoindex_jobs_1"),
            (sqlite_turn._NEXT_DUE, ["q2", 1], "jobs_ready"),
        ],
    )
    def test_each_statement_searches_its_index(
        self, driver: SQLAlchemyDriver, statement: str, values: list[object], index: str
    ) -> None:
        with driver._connections.engine.connect() as conn:
            rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {tables.names.sql(statement)}", tuple(values)).fetchall()
        plan = [str(row[3]) for row in rows]
        touching = [line for line in plan if " jobs" in line]
        assert touching
        assert all(line.startswith("SEARCH") and index in line for line in touching), plan
        assert not any("TEMP B-TREE FOR ORDER BY" in line and "jobs" in line for line in plan)
        if statement == sqlite_turn._DUE:
            assert not any("TEMP B-TREE" in line for line in plan), plan

    def test_a_tick_searches_schedules_by_time_and_by_id(self, driver: SQLAlchemyDriver) -> None:
        plans = [self.plan(driver, *asked) for asked in asked_of_schedules(with_schedules(driver))]
        by_id = "sqlite_autoindex_schedules_1"
        for plan, index in zip(plans, ("schedules_due", "schedules_due", by_id, by_id), strict=True):
            touching = [line for line in plan if " schedules" in line]
            assert touching
            assert all(line.startswith("SEARCH") and index in line for line in touching), plan
            assert not any("TEMP B-TREE" in line for line in plan), plan

    def plan(self, driver: SQLAlchemyDriver, statement: str, values: Values) -> list[str]:
        with driver._connections.engine.connect() as conn:
            return [str(row[3]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]


class TestOnPostgreSQL:
    @pytest.fixture
    def driver(self, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
        driver = filled(make_store_url("postgresql"))
        yield driver
        driver.close()

    @pytest.mark.parametrize("knows_lanes", [True, False])
    def test_a_turn_settles_by_the_primary_key_and_claims_by_its_lanes(
        self, driver: SQLAlchemyDriver, *, knows_lanes: bool
    ) -> None:
        request = TurnRequest(worker=fresh_id(), queues=["q2"], slots=50, limit=50)
        done = [Settlement(id=fresh_id(), claim_seq=1, reserved_by="w", verb=Verb.COMPLETE) for _ in range(20)]
        lanes = Lanes([("q2", 1), ("q2", 0)], 0.0) if knows_lanes else None
        values = claim_values(request, lanes) | completions_of(done, 0)
        _, of_known, anew = statements.IN_PLACE
        plan = self.plan(driver, of_known if knows_lanes else anew, values)
        assert "Seq Scan on jobs" not in plan
        assert "jobs_processing" not in plan
        assert "Sort Key: jobs" not in plan
        assert plan.count("Index Scan using jobs_ready") == 1
        assert plan.count("using jobs_ready") > (0 if knows_lanes else 1)  # the lanes too are found there, by jumping
        assert plan.count("Index Scan using jobs_pkey") == 1
        assert plan.count("Tid Scan on jobs") == 1  # what was locked a moment before

    def test_the_lanes_are_found_by_jumping(self, driver: SQLAlchemyDriver) -> None:
        plan = self.plan(driver, statements.LANES, {"queues": ["q0", "q2"]})
        assert "Seq Scan on jobs" not in plan
        assert "using jobs_ready" in plan

    def test_a_tick_searches_schedules_by_time_and_by_id(self, driver: SQLAlchemyDriver) -> None:
        asked = asked_of_schedules(with_schedules(driver))
        plain = create_engine(driver._connections.engine.url)  # whose planner is free to choose
        with plain.connect() as conn:
            plans = [
                "\n".join(conn.exec_driver_sql(f"EXPLAIN {statement}", values).scalars()) for statement, values in asked
            ]
        plain.dispose()
        assert [plan.count("using schedules_due") for plan in plans[:2]] == [2, 2]
        assert "Sort" not in plans[0] + plans[1]
        assert [plan for plan in plans if "Seq Scan on schedules" in plan] == []
        assert [plan for plan in plans[2:] if "schedules_pkey" not in plan] == []

    def plan(self, driver: SQLAlchemyDriver, statement: str, values: dict[str, object]) -> str:
        with driver._connections.engine.connect() as conn:
            raw = conn.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            rows = raw.execute(tables.names.sql(f"EXPLAIN {statement}"), values | {"offset": timedelta()}).fetchall()
        return "\n".join(str(row[0]) for row in rows)


class TestOnMariaDB:
    @pytest.fixture
    def driver(self, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
        driver = filled(make_store_url("mariadb"))
        yield driver
        driver.close()

    @pytest.mark.parametrize(
        ("statement", "values", "index"),
        [
            (waiting._FIRST_LANE, [0, "q2"], "jobs_ready"),
            (waiting._NEXT_LANE, [0, "q2", 1], "jobs_ready"),
            (waiting._FIRST_DUE, ["q2", 1], "jobs_ready"),
            (turn._DUE, [40_000, "q2", 1, "1970-01-01", 0, "q2", 50], "jobs_ready"),
            (turn._DATA, [IDS], "PRIMARY"),
            (turn._LOCK, [IDS], "PRIMARY"),
            (turn._CURRENT, [IDS, 1, "w"], "PRIMARY"),
            (turn._COMPLETE, [0, IDS, 1, "w"], "PRIMARY"),
            (turn._LEND, ["2100-01-01", "w", IDS], "PRIMARY"),
        ],
    )
    def test_each_statement_uses_its_index_and_sorts_nothing(
        self, driver: SQLAlchemyDriver, statement: str, values: list[object], index: str
    ) -> None:
        ids = [row.job_id for row in driver.failed(limit=20).jobs]
        values = [ids if value is IDS else value for value in values]
        with driver._connections.engine.connect() as conn, raw_of(conn).cursor(DictCursor) as cursor:
            cursor.execute(f"EXPLAIN {tables.names.sql(statement)}", values)
            (jobs,) = [row for row in cursor.fetchall() if row["table"] == "jobs"]
        assert jobs["key"] == index
        if index == "PRIMARY":
            assert int(jobs["rows"]) <= len(ids)
        assert "filesort" not in str(jobs["Extra"]) or "GROUP BY" in statement  # of what it has counted

    def test_a_tick_searches_schedules_by_time_and_by_id(self, driver: SQLAlchemyDriver) -> None:
        # What the last one changes, it finds as an insert.
        look, look_on, lock, _ = asked_of_schedules(with_schedules(driver))
        indexes = ((look, "schedules_due", 2), (look_on, "schedules_due", 2), (lock, "PRIMARY", 1))
        for (statement, values), index, ranges in indexes:
            with driver._connections.engine.connect() as conn:
                rows = conn.exec_driver_sql(f"EXPLAIN {statement}", values).mappings().all()
            touching = [row for row in rows if row["table"] == "schedules"]
            assert [(row["key"], row["type"]) for row in touching] == [(index, "range")] * ranges, rows
            assert not any("filesort" in str(row["Extra"]) for row in touching), rows
