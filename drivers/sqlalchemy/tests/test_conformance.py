"""The driver contract, on each database."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.tables.tables import PLAIN


def emptier(driver: SQLAlchemyDriver) -> Callable[[], None]:
    """DELETE costs a few milliseconds; making the tables anew would cost a hundred on MariaDB."""

    def empty() -> None:
        with driver.engine.begin() as conn:
            for table in PLAIN.metadata.tables.values():
                conn.execute(table.delete())

    return empty


def cutting(driver: SQLAlchemyDriver, statement: str) -> Callable[[], None]:
    def cut() -> None:
        with driver.engine.connect() as conn:
            conn.execute(text(statement))

    return cut


def holding(driver: SQLAlchemyDriver, lock: str, unlock: str) -> Callable[[], AbstractContextManager[None]]:
    """All tables, locked by another session."""

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        with driver.engine.connect() as conn:
            conn.execute(text(lock))
            yield
            conn.execute(text(unlock))

    return held


class OnOneDatabase(DriverConformance):
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
        return emptier(keeper)

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, url: str) -> DriverFactory:
        return partial(SQLAlchemyDriver, url)

    @pytest.fixture
    def store_url(self, url: str) -> str:
        return url

    @pytest.fixture
    def unreachable(self, url: str) -> Callable[[], SQLAlchemyDriver]:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            port = server.getsockname()[1]  # nobody listens there any more
        return lambda: SQLAlchemyDriver(make_url(url).set(host="127.0.0.1", port=port))


class TestOnSQLite(OnOneDatabase):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'jobs.db'}"

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Callable[[], SQLAlchemyDriver]:
        return lambda: SQLAlchemyDriver(f"sqlite:///{tmp_path}")  # a folder is no file


class TestOnSQLiteThroughTheApplicationsEngine(OnOneDatabase):
    """An engine as `create_engine` makes it: no write-ahead log, and transactions that begin by themselves."""

    machine_examples = 10  # the statements are those of the class above; only the connections differ

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'jobs.db'}"

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, url: str) -> DriverFactory:
        return partial(SQLAlchemyDriver, create_engine(url))

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Callable[[], SQLAlchemyDriver]:
        return lambda: SQLAlchemyDriver(create_engine(f"sqlite:///{tmp_path}"))


class TestOnPostgreSQL(OnOneDatabase):
    @pytest.fixture
    def disturb(self, keeper: SQLAlchemyDriver) -> Callable[[], None]:
        mine = "pid <> pg_backend_pid() AND datname = current_database()"
        return cutting(keeper, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")

    @pytest.fixture
    def hold(self, keeper: SQLAlchemyDriver) -> Callable[[], AbstractContextManager[None]]:
        return holding(keeper, f"LOCK TABLE {', '.join(PLAIN.metadata.tables)} IN ACCESS EXCLUSIVE MODE", "ROLLBACK")

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, postgresql_url: str) -> str:
        return postgresql_url


class TestOnMariaDB(OnOneDatabase):
    @pytest.fixture
    def disturb(self, keeper: SQLAlchemyDriver) -> Callable[[], None]:
        mine = "db = database() AND id <> connection_id()"
        found = f"SELECT concat('KILL ', id) FROM information_schema.processlist WHERE {mine}"

        def cut() -> None:
            with keeper.engine.connect() as conn:
                for kill in conn.execute(text(found)).scalars().all():
                    with contextlib.suppress(DBAPIError):  # it has just ended by itself
                        conn.execute(text(kill))

        return cut

    @pytest.fixture
    def hold(self, keeper: SQLAlchemyDriver) -> Callable[[], AbstractContextManager[None]]:
        return holding(keeper, f"LOCK TABLES {' WRITE, '.join(PLAIN.metadata.tables)} WRITE", "UNLOCK TABLES")

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, mariadb_url: str) -> str:
        return mariadb_url
