"""The tables come, are upgraded and go; whoever starts first, and wherever a starter died."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, create_engine, insert, inspect, text

from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, SchemaOutdated, StoreUnavailable
from protojobs.port.diagnosis import Severity
from protojobs.port.lifecycle import Verb
from protojobs.port.records import NewJob, Settlement, SettleStatus, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting import connections
from protojobs_sqlalchemy.migrations import HEAD, REVISIONS
from protojobs_sqlalchemy.migrations.migrating import alembic_config
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE
from protojobs_sqlalchemy.tables.tables import PLAIN

TEN_STARTERS = """
import os, sys
from protojobs_sqlalchemy import SQLAlchemyDriver
children = []
for _ in range(10):
    pid = os.fork()
    if not pid:
        try:
            SQLAlchemyDriver(sys.argv[1]).setup()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


@pytest.fixture
def driver(store_url: str) -> SQLAlchemyDriver:
    return SQLAlchemyDriver(store_url)


def works(driver: SQLAlchemyDriver) -> bool:
    job = NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")
    driver.enqueue([job])
    return driver.stats("q").pending == 1


def tables_of(driver: SQLAlchemyDriver) -> set[str]:
    return set(inspect(driver.engine).get_table_names())


def test_the_head_is_the_last_script() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(PLAIN.names))
    assert scripts.get_current_head() == HEAD == REVISIONS[-1]
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(REVISIONS))


def test_migrate_says_what_it_ran_and_does_nothing_twice(driver: SQLAlchemyDriver) -> None:
    assert driver.migrate() == list(REVISIONS)
    assert driver.migrate() == []
    driver.setup()
    assert works(driver)


