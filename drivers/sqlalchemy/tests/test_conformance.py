"""The driver contract, on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import create_engine

from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.tables import metadata


def emptier(driver: SQLAlchemyDriver) -> Callable[[], None]:
    """DELETE costs a few milliseconds; making the tables anew would cost a hundred on MariaDB."""

    def empty() -> None:
        with driver.engine.begin() as conn:
            for table in metadata.tables.values():
                conn.execute(table.delete())

    return empty


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


class TestOnSQLite(OnOneDatabase):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'jobs.db'}"


class TestOnSQLiteThroughTheApplicationsEngine(OnOneDatabase):
    """An engine as `create_engine` makes it: no write-ahead log, and transactions that begin by themselves."""

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'jobs.db'}"

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, url: str) -> DriverFactory:
        return partial(SQLAlchemyDriver, create_engine(url))


class TestOnPostgreSQL(OnOneDatabase):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, postgresql_url: str) -> str:
        return postgresql_url


class TestOnMariaDB(OnOneDatabase):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, mariadb_url: str) -> str:
        return mariadb_url
