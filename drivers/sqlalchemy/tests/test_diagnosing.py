"""What `protojobs doctor` finds in every SQL database: each finding provoked there, and none where all is well."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text

from protojobs.errors import SchemaOutdated
from protojobs.port.diagnosis import Diagnoses, Finding, Severity
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import JobFilter
from protojobs.testing.conformance.steps import join, lend, new_job, push, settle
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.sqlite.diagnosis import file_system_of

OK, NOTE, WARNING, ERROR = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.ERROR
# What the tests' servers are started with, for speed; what is put to the test here is put to it by the test itself.
OURS = {"fsync", "full_page_writes", "synchronous_commit", "innodb_flush_log_at_trx_commit", "innodb_doublewrite"}


def found(driver: SQLAlchemyDriver, code: str) -> Finding:
    (finding,) = [one for one in driver.diagnose() if one.code == code]
    return finding


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLAlchemyDriver]:
    """One database of each kind for all tests here: to make one takes longer than to look into it."""
    if request.param == "sqlite":
        made = SQLAlchemyDriver(f"sqlite:///{tmp_path_factory.mktemp('diagnosing') / 'jobs.db'}")
    else:
        made = SQLAlchemyDriver(request.getfixturevalue(f"{request.param}_url"))
    made.teardown()
    made.setup()
    yield made
    made.teardown()
    made.close()


@pytest.fixture
def driver(store: SQLAlchemyDriver) -> SQLAlchemyDriver:
    execute(store, *[f"DELETE FROM {table}" for table in ("jobs", "failed_jobs", "counters", "workers")])
    return store


def execute(driver: SQLAlchemyDriver, *statements: str) -> None:
    with driver.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for statement in statements:
            conn.execute(text(statement))


def drop_index(driver: SQLAlchemyDriver, name: str, table: str) -> None:
    on = f" ON {table}" if driver.engine.dialect.name == "mariadb" else ""
    execute(driver, f"DROP INDEX {name}{on}")


def test_a_fresh_database_has_nothing_to_mend(driver: SQLAlchemyDriver) -> None:
    assert isinstance(driver, Diagnoses)
    findings = driver.diagnose()
    assert [one for one in findings if one.severity > OK and one.code not in OURS] == []
    assert len(findings) >= 7
    assert [one.code for one in findings if not one.what.endswith(".")] == []


def test_looking_changes_nothing(driver: SQLAlchemyDriver) -> None:
    push(driver, new_job(), new_job(delay=60.0))
    before = (driver.stats(), driver.find(JobFilter(), limit=10))
    driver.diagnose()
    assert (driver.stats(), driver.find(JobFilter(), limit=10)) == before


def test_a_database_that_is_not_migrated(sqlite_url: str) -> None:
    with pytest.raises(SchemaOutdated):
        SQLAlchemyDriver(sqlite_url).diagnose()


def test_a_missing_index_is_told_with_the_statement_that_makes_it(driver: SQLAlchemyDriver) -> None:
    assert found(driver, "indexes_missing").severity is OK
    drop_index(driver, "failed_jobs_time", "failed_jobs")
    finding = found(driver, "indexes_missing")
    assert finding.severity is ERROR
    assert "failed_jobs_time" in finding.what
    execute(driver, finding.mend.rstrip(";"))
    assert found(driver, "indexes_missing").severity is OK


def test_an_index_of_somebody_else(driver: SQLAlchemyDriver) -> None:
    execute(driver, "CREATE INDEX shop_by_class ON jobs (job_class)")
    finding = found(driver, "indexes_other")
    assert finding.severity in (NOTE, WARNING)
    assert "shop_by_class" in finding.what
    drop_index(driver, "shop_by_class", "jobs")


# ------------------------------------------------------------------------------------------------ a place in the line


def test_the_place_in_the_line(driver: SQLAlchemyDriver) -> None:
    first, *_ = push(driver, *[new_job() for _ in range(3)])
    push(driver, *[new_job(priority=10) for _ in range(2)], *[new_job(priority=3) for _ in range(4)])
    push(driver, new_job(priority=99, delay=600.0), new_job(priority=-1), new_job("other", priority=50))
    last = push(driver)[0]
    assert driver.in_front(first) == 6
    assert driver.in_front(last) == 9
    assert driver.in_front(last, counted_max=7) == 7
    assert driver.in_front(push(driver, new_job(priority=100))[0]) == 0


def test_jobs_that_are_due_at_the_same_time_stand_by_their_ids(driver: SQLAlchemyDriver) -> None:
    at = driver.now() - timedelta(seconds=5)
    ids = push(driver, *[new_job(available_at=at) for _ in range(4)])
    assert sorted(driver.in_front(job) for job in ids) == [0, 1, 2, 3]
    assert [driver.in_front(job) for job in sorted(ids)] == [0, 1, 2, 3]


def test_what_is_not_pending_stands_in_no_line(driver: SQLAlchemyDriver) -> None:
    push(driver)
    (job,) = push(driver)
    lend(driver, join(driver))
    assert driver.in_front(job) == 0
    assert driver.in_front("no such id") == 0


def test_when_the_oldest_job_ended(driver: SQLAlchemyDriver) -> None:
    assert driver.oldest_ended() == {}
    push(driver, *[new_job() for _ in range(4)])
    first, second, failed, _ = lend(driver, join(driver))
    settle(driver, first, Verb.COMPLETE)
    settle(driver, second, Verb.COMPLETE)
    settle(driver, failed, Verb.FAIL)
    ended = {job.id: job.processed_at for job in driver.get([first.id, failed.id])}
    assert driver.oldest_ended() == {JobState.COMPLETED: ended[first.id], JobState.FAILED: ended[failed.id]}


def test_the_line_and_the_oldest_are_read_by_their_indexes(driver: SQLAlchemyDriver) -> None:
    *_, last = push(driver, *[new_job(f"q{number % 3}", priority=number % 2) for number in range(900)])
    worker = join(driver)
    while claims := lend(driver, worker, "q1"):
        for claim in claims:
            settle(driver, claim, Verb.COMPLETE)
    is_mysql = driver.engine.dialect.name == "mariadb"
    execute(driver, "ANALYZE TABLE jobs" if is_mysql else "ANALYZE")
    asked: list[tuple[str, object]] = []

    def note(_conn: object, _cursor: object, sql: str, values: object, *_: object) -> None:
        asked.append((sql, values))

    event.listen(driver._connections.engine, "before_cursor_execute", note)
    driver.in_front(last)
    driver.oldest_ended()
    event.remove(driver._connections.engine, "before_cursor_execute", note)
    plans = {sql: plan_of(driver, sql, values) for sql, values in asked if " jobs" in sql}
    assert len(plans) >= 4
    assert {sql for sql, plan in plans.items() if not set(INDEXES) & set(re.findall(r"\w+", plan))} == set()


# How each database names what serves a look-up by id, and the indexes of the line and of the finished.
INDEXES = ("jobs_ready", "jobs_finished", "jobs_pkey", "PRIMARY", "sqlite_autoindex_jobs_1", "const")


def plan_of(driver: SQLAlchemyDriver, sql: str, values: object) -> str:
    explain = "EXPLAIN QUERY PLAN" if driver.engine.dialect.name == "sqlite" else "EXPLAIN"
    with driver.engine.connect() as conn:
        rows = conn.exec_driver_sql(f"{explain} {sql}", values).fetchall()
        conn.rollback()
    # The chosen index only: MariaDB also lists those that it might have taken.
    return " ".join(str(row._mapping["key"]) if "key" in row._mapping else str(tuple(row)) for row in rows)


# ------------------------------------------------------------------------------------------------ SQLite


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[SQLAlchemyDriver]:
    made = SQLAlchemyDriver(sqlite_url)
    made.setup()
    yield made
    made.close()


def test_sqlite_without_a_write_ahead_log(sqlite: SQLAlchemyDriver) -> None:
    sqlite.close()
    engine = create_engine(sqlite.engine.url)
    with engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA journal_mode = DELETE")
    assert found(SQLAlchemyDriver(engine), "journal_mode").severity is ERROR
    engine.dispose()


@pytest.mark.parametrize(("timeout", "severity"), [(0.2, WARNING), (5.0, OK)])
def test_sqlite_on_an_engine_that_does_not_wait(sqlite: SQLAlchemyDriver, timeout: float, severity: Severity) -> None:
    engine = create_engine(sqlite.engine.url, connect_args={"timeout": timeout})
    assert found(SQLAlchemyDriver(engine), "busy_timeout").severity is severity
    engine.dispose()


def test_sqlite_whose_write_lock_is_held(sqlite: SQLAlchemyDriver) -> None:
    assert found(sqlite, "write_lock").severity is OK
    with closing(sqlite3.connect(str(sqlite.engine.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert found(sqlite, "write_lock").severity is ERROR


def test_sqlite_whose_log_grows_while_somebody_reads(sqlite: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protojobs_sqlalchemy.sqlite.diagnosis.WAL_BYTES_MAX", 5 * 1024 * 1024)
    assert found(sqlite, "wal_size").severity is OK
    with create_engine(sqlite.engine.url).connect() as conn:
        conn.exec_driver_sql("BEGIN")
        conn.exec_driver_sql("SELECT count(*) FROM jobs").fetchall()
        for _ in range(8):
            push(sqlite, new_job(data=f'"{"x" * 1024 * 1024}"'))
        assert found(sqlite, "wal_size").severity is WARNING


def test_sqlite_on_a_disk_that_is_full(sqlite: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(sqlite, "disk_space").what.endswith("are free where the file lies.")
    monkeypatch.setattr("protojobs_sqlalchemy.sqlite.diagnosis.FREE_BYTES_MIN", 2**62)
    assert found(sqlite, "disk_space").severity is WARNING


MOUNTS = """
overlay / overlay rw 0 0
server:/export /mnt/share nfs4 rw,vers=4.2 0 0
//files/x /mnt/with\\040blank cifs rw 0 0
tmpfs /mnt/share/local tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/jobs.db", "overlay"),
        ("/mnt/share/jobs.db", "nfs4"),
        ("/mnt/shared/jobs.db", "overlay"),
        ("/mnt/with blank/jobs.db", "cifs"),
        ("/mnt/share/local/jobs.db", "tmpfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_file_system(
    sqlite: SQLAlchemyDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(sqlite, "file_system").severity is OK
    mounts = tmp_path / "mounts"
    mounts.write_text(f"{MOUNTS}server:/export {tmp_path.resolve()} nfs4 rw 0 0\n")
    monkeypatch.setattr("protojobs_sqlalchemy.sqlite.diagnosis._MOUNTS", mounts)
    finding = found(sqlite, "file_system")
    assert (finding.severity, "nfs4" in finding.what) == (ERROR, True)


def test_sqlite_that_may_not_be_written_to(sqlite: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(sqlite, "writable").severity is OK
    monkeypatch.setattr(
        "os.access", lambda _path, mode: mode != os.W_OK
    )  # root, who may run the tests, may write anywhere
    assert found(sqlite, "writable").severity is ERROR