def test_every_column_that_the_statements_name_is_made(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    for table in PLAIN.metadata.tables.values():
        made = {column["name"]: column["nullable"] for column in inspect(driver.engine).get_columns(table.name)}
        assert {column.name: bool(column.nullable) for column in table.columns}.items() <= made.items()


def test_teardown_leaves_nothing_and_setup_starts_again(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    assert works(driver)
    assert driver.migrate(down=True) == list(reversed(REVISIONS))
    assert tables_of(driver) == set()
    driver.teardown()
    driver.setup()
    assert works(driver)


def test_an_application_s_own_tables_are_left_alone(driver: SQLAlchemyDriver) -> None:
    with driver.engine.begin() as conn:
        conn.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
    driver.setup()
    driver.teardown()
    assert tables_of(driver) == {"alembic_version"}


@pytest.mark.parametrize("name", ["workers", "audit"])  # of the first version, and of the second
def test_an_application_s_table_of_one_of_our_names_is_refused_before_anything_is_made(
    driver: SQLAlchemyDriver, name: str
) -> None:
    with driver.engine.begin() as conn:
        conn.execute(text(f"CREATE TABLE {name} (id varchar(64), salary integer)"))
        conn.execute(text(f"INSERT INTO {name} VALUES ('ada', 1)"))
    with pytest.raises(ConfigurationError, match=rf"a table '{name}' already.*another database"):
        driver.setup()
    assert tables_of(driver) == {name}
    driver.teardown()
    with driver.engine.connect() as conn:
        assert conn.execute(text(f"SELECT salary FROM {name}")).scalars().all() == [1]


@pytest.mark.parametrize("name", ["workers", "depths"])
def test_teardown_leaves_an_application_s_table_of_one_of_our_names_alone(driver: SQLAlchemyDriver, name: str) -> None:
    """Earlier releases took these for their own."""
    driver.setup()
    with driver.engine.begin() as conn:
        conn.execute(text(f"DROP TABLE {name}"))
        conn.execute(text(f"CREATE TABLE {name} (id varchar(64), salary integer)"))
    driver.teardown()
    assert tables_of(driver) == {name}


def test_on_postgresql_an_application_s_tables_in_another_schema_are_in_nobody_s_way(
    make_store_url: Callable[[str], str],
) -> None:
    url = make_store_url("postgresql")
    driver = SQLAlchemyDriver(f"{url}?options=-csearch_path%3Djobs,public")
    with driver.engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA jobs"))
        conn.execute(text("CREATE TABLE public.workers (name varchar(20))"))
    driver.setup()
    assert works(driver)
    assert "workers" in inspect(driver.engine).get_table_names("jobs")
    driver.teardown()
    assert [inspect(driver.engine).get_table_names(schema) for schema in ("jobs", "public")] == [[], ["workers"]]
    driver.close()


def test_a_database_without_tables_is_told_with_the_cure(driver: SQLAlchemyDriver) -> None:
    with pytest.raises(SchemaOutdated, match="protojobs migrate"):
        driver.stats()


def test_tables_that_vanish_later_are_told_with_the_cure(driver: SQLAlchemyDriver, store_url: str) -> None:
    driver.setup()
    assert works(driver)
    SQLAlchemyDriver(store_url).teardown()
    with pytest.raises(SchemaOutdated, match="protojobs migrate"):
        driver.claim(fresh_id(), ["q"], slots=1, limit=1)


def become_newer(driver: SQLAlchemyDriver, *, readable_from: str | None) -> None:
    """As a later release leaves the tables: with a column, an index and a table that this one has never heard of."""
    with driver.engine.begin() as conn:
        conn.execute(text("ALTER TABLE jobs ADD COLUMN colour varchar(8) DEFAULT 'red' NOT NULL"))
        conn.execute(text("CREATE INDEX jobs_colour ON jobs (colour)"))
        conn.execute(text("CREATE TABLE later_notes (id varchar(64))"))
        values = {"since": readable_from}
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999', readable_from = :since"), values)


def test_a_newer_database_that_says_so_is_worked_on_by_processes_that_start_or_come_back(
    driver: SQLAlchemyDriver, store_url: str
) -> None:
    driver.setup()
    become_newer(driver, readable_from=HEAD)
    old = SQLAlchemyDriver(store_url)
    assert old.migrate() == []
    assert works(old)
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    old.register(worker)
    (claim,) = old.claim(worker.id, ["q"], slots=1, limit=1)
    done = Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.COMPLETE)
    assert [settled.status for settled in old.settle([done])] == [SettleStatus.APPLIED]
    schema = next(finding for finding in old.diagnose() if finding.code == "schema")
    assert schema.severity is Severity.NOTE
    assert "9999" in schema.what
    with pytest.raises(SchemaOutdated, match="9999"):  # what it does not know it does not remove
        old.teardown()
    assert "later_notes" in tables_of(old)
    old.close()


@pytest.mark.parametrize("readable_from", ["9000", None])
def test_a_newer_database_that_does_not_say_so_is_refused(
    driver: SQLAlchemyDriver, store_url: str, readable_from: str | None
) -> None:
    driver.setup()
    become_newer(driver, readable_from=readable_from)
    late = SQLAlchemyDriver(store_url)
    for verb in (late.stats, late.setup, late.pending_migrations):
        with pytest.raises(SchemaOutdated, match="9999, which is newer"):
            verb()
    late.close()


def test_a_newer_database_from_before_there_was_a_word_for_it_is_refused(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    with driver.engine.begin() as conn:
        conn.execute(text(f"ALTER TABLE {VERSION_TABLE} DROP COLUMN readable_from"))
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    driver._connections.are_tables_checked = False
    with pytest.raises(SchemaOutdated, match="9999, which is newer"):
        driver.stats()


def test_an_older_database_asks_for_its_migration(driver: SQLAlchemyDriver, store_url: str) -> None:
    driver.setup()
    with driver.engine.begin() as conn:
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{REVISIONS[-2]}'"))
    with pytest.raises(SchemaOutdated, match="protojobs migrate"):
        SQLAlchemyDriver(store_url).stats()


def test_each_step_says_which_releases_can_work_on_its_tables(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    said = {
        script.revision: getattr(script.module, "readable_from", None)
        for script in ScriptDirectory.from_config(alembic_config(PLAIN.names)).walk_revisions()
    }
    assert all(said[revision] in REVISIONS for revision in REVISIONS[REVISIONS.index("0005") :])
    assert readable_from(driver) == said[HEAD]


def readable_from(driver: SQLAlchemyDriver) -> str:
    with driver.engine.connect() as conn:
        return conn.execute(text(f"SELECT readable_from FROM {VERSION_TABLE}")).scalar_one()


def shape(driver: SQLAlchemyDriver) -> dict[str, Shape]:
    look = inspect(driver.engine)
    return {
        name: Shape(
            columns={column["name"]: {**column, "type": repr(column["type"])} for column in look.get_columns(name)},
            keys={tuple(look.get_pk_constraint(name)["constrained_columns"])},
            unique={
                tuple(str(column) for column in index["column_names"])
                for index in look.get_indexes(name)
                if index["unique"]
            },
            rules={repr(rule["sqltext"]) for rule in look.get_check_constraints(name)}
            | {repr(key["constrained_columns"]) for key in look.get_foreign_keys(name)},
        )
        for name in look.get_table_names()
    }


@dataclass
class Shape:
    columns: dict[str, dict[str, object]]
    keys: set[tuple[str, ...]]
    unique: set[tuple[str, ...]]
    rules: set[str]


def what_an_older_release_would_trip_over(before: dict[str, Shape], after: dict[str, Shape]) -> list[str]:
    """What is gone, what has changed, and what a row that an older release writes could break."""
    trouble = [f"table {name} is gone" for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        for column in old.columns.keys() - new.columns.keys():
            trouble.append(f"column {name}.{column} is gone")
        for column in old.columns.keys() & new.columns.keys():
            was, now = old.columns[column], new.columns[column]
            if (was["type"], was["nullable"]) != (now["type"], now["nullable"]):
                trouble.append(f"column {name}.{column} is another")
        added = new.columns.keys() - old.columns.keys()
        for column in added:
            made = new.columns[column]
            if not made["nullable"] and made["default"] is None and "computed" not in made:
                trouble.append(f"column {name}.{column} must be written")
        for columns in new.unique - old.unique:
            if not added & set(columns):
                trouble.append(f"{name} has a new unique index of {', '.join(columns)}")
        if new.keys != old.keys or new.rules - old.rules:
            trouble.append(f"{name} has a new key or rule")
    return trouble


def test_a_step_that_says_it_is_additive_is_so(driver: SQLAlchemyDriver) -> None:
    """CONTRIBUTING.md has the rule. A step is additive where it does not say its own revision."""
    steps = ScriptDirectory.from_config(alembic_config(PLAIN.names)).walk_revisions()
    scripts = {script.revision: script for script in steps}
    driver.migrate(to="0005")
    for revision in REVISIONS[REVISIONS.index("0005") + 1 :]:
        before = shape(driver)
        assert driver.migrate(to=revision) == [revision]
        if scripts[revision].module.readable_from != revision:
            assert what_an_older_release_would_trip_over(before, shape(driver)) == [], revision


@pytest.mark.parametrize(
    ("statement", "trouble"),
    [
        ("ALTER TABLE audit DROP COLUMN address", ["column audit.address is gone"]),
        ("DROP TABLE depths", ["table depths is gone"]),
        ("ALTER TABLE audit ADD COLUMN x integer DEFAULT 3 NOT NULL", []),
        ("ALTER TABLE audit ADD COLUMN x integer", []),
        ("CREATE TABLE later_notes (id varchar(64) NOT NULL PRIMARY KEY)", []),
        ("CREATE UNIQUE INDEX one_a_moment ON audit (at)", ["audit has a new unique index of at"]),
    ],
)
def test_what_is_not_additive_is_seen(driver: SQLAlchemyDriver, statement: str, trouble: list[str]) -> None:
    driver.setup()
    before = shape(driver)
    with driver.engine.begin() as conn:
        conn.execute(text(statement))
    assert what_an_older_release_would_trip_over(before, shape(driver)) == trouble


def test_each_step_says_what_a_step_back_loses() -> None:
    for script in ScriptDirectory.from_config(alembic_config(PLAIN.names)).walk_revisions():
        assert isinstance(script.module.step_back_loses, str), script.revision


def test_a_step_back_that_loses_nothing_leaves_the_tables_as_they_were(driver: SQLAlchemyDriver) -> None:
    driver.migrate(to="0005")
    before, said = shape(driver), readable_from(driver)
    driver.migrate()
    assert works(driver)
    with driver.engine.begin() as conn:  # as if the last step had not been additive
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET readable_from = '{HEAD}'"))
    assert driver.migrate(to="0005") == list(reversed(REVISIONS[REVISIONS.index("0005") + 1 :]))
    assert (shape(driver), readable_from(driver)) == (before, said)
    assert driver.pending_migrations() == list(REVISIONS[REVISIONS.index("0005") + 1 :])
    with pytest.raises(SchemaOutdated, match="protojobs migrate"):
        driver.stats()
    driver.migrate()
    assert driver.stats("q").pending == 1


def test_a_step_back_that_would_lose_something_is_refused_before_anything_is_done(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    before = shape(driver)
    with pytest.raises(ConfigurationError, match=r"from 0003 to 0002 would lose the completed jobs"):
        driver.migrate(to="0002")
    assert shape(driver) == before
    assert works(driver)


def test_a_step_back_loses_results_only_where_there_are_some(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    assert works(driver)
    with driver.engine.begin() as conn:
        conn.execute(text("UPDATE jobs SET result = '1'"))
    with pytest.raises(ConfigurationError, match=r"from 0007 to 0006 would lose the results of completed jobs"):
        driver.migrate(to="0006")
    with driver.engine.begin() as conn:
        conn.execute(text("UPDATE jobs SET result = NULL"))
    assert driver.migrate(to="0006") == ["0007"]


def test_tables_of_a_newer_release_are_taken_back_by_that_release_only(driver: SQLAlchemyDriver) -> None:
    driver.setup()
    become_newer(driver, readable_from=HEAD)
    with pytest.raises(SchemaOutdated, match=f"protojobs migrate --to {HEAD}"):
        driver.migrate(to="0005")
    assert driver.pending_migrations() == []


@pytest.mark.slow
def test_ten_starters_at_once_make_one_schema(driver: SQLAlchemyDriver, store_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TEN_STARTERS, store_url], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert driver.migrate() == []
    assert works(driver)


def test_a_starter_that_died_half_way_is_no_obstacle(make_store_url: Callable[[str], str]) -> None:
    """MariaDB commits every CREATE by itself, so any part of the schema may be there without its version."""
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()
    with driver.engine.begin() as conn:
        for statement in ("DROP TABLE queues", "DROP INDEX jobs_ready ON jobs", f"DELETE FROM {VERSION_TABLE}"):
            conn.execute(text(statement))
    assert driver.migrate() == list(REVISIONS)
    assert "jobs_ready" in {index["name"] for index in inspect(driver.engine).get_indexes("jobs")}
    assert works(driver)


def test_a_starter_that_died_between_the_first_tables_and_the_notes_is_no_obstacle(
    make_store_url: Callable[[str], str],
) -> None:
    driver = SQLAlchemyDriver(make_store_url("mariadb"))
    driver.setup()
    with driver.engine.begin() as conn:
        for statement in (
            "DROP TABLE audit",
            "DROP INDEX rollups_job ON rollups",
            "DROP INDEX failed_jobs_alike ON failed_jobs",
            f"UPDATE {VERSION_TABLE} SET version_num = '0001'",
        ):
            conn.execute(text(statement))
    assert driver.migrate() == list(REVISIONS[1:])
    indexes = inspect(driver.engine).get_indexes
    assert "failed_jobs_alike" in {index["name"] for index in indexes("failed_jobs")}
    assert "rollups_job" in {index["name"] for index in indexes("rollups")}
    assert "audit" in tables_of(driver)
    assert driver.migrate(down=True) == list(reversed(REVISIONS))
    assert tables_of(driver) == set()


def test_failures_of_an_older_version_are_kept_as_a_group(driver: SQLAlchemyDriver) -> None:
    with driver.engine.connect() as conn:
        config = alembic_config(PLAIN.names)
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        conn.commit()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"id": fresh_id(), "job_id": fresh_id(), "queue": "q", "job_class": "c", "job_name": "n", "data": "{}"}
    old = [column for column in PLAIN.failed_jobs.c if column.name != "fingerprint"]
    values = row | {"attempts": 4, "exception": "Traceback", "failed_at": now}
    with driver.engine.begin() as conn:
        conn.execute(insert(Table("failed_jobs", MetaData(), *[Column(c.name, c.type) for c in old])), values)
    assert driver.migrate() == list(REVISIONS[1:])
    (group,) = driver.failure_groups()
    assert (group.fingerprint, group.count, group.last.id, group.first_failed_at) == ("", 1, row["id"], now)
    assert driver.failed_alike("").jobs == (group.last,)


def test_a_migration_behind_a_long_transaction_gives_up_and_loses_nothing(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that are stored meanwhile would wait behind it, for as long as somebody reads."""
    monkeypatch.setattr(connections, "_CONFLICT_S", 0.1)
    driver = SQLAlchemyDriver(make_store_url("postgresql"))
    with driver.engine.begin() as conn:
        config = alembic_config(PLAIN.names)
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
    reader = create_engine(driver.engine.url)
    with reader.connect() as conn:
        conn.execute(text("SELECT count(*) FROM failed_jobs"))  # and its transaction stays open
        with pytest.raises(StoreUnavailable, match="stayed busy"):
            driver.migrate()
    assert driver.migrate() == list(REVISIONS[1:])
    assert works(driver)
    reader.dispose()


def test_the_printed_statements_make_the_same_schema(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    driver = SQLAlchemyDriver(f"sqlite:///{path}")
    printed = driver.migration_sql()
    with sqlite3.connect(path) as raw:
        raw.executescript(printed)
    assert driver.migrate() == []
    assert works(driver)
    down = driver.migration_sql(down=True)
    driver.close()
    with sqlite3.connect(path) as raw:
        raw.executescript(down)
    assert tables_of(driver) == set()
    driver.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgresql://nobody@nowhere/app",
            ["TIMESTAMP WITH TIME ZONE", "id UUID", "WHERE status = 'pending'", "fillfactor"],
        ),
        ("mariadb://nobody@nowhere/app", ["DATETIME(6)", "id UUID", "utf8mb4_nopad_bin", "GENERATED ALWAYS"]),
        ("mysql://nobody@nowhere/app", ["DATETIME(6)", "CHAR(36)", "utf8mb4_0900_bin", "GENERATED ALWAYS"]),
    ],
)
def test_the_statements_are_printed_without_a_server(url: str, words: list[str]) -> None:
    printed = SQLAlchemyDriver(url).migration_sql()
    assert [word for word in words if word not in printed] == []
