"""The plans of the hot statements: each walks an index, and none reads or sorts what it does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text

from protojobs.entropy import fresh_id
from protojobs.lifecycle import Verb
from protojobs.records import NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver, mariadb, postgresql_statements, sqlite, watching
from protojobs_sqlalchemy.dialects import Ask
from protojobs_sqlalchemy.lanes import Lanes
from protojobs_sqlalchemy.postgresql import _claim_values, _completions  # pyright: ignore[reportPrivateUsage]

ROWS = 6_000


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
    with driver.engine.begin() as conn:
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


class TestOnSQLite:
    @pytest.fixture
    def driver(self, sqlite_url: str) -> Iterator[SQLAlchemyDriver]:
        driver = filled(sqlite_url)
        yield driver
        driver.close()

    @pytest.mark.parametrize(
        ("statement", "values", "index"),
        [
            (sqlite._LANES, ['["q0", "q2"]'], "jobs_ready"),
            (sqlite._DUE, ["q2", 1, 2**60], "jobs_ready"),
            (sqlite._LEND, [1, "w", "[1, 2]"], "INTEGER PRIMARY KEY"),
            (sqlite._COMPLETE, [1, '[["a", 1, "w"]]'], "sqlite_autoindex_jobs_1"),
            (sqlite._NEXT_DUE, ["q2", 1], "jobs_ready"),
        ],
    )
    def test_each_statement_searches_its_index(
        self, driver: SQLAlchemyDriver, statement: str, values: list[object], index: str
    ) -> None:
        with driver.engine.connect() as conn:
            rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", tuple(values)).fetchall()
        plan = [str(row[3]) for row in rows]
        touching = [line for line in plan if " jobs" in line]
        assert touching
        assert all(line.startswith("SEARCH") and index in line for line in touching), plan
        assert not any("TEMP B-TREE FOR ORDER BY" in line and "jobs" in line for line in plan)
        if statement == sqlite._DUE:
            assert not any("TEMP B-TREE" in line for line in plan), plan


class TestOnPostgreSQL:
    @pytest.fixture
    def driver(self, make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
        driver = filled(make_store_url("postgresql"))
        yield driver
        driver.close()

    def test_a_turn_settles_by_the_primary_key_and_claims_by_its_lanes(self, driver: SQLAlchemyDriver) -> None:
        ask = Ask(worker=fresh_id(), slots=50, limit=50)
        done = [Settlement(id=fresh_id(), claim_seq=1, reserved_by="w", verb=Verb.COMPLETE) for _ in range(20)]
        values = _claim_values(ask, Lanes([("q2", 1), ("q2", 0)], 0.0), []) | _completions(done, ask.worker)
        plan = self.plan(driver, postgresql_statements.SETTLE_AND_CLAIM, values)
        assert "Seq Scan on jobs" not in plan
        assert "jobs_processing" not in plan
        assert "Sort Key: jobs.available_at" not in plan
        assert "Index Scan using jobs_ready" in plan
        assert plan.count("Index Scan using jobs_pkey") == 2

    def test_the_lanes_are_found_by_jumping(self, driver: SQLAlchemyDriver) -> None:
        plan = self.plan(driver, postgresql_statements.LANES, {"queues": ["q0", "q2"]})
        assert "Seq Scan on jobs" not in plan
        assert "using jobs_ready" in plan

    def plan(self, driver: SQLAlchemyDriver, statement: str, values: dict[str, object]) -> str:
        with driver.engine.connect() as conn:
            raw = conn.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            rows = raw.execute(f"EXPLAIN {statement}", values | {"offset": timedelta()}).fetchall()
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
            (watching._FIRST_LANE, ["q2"], "jobs_ready"),
            (watching._NEXT_LANE, ["q2", 1], "jobs_ready"),
            (watching._FIRST_DUE, ["q2", 1], "jobs_ready"),
            (mariadb._DUE, ["q2", 1, "2100-01-01", "1970-01-01", "q2", 50], "jobs_ready"),
            (mariadb._LOCK.format("%s"), [fresh_id()], "PRIMARY"),
        ],
    )
    def test_each_statement_uses_its_index_and_sorts_nothing(
        self, driver: SQLAlchemyDriver, statement: str, values: list[object], index: str
    ) -> None:
        if index == "PRIMARY":
            values = [driver.failed(limit=1).jobs[0].job_id]
        with driver.engine.connect() as conn:
            rows = conn.exec_driver_sql(f"EXPLAIN {statement}", tuple(values)).mappings().all()
        (jobs,) = [row for row in rows if row["table"] == "jobs"]
        assert jobs["key"] == index
        assert "filesort" not in str(jobs["Extra"])
