"""Fixtures for the tests of every distribution: real servers (tests/servers.py) and the URLs of empty stores."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import servers
from protojobs.testing.conformance.levels import Level, contract_of

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")

# The kit runs its kills for each of these in `dev.py faults --short`.
SUITES_ON_SERVERS = {
    *("TestOnPostgreSQL", "TestOnMariaDB", "TestValkey", "TestValkeyCluster"),
    "TestOnSQLiteThroughTheApplicationsEngine",
}

# The same driver on another deployment, and walks of a minute on servers. `dev.py test-slow` runs these.
FURTHER_SUITES = {"TestValkeyCluster", "TestOnSQLiteThroughTheApplicationsEngine"}
WALK = "test_a_random_walk_is_answered_as_by_the_memory_driver"


def _give_processes_the_usual_signals() -> None:
    """What `nohup` and some CI runners have ignored is ignored here too, and no longer by the processes of the tests.

    An ignored signal is inherited by whatever is started, a handler is not: exec sets it back to the default.
    """
    for number in (signal.SIGINT, signal.SIGTERM, *(getattr(signal, name, None) for name in ("SIGHUP", "SIGQUIT"))):
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    _give_processes_the_usual_signals()
    if not hasattr(config, "workerinput"):  # the controller, or a run without workers
        run = servers.whole_run()
        run.__enter__()
        config.add_cleanup(lambda: run.__exit__(None, None, None))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in servers.summary():
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The kit's kills on servers belong to `dev.py faults --short`, as ours do; `dev.py test` shows them on files."""
    for item in items:
        if (suite := getattr(item, "cls", None)) is None or suite.__name__ not in SUITES_ON_SERVERS:
            continue
        if suite.__name__ in FURTHER_SUITES or item.name == WALK:
            item.add_marker("slow")
        contract = contract_of(suite, getattr(item, "originalname", item.name))
        if contract is not None and contract.level is Level.FAULTS:
            item.add_marker("faults")


def need(kind: str) -> str:
    """The URL of the run's server; without one the test fails: a test that did not run must not look like one."""
    try:
        return servers.shared(kind).url
    except servers.Unavailable as error:
        pytest.fail(str(error), pytrace=False)


def own_database(kind: str, *words: str) -> Iterator[str]:
    server, name = need(kind), servers.database_name(WORKER, *words)
    yield servers.create_database(server, name)
    servers.drop_database(server, name)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """An empty PostgreSQL database, this test process's own."""
    yield from own_database("postgresql")


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """An empty MariaDB database, this test process's own."""
    yield from own_database("mariadb")


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """A Valkey (or Redis) database, this test process's own: its number is in the URL, so pass no `db=` beside it."""
    return f"{need('valkey').rstrip('/')}/{int(WORKER.removeprefix('gw')) % servers.VALKEY_DATABASES}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def make_store_url(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`make_store_url("sqlite" | "postgresql" | "mariadb" | "valkey")`: each call gives a new, empty store.

    It costs a `create database`; where deleting rows between tests will do, take the session's URLs instead.
    """
    made: list[tuple[str, str]] = []

    def make(kind: str) -> str:
        if kind == "sqlite":
            made.append(("", ""))
            return f"sqlite:///{tmp_path / f'store-{len(made)}.db'}"
        if kind == "valkey":  # a namespace of its own
            return f"{need('valkey').rstrip('/')}/0?namespace={servers.database_name(WORKER, 'own')}"
        server, name = need(kind), servers.database_name(WORKER, "own")
        url = servers.create_database(server, name)
        made.append((server, name))
        return url

    yield make
    for server, name in made:
        if server:
            servers.drop_database(server, name)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def store_url(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> str:
    """A new, empty SQL store of each kind in turn: the test runs once for each."""
    return make_store_url(request.param)
