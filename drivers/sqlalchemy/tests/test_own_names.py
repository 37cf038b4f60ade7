"""A store with a schema or a prefix of its own lives beside an application's tables, and beside another store."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, make_url, select, text
from sqlalchemy.orm import Session

import servers
from protojobs import JobQueue, job
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, OptionInvalid, SchemaOutdated
from protojobs.port.driver import Driver
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobFilter, NewJob, WorkerInfo
from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_sqlalchemy import JobModel, SQLAlchemyDriver
from protojobs_sqlalchemy.connecting.urls import parse
from protojobs_sqlalchemy.tables.naming import PREFIX_MAX, SCHEMA_MAX, Names, names_in

OWN = {"sqlite": "?prefix=pj_", "postgresql": "?schema=jobs", "mariadb": "?prefix=pj_"}
LONGEST = 63  # PostgreSQL's bound of a name; MariaDB's and MySQL's is 64

# Objects of the application's, with the names that ours have by default.
IN_THE_WAY = (
    "CREATE TABLE jobs (id integer PRIMARY KEY, title varchar(20))",
    "CREATE TABLE schedules (id integer PRIMARY KEY)",
    "CREATE TABLE audit (id integer PRIMARY KEY)",
    "CREATE TABLE protojobs_schema_version (version_num varchar(32))",
    "INSERT INTO protojobs_schema_version VALUES ('from elsewhere')",
)


@job(name="own.add")
def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture(params=sorted(OWN))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(kind: str, make_store_url: Callable[[str], str]) -> str:
    return make_store_url(kind)


@pytest.fixture
def open_driver() -> Iterator[Callable[..., SQLAlchemyDriver]]:
    drivers: list[SQLAlchemyDriver] = []

    def opened(url: str, **options: object) -> SQLAlchemyDriver:
        drivers.append(SQLAlchemyDriver(url, **options))  # type: ignore[arg-type]
        return drivers[-1]

    yield opened
    for driver in drivers:
        driver.close()


def new_job(queue: str = "q") -> NewJob:
    return NewJob(id=fresh_id(), queue=queue, job_name="n", job_class="c", data="{}")


def tables_of(url: str) -> set[str]:
    """All tables of a database, outside of the server's own schemas."""
    engine = create_engine(parse(url))
    look = inspect(engine)
    schemas = [None] if engine.dialect.name != "postgresql" else [s for s in look.get_schema_names() if s[:4] != "info"]
    found = {f"{schema}.{name}" if schema else name for schema in schemas for name in look.get_table_names(schema)}
    engine.dispose()
    return found


def until_quiet(driver: SQLAlchemyDriver, worker: str) -> None:
    """A first wait may end because it has only begun to listen."""
    deadline = time.monotonic() + 10
    while True:
        assert driver.claim(worker, ["q"], slots=1, limit=1) == []
        if not driver.wait(["q"], 0.3):
            return
        assert time.monotonic() < deadline


