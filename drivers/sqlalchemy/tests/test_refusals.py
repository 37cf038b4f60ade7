"""A database, schema, user or right that is missing is told at once, with the mend; to a running worker it is away."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL, create_engine, text

import servers
from protojobs import Job, JobQueue
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, ContractBroken, StoreUnavailable
from protojobs.port.records import NewJob, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting.translation import _refusal
from protojobs_sqlalchemy.connecting.urls import parse


class Nothing(Job):
    name = "nothing"

    def handle(self, data: object) -> None: ...


@pytest.fixture
def role(make_store_url: Callable[[str], str]) -> Iterator[tuple[str, URL]]:
    """A user of PostgreSQL that may only connect, and the URL of its database."""
    url = parse(make_store_url("postgresql"))
    name = f"guest_{fresh_id()[-8:]}"
    execute(url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name, url
    execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def execute(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        for statement in statements:
            conn.execute(text(statement))
    engine.dispose()


def refused(says: str) -> pytest.RaisesExc[ConfigurationError]:
    """At once: only StoreUnavailable is tried again, for ten seconds by a push."""
    return pytest.raises(ConfigurationError, match=says)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_database_that_does_not_exist_is_told_at_once(make_store_url: Callable[[str], str], kind: str) -> None:
    driver = SQLAlchemyDriver(parse(make_store_url(kind)).set(database="nowhere"))
    with refused(r"nowhere.*Create it, or correct its name in the URL"):
        JobQueue(driver).push(Nothing)
    with refused("nowhere"):
        driver.setup()
    driver.close()


def test_a_role_that_does_not_exist_is_told_at_once(make_store_url: Callable[[str], str]) -> None:
    driver = SQLAlchemyDriver(parse(make_store_url("postgresql")).set(username="nobody"))
    with refused(r'role "nobody" does not exist.*Check the user and the password'):
        JobQueue(driver).push(Nothing)
    driver.close()


def test_a_wrong_password_is_told_at_once(make_store_url: Callable[[str], str]) -> None:
    driver = SQLAlchemyDriver(parse(make_store_url("mariadb")).set(username="nobody", password="wrong"))
    with refused(r"Access denied.*Check the user and the password"):
        JobQueue(driver).push(Nothing)
    driver.close()


PASSWORD = "le%41ft@ri:gh/t?x#y"  # each sign that a URL reserves
PIECES = ("le%", "leAft", "left", "ri:gh", "ri%3Agh", "gh/t", "gh%2Ft", "t?x", "x#y", "x%23y")


def told_of_a_wrong_password(url: URL, caplog: pytest.LogCaptureFixture) -> str:
    """The message for a role `shop` with PASSWORD, of which nothing may stand in the traceback, logs and `doctor`."""
    wrong = url.set(username="shop", password=PASSWORD, drivername=url.get_backend_name())
    written = wrong.render_as_string(hide_password=False)
    driver = SQLAlchemyDriver(written)
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as refusal:
        JobQueue(driver).push(Nothing)
    command = [sys.executable, "-m", "protojobs", "doctor", "--url", written]
    doctor = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert doctor.returncode == 1
    shown = (
        "".join(traceback.format_exception(refusal.value)) + repr(driver) + caplog.text + doctor.stdout + doctor.stderr
    )
    driver.close()
    assert [piece for piece in PIECES if piece in shown] == []
    assert f"//shop:***@{url.host}:{url.port}/" in shown
    return str(refusal.value).partition(" does not let us in: ")[2]


def test_mariadb_s_refusal_of_a_password_shows_nothing_of_it(
    make_store_url: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    told = told_of_a_wrong_password(parse(make_store_url("mariadb")), caplog)
    assert re.sub(r"@'[^']*'", "@'HERE'", told) == (
        "Access denied for user 'shop'@'HERE' (using password: YES). Check the user and the password in the URL."
    )


@pytest.mark.slow  # a server of its own, which asks for passwords
def test_postgresql_s_refusal_of_a_password_shows_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with servers.started("postgresql") as server:
        url = parse(server.url)
        execute(url, "CREATE ROLE shop LOGIN PASSWORD 'right'")
        engine = create_engine(url)
        with engine.connect() as conn:
            rules = conn.scalar(text("SHOW hba_file"))
        engine.dispose()
        lines = "('host all shop all scram-sha-256'), ('host all all all trust'), ('local all all trust')"
        execute(url, f"COPY (SELECT line FROM (VALUES {lines}) AS rules(line)) TO '{rules}'")
        server.restart()
        assert told_of_a_wrong_password(url, caplog) == (
            'password authentication failed for user "shop". Check the user and the password in the URL.'
        )


@pytest.mark.parametrize("password", ["does", "role", "o", "exist"])
def test_a_word_of_a_message_stays_though_it_is_the_password(
    make_store_url: Callable[[str], str], password: str
) -> None:
    url = parse(make_store_url("postgresql")).set(username="nobody", password=password)
    driver = SQLAlchemyDriver(url)
    with pytest.raises(ConfigurationError) as refusal:
        JobQueue(driver).push(Nothing)
    driver.close()
    assert str(refusal.value) == (
        f'postgresql://nobody:***@{url.host}:{url.port}/{url.database} does not let us in: role "nobody" does not '
        "exist. Check the user and the password in the URL."
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [("postgresql", 'database "nowhere" does not exist'), ("mariadb", "Unknown database 'nowhere'")],
)
def test_the_whole_text_for_a_database_that_does_not_exist(
    make_store_url: Callable[[str], str], kind: str, said: str
) -> None:
    driver = SQLAlchemyDriver(parse(make_store_url(kind)).set(database="nowhere"))
    with pytest.raises(ConfigurationError) as refusal:
        JobQueue(driver).push(Nothing)
    driver.close()
    place = repr(driver).partition(" ")[2].rstrip(">")
    assert str(refusal.value) == (f"{place} does not let us in: {said}. Create it, or correct its name in the URL.")


def test_an_application_s_engine_is_refused_in_the_same_way(make_store_url: Callable[[str], str]) -> None:
    engine = create_engine(parse(make_store_url("postgresql")).set(database="nowhere"))
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    with refused("nowhere"):
        SQLAlchemyDriver(engine).register(worker)


def test_to_a_process_that_was_let_in_before_a_database_that_is_gone_is_a_store_that_is_away(
    make_store_url: Callable[[str], str],
) -> None:
    """As while one is restored: a worker stays, and tries again."""
    url = parse(make_store_url("postgresql"))
    driver = SQLAlchemyDriver(url)
    driver.setup()
    driver.close()
    admin = url.set(database="postgres")
    execute(admin, f"ALTER DATABASE {url.database} RENAME TO {url.database}_aside")
    with pytest.raises(StoreUnavailable, match=r"does not exist.*Create it, or correct its name"):
        driver.stats()
    execute(admin, f"ALTER DATABASE {url.database}_aside RENAME TO {url.database}")
    assert driver.stats().total == 0
    driver.close()


def test_to_a_process_that_was_let_in_before_a_changed_password_is_a_store_that_is_away(
    make_store_url: Callable[[str], str],
) -> None:
    url = parse(make_store_url("mariadb"))
    name = f"worker_{fresh_id()[-8:]}"
    execute(url, f"CREATE USER {name}@'%' IDENTIFIED BY 'old'", f"GRANT ALL ON {url.database}.* TO {name}@'%'")
    driver = SQLAlchemyDriver(url.set(username=name, password="old"))
    driver.setup()
    driver.close()
    execute(url, f"ALTER USER {name}@'%' IDENTIFIED BY 'new'")
    with pytest.raises(StoreUnavailable, match=r"Access denied.*Check the user and the password"):
        driver.stats()
    execute(url, f"ALTER USER {name}@'%' IDENTIFIED BY 'old'")
    assert driver.stats().total == 0
    driver.close()
    execute(url, f"DROP USER {name}@'%'")


@pytest.mark.parametrize(
    ("said", "is_refused"),
    [
        ('failed: FATAL:  password authentication failed for user "ada"', True),
        ('failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ada", database "app", no encryption', True),
        ("connection failed: fe_sendauth: no password supplied", True),
        ("failed: FATAL:  the database system is starting up", False),
        ("failed: FATAL:  the database system is in recovery mode", False),
        ("failed: FATAL:  sorry, too many clients already", False),
        ("failed: Connection refused", False),
        ('head\n- host: a: FATAL:  database "x" does not exist\n- host: b: database "x" does not exist', True),
        ('database "x" does not exist\n- host: a: refused\n- host: b: database "x" does not exist', False),
    ],
)
def test_a_refusal_is_told_from_a_server_that_is_away(said: str, *, is_refused: bool) -> None:
    assert (_refusal(Exception(said)) is not None) is is_refused


def test_a_schema_that_does_not_exist_is_told_at_once(make_store_url: Callable[[str], str]) -> None:
    driver = SQLAlchemyDriver(f"{make_store_url('postgresql')}?options=-csearch_path%3Djobs")
    for verb in (driver.setup, driver.stats):
        with refused(r"'jobs', and no such schema exists.*CREATE SCHEMA \"jobs\""):
            verb()
    with driver.engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA jobs"))
    driver.setup()
    driver.close()


def test_missing_rights_on_the_schema_are_told_at_once(role: tuple[str, URL]) -> None:
    name, url = role
    execute(url, "CREATE SCHEMA jobs", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    guest = url.set(username=name, password="secret")
    hidden = SQLAlchemyDriver(guest.update_query_dict({"options": "-csearch_path=jobs"}))
    with refused(rf'may not use the schema .jobs..*GRANT USAGE, CREATE ON SCHEMA "jobs" TO "{name}"'):
        hidden.setup()
    closed = SQLAlchemyDriver(guest)
    with refused(rf'may make no tables in the schema .public..*GRANT CREATE ON SCHEMA "public" TO "{name}"'):
        closed.setup()
    SQLAlchemyDriver(url).setup()
    execute(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    assert closed.migrate() == []  # who need make nothing needs no right to
    with pytest.raises(ContractBroken, match="Give this user the rights"):
        closed.enqueue([NewJob(id=fresh_id(), queue="q", job_name="n", job_class="c", data="{}")])
    hidden.close()
    closed.close()


def test_on_mariadb_missing_rights_are_told_at_once(make_store_url: Callable[[str], str]) -> None:
    url = parse(make_store_url("mariadb"))
    name = f"guest_{fresh_id()[-8:]}"
    execute(url, f"CREATE USER {name}@'%' IDENTIFIED BY 'secret'", f"GRANT SELECT ON {url.database}.* TO {name}@'%'")
    driver = SQLAlchemyDriver(url.set(username=name, password="secret"))
    with pytest.raises(ContractBroken, match="Give this user the rights"):
        driver.setup()
    driver.close()
    execute(url, f"DROP USER {name}@'%'")


def test_on_mariadb_a_url_without_a_database_is_told_at_once(make_store_url: Callable[[str], str]) -> None:
    url = parse(make_store_url("mariadb"))
    driver = SQLAlchemyDriver(URL.create(url.drivername, url.username, url.password, url.host, url.port))
    for verb in (driver.setup, driver.stats):
        with refused("names no database"):
            verb()
    driver.close()
