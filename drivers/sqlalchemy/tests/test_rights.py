"""The rights that the page "Keep jobs beside your own tables" gives a role are enough for all that processes do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text

from protojobs import JobQueue, Scheduler, job
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, ContractBroken, SchemaOutdated
from protojobs.port.records import WorkerInfo
from protojobs.testing.conformance.plans import a_due_schedule
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.connecting.urls import parse

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "beside-your-own-tables.md"


@job(name="rights.add")
def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture(params=["postgresql", "mariadb"])
def stores(
    request: pytest.FixtureRequest, make_store_url: Callable[[str], str]
) -> Iterator[tuple[SQLAlchemyDriver, SQLAlchemyDriver, list[str]]]:
    """A migrated store as its owner and as a role without rights see it, and the page's statements for the role."""
    kind = str(request.param)
    url = parse(make_store_url(kind))
    tail = fresh_id()[-8:]
    owner, app = f"owner_{tail}", f"app_{tail}"
    if kind == "postgresql":
        execute(
            url,
            f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'",
            f"CREATE ROLE {app} LOGIN PASSWORD 'secret'",
            f"CREATE SCHEMA jobs AUTHORIZATION {owner}",
        )
    else:
        execute(
            url,
            f"CREATE USER {owner}@'%' IDENTIFIED BY 'secret'",
            f"CREATE USER {app}@'%' IDENTIFIED BY 'secret'",
            f"GRANT ALL ON {url.database}.* TO {owner}@'%' WITH GRANT OPTION",
        )
    schema = "jobs" if kind == "postgresql" else None
    owned = SQLAlchemyDriver(url.set(username=owner, password="secret"), schema=schema)
    limited = SQLAlchemyDriver(url.set(username=app, password="secret"), schema=schema)
    owned.setup()
    names = {'"owner"': owner, '"app"': app, "'app'": app, "`shop`": str(url.database)}
    yield owned, limited, [re.sub("|".join(names), lambda found: names[found[0]], one) for one in statements(kind)]
    limited.close()
    owned.close()
    if kind == "postgresql":
        execute(url, *[f"DROP OWNED BY {role} CASCADE" for role in (app, owner)], f"DROP ROLE {app}, {owner}")
    else:
        execute(url, f"DROP USER {app}@'%', {owner}@'%'")


def statements(kind: str) -> list[str]:
    """What the page says, of the section "Rights"."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Rights\n")[1].split("\n## ")[0]
    on_postgresql, on_mariadb = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    shown = on_postgresql if kind == "postgresql" else on_mariadb
    return [line for line in shown.splitlines() if line]


def execute(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        for statement in statements:
            conn.execute(text(statement))
    engine.dispose()


def test_the_rights_of_the_page_are_enough_for_all_that_processes_do(
    stores: tuple[SQLAlchemyDriver, SQLAlchemyDriver, list[str]],
) -> None:
    owned, limited, rights = stores
    queue = JobQueue(limited)
    with pytest.raises((ConfigurationError, ContractBroken, SchemaOutdated)):
        queue.push(add.bind(1, 2))
    execute(owned.engine.url, *rights)

    assert limited.migrate() == []
    queue.push_many([add.bind(1, number) for number in range(3)])
    assert queue.work(max_jobs=3).done == 3
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=("q",), concurrency=1, lease_s=60)
    limited.register(worker)
    limited.heartbeat(worker.id, {})
    scheduler = Scheduler(queue)
    scheduler.every(add.bind(2, 2), timedelta(hours=6), id="sums")
    a_due_schedule(limited)
    scheduler.tick()
    assert limited.stats("q").total == 1
    assert queue.prune(completed_older_than=0).completed == 3
    codes = {finding.code: finding.severity.value for finding in limited.diagnose()}
    assert (codes["schema"], codes["indexes_missing"]) == (0, 0)


def test_the_rights_of_the_page_hold_for_the_tables_of_a_later_migration_too(
    stores: tuple[SQLAlchemyDriver, SQLAlchemyDriver, list[str]],
) -> None:
    owned, limited, rights = stores
    execute(owned.engine.url, *rights)
    later = "jobs.later" if owned.engine.dialect.name == "postgresql" else "later"
    with owned.engine.begin() as conn:
        conn.execute(text(f"CREATE TABLE {later} (id integer PRIMARY KEY)"))
    with limited.engine.begin() as conn:
        conn.execute(text(f"INSERT INTO {later} VALUES (1)"))
        assert conn.execute(text(f"SELECT id FROM {later}")).scalar() == 1