class TestBesideTheApplicationsTables:
    def test_a_store_of_its_own_names_works_where_each_plain_name_is_taken(
        self, kind: str, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        engine = create_engine(parse(database))
        with engine.begin() as conn:
            for statement in IN_THE_WAY:
                conn.execute(text(statement))
        before = tables_of(database)
        driver = open_driver(database + OWN[kind])
        with JobQueue(driver) as queue:
            driver.setup()
            pushed = queue.push(add.bind(1, 2))
            queue.push_many([add.bind(1, number) for number in range(3)])
            with Session(engine) as session, session.begin():
                joined = queue.push(add.bind(3, 4), session=session)
                assert session.scalar(select(driver.job_model.id).where(driver.job_model.id == joined)) == joined
            assert queue.work(max_jobs=5).done == 5
            assert {record.status for record in driver.get([pushed, joined])} == {JobState.COMPLETED}
            assert [info.stats.completed for info in driver.queues()] == [5]
            assert len(driver.find(JobFilter(queue="default"), limit=10).jobs) == 5
            codes = {finding.code: finding.severity.value for finding in driver.diagnose()}
            assert (codes["schema"], codes["indexes_missing"]) == (0, 0)
            assert "indexes_other" not in codes
        driver.teardown()
        assert tables_of(database) == before
        with engine.connect() as conn:
            assert conn.execute(text("SELECT version_num FROM protojobs_schema_version")).scalar() == "from elsewhere"
        engine.dispose()

    def test_all_that_is_made_bears_the_names(
        self, kind: str, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver = open_driver(database + OWN[kind])
        driver.setup()
        start = "jobs." if kind == "postgresql" else "pj_"
        made = tables_of(database)
        assert len(made) > 10
        assert {name for name in made if not name.startswith(start)} == set()

    def test_a_name_that_is_taken_is_refused_with_the_option_that_mends_it(
        self, kind: str, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        engine = create_engine(parse(database))
        with engine.begin() as conn:
            conn.execute(text(IN_THE_WAY[1]))
        with pytest.raises(ConfigurationError, match="schedules.*not of protojobs") as refused:
            open_driver(database).setup()
        assert "?prefix=pj_" in str(refused.value)
        assert ("?schema=" in str(refused.value)) is (kind == "postgresql")
        engine.dispose()


class TestTwoStoresInOneDatabase:
    def test_neither_sees_nor_wakes_the_other(
        self, kind: str, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        one, other = open_driver(database + OWN[kind]), open_driver(f"{database}?prefix=other_")
        for driver in (one, other):
            driver.setup()
        workers = [WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60) for _ in "12"]
        one.register(workers[0])
        other.register(workers[1])
        one.enqueue([new_job()])
        until_quiet(other, workers[1].id)
        one.enqueue([new_job()])
        assert other.wait(["q"], 0.3) is False
        assert one.wait(["q"], 5.0) is True
        assert len(one.claim(workers[0].id, ["q"], slots=2, limit=2)) == 2
        assert [worker.id for worker in other.workers()] == [workers[1].id]
        other.teardown()
        assert one.stats().processing == 2

    def test_a_transaction_joins_the_store_whose_driver_is_asked(
        self, kind: str, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        one, other = open_driver(database + OWN[kind]), open_driver(f"{database}?prefix=other_")
        for driver in (one, other):
            driver.setup()
        engine = create_engine(parse(database))
        with engine.begin() as conn:
            one.enqueue_in(conn, [new_job()])
            other.enqueue_in(conn, [new_job(), new_job()])
        engine.dispose()
        assert (one.stats().pending, other.stats().pending) == (1, 2)


class TestOnPostgreSQL:
    @pytest.fixture
    def database(self, make_store_url: Callable[[str], str]) -> str:
        return make_store_url("postgresql")

    def test_a_push_is_heard_at_once_and_only_on_the_stores_own_channel(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver = open_driver(f"{database}?schema=jobs")
        driver.setup()
        worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
        driver.register(worker)
        with psycopg.connect(servers.plain(database), autocommit=True) as raw:
            raw.execute("LISTEN protojobs")
            other = open_driver(f"{database}?schema=jobs")
            other.enqueue([new_job()])
            deadline = time.monotonic() + 5
            while not driver.wait(["q"], 1.0):
                assert time.monotonic() < deadline
            assert list(raw.notifies(timeout=0.2)) == []

    def test_a_missing_schema_is_told_by_a_push_and_made_by_migrate(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver = open_driver(f"{database}?schema=not_there")
        with pytest.raises(SchemaOutdated, match=r'\(schema "not_there"\) has no tables') as refused:
            driver.enqueue([new_job()])
        assert "protojobs migrate" in str(refused.value)
        driver.setup()
        driver.enqueue([new_job()])

    def test_who_may_make_no_schema_is_given_the_statement_for_an_administrator(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        role = f"app_{fresh_id()[:8]}"
        servers.execute(database, f"CREATE ROLE {role} LOGIN")
        try:
            url = make_url(database).set(username=role).render_as_string(hide_password=False)
            driver = open_driver(f"{url}?schema=theirs")
            with pytest.raises(ConfigurationError, match="no schema") as refused:
                driver.migrate()
            statement = re.search(r"CREATE SCHEMA [^;]*;", str(refused.value))
            assert statement is not None
            servers.execute(database, statement[0])
            assert driver.migrate()
            driver.enqueue([new_job()])
        finally:
            servers.execute(database, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")

    def test_the_text_of_a_migration_makes_the_whole_store(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver = open_driver(f"{database}?schema=order&prefix=pj_")  # a word of SQL's own
        script = driver.migration_sql()
        with psycopg.connect(servers.plain(database), autocommit=True) as raw:
            raw.execute(script.encode())
        assert driver.migrate() == []
        driver.enqueue([new_job()])

    @pytest.mark.parametrize("is_printed", [False, True])
    @pytest.mark.parametrize(("own", "prefix"), [("", ""), ("?schema=order&prefix=pj_", "pj_")])
    def test_tables_get_their_storage_parameters(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver], own: str, prefix: str, is_printed: bool
    ) -> None:
        driver = open_driver(database + own)
        if is_printed:
            with psycopg.connect(servers.plain(database), autocommit=True) as raw:
                raw.execute(driver.migration_sql().encode())
        else:
            driver.setup()
        with driver.engine.connect() as conn:
            found = conn.execute(text("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL"))
            options = {str(name): sorted(kept) for name, kept in found if name.startswith(prefix)}
        jobs = options[f"{prefix}jobs"]
        assert "fillfactor=60" in jobs
        assert "autovacuum_analyze_scale_factor=0.05" in jobs
        assert len(jobs) == 8
        assert options[f"{prefix}workers"] == ["fillfactor=50"]
        assert options[f"{prefix}counters"] == ["fillfactor=30"]
        assert options[f"{prefix}rollups"] == ["fillfactor=70"]

    def test_a_search_path_of_the_applications_leads_nowhere_else(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver, plain = open_driver(f"{database}?schema=jobs"), open_driver(database)
        driver.setup()
        plain.setup()
        engine = create_engine(parse(database))
        with engine.begin() as conn:
            conn.execute(text("SET LOCAL search_path TO public"))
            driver.enqueue_in(conn, [new_job()])
        engine.dispose()
        assert (driver.stats().pending, plain.stats().pending) == (1, 0)

    def test_the_archive_lies_in_the_schema_too(
        self, database: str, open_driver: Callable[..., SQLAlchemyDriver]
    ) -> None:
        driver = open_driver(f"{database}?schema=jobs&prefix=pj_&archive=daily")
        with JobQueue(driver) as queue:
            driver.setup()
            done = queue.push(add.bind(1, 2))
            assert queue.work(max_jobs=1).done == 1
            assert driver.get([done])[0].status is JobState.COMPLETED
            assert driver.stats().completed == 1
            days = {name for name in tables_of(database) if re.fullmatch(r"jobs\.pj_jobs_archive_\d{8}", name)}
            assert len(days) == 2
            assert driver.prune(completed_older_than=0.0).completed == 1
        driver.teardown()
        assert tables_of(database) == set()


class TestTheOptions:
    @pytest.mark.parametrize(
        ("schema", "prefix", "why"),
        [
            ("Jobs", "", "lower-case"),
            ("a-b", "", "lower-case"),
            ("", "", "lower-case"),
            ('x"; DROP TABLE jobs', "", "lower-case"),
            ("pg_jobs", "", "PostgreSQL's own"),
            ("x" * (SCHEMA_MAX + 1), "", "64 characters"),
            (None, "9_", "lower-case"),
            (None, "pj.", "lower-case"),
            (None, "pj%s", "lower-case"),
            (None, "é", "lower-case"),
            (None, "x" * (PREFIX_MAX + 1), "33 characters"),
        ],
    )
    def test_what_cannot_stand_in_front_of_a_name_is_refused(self, schema: str | None, prefix: str, why: str) -> None:
        with pytest.raises(OptionInvalid, match=why):
            Names(schema, prefix)

    @pytest.mark.parametrize("url", ["sqlite:///jobs.db", "mysql://root@localhost/app"])
    def test_a_schema_is_refused_where_the_database_has_none(self, url: str) -> None:
        with pytest.raises(OptionInvalid, match="only PostgreSQL has schemas"):
            SQLAlchemyDriver(f"{url}?schema=jobs")

    def test_two_different_answers_are_refused(self) -> None:
        with pytest.raises(OptionInvalid, match="prefix=b_ is given, and the URL says prefix=a_"):
            SQLAlchemyDriver("sqlite:///jobs.db?prefix=a_", prefix="b_")
        with pytest.raises(OptionInvalid, match="more than once"):
            names_in(make_url("postgresql://h/d?schema=a&schema=b"), None, None)

    def test_an_applications_engine_takes_them_beside_it(self, sqlite_url: str) -> None:
        engine = create_engine(sqlite_url)
        driver = SQLAlchemyDriver(engine, prefix="pj_")
        driver.setup()
        assert "pj_jobs" in inspect(engine).get_table_names()
        assert driver.job_model.__table__.name == "pj_jobs"
        driver.close()

    def test_a_store_of_plain_names_has_the_plain_models(self, sqlite_url: str) -> None:
        assert SQLAlchemyDriver(sqlite_url).job_model is JobModel

    @pytest.mark.parametrize(
        "url", ["sqlite:///{}/jobs.db", "postgresql://localhost/app", "mysql://root@localhost/app"]
    )
    def test_no_name_is_cut_with_the_longest_prefix(self, url: str, tmp_path: Path) -> None:
        prefix = "p" * PREFIX_MAX
        script = SQLAlchemyDriver(f"{url.format(tmp_path)}?prefix={prefix}").migration_sql()
        names = set(re.findall(rf"\b{prefix}\w+", script))
        assert len(names) > 20
        assert max(map(len, names | {f"{prefix}jobs_archive_20261231"})) <= LONGEST


# The whole kit, as another deployment of the same driver: `dev.py test-slow` runs it.


class OnOwnNames(DriverConformance):
    machine_examples = 10  # the statements are those of test_conformance.py; only the names differ

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls) -> str:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def keeper(cls, url: str) -> Iterator[SQLAlchemyDriver]:
        driver = SQLAlchemyDriver(url)
        driver.setup()
        yield driver
        driver.teardown()
        driver.close()

    @pytest.fixture(scope="class")
    @classmethod
    def reset(cls, keeper: SQLAlchemyDriver) -> Callable[[], None]:
        def empty() -> None:
            with keeper.engine.begin() as conn:
                for table in keeper.job_model.metadata.tables.values():
                    conn.execute(table.delete())

        return empty

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, url: str) -> DriverFactory:
        return partial(SQLAlchemyDriver, url)

    @pytest.fixture
    def store_url(self, url: str) -> str:
        return url

    @pytest.fixture
    def unreachable(self, url: str) -> Callable[[], Driver]:
        return lambda: SQLAlchemyDriver(make_url(url).set(host="127.0.0.1", port=servers.free_port()))


@pytest.mark.slow
class TestSQLiteWithAPrefix(OnOwnNames):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'jobs.db'}?prefix=pj_"

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Callable[[], Driver]:
        return lambda: SQLAlchemyDriver(f"sqlite:///{tmp_path}?prefix=pj_")  # a folder is no file


@pytest.mark.slow
class TestPostgreSQLWithASchema(OnOwnNames):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, postgresql_url: str) -> str:
        return f"{postgresql_url}?schema=jobs"


@pytest.mark.slow
class TestMariaDBWithAPrefix(OnOwnNames):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, mariadb_url: str) -> str:
        return f"{mariadb_url}?prefix=pj_"
