"""The driver contract where completed jobs go into the archive.

Only the concerns that a job's end decides, and a short random walk over all verbs: the rest runs the statements that
`test_conformance.py` runs on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import text

from protojobs.testing.conformance import DriverFactory
from protojobs.testing.conformance.administering import Administering
from protojobs.testing.conformance.counting import Counting
from protojobs.testing.conformance.enqueueing import Enqueueing
from protojobs.testing.conformance.listing import Listing
from protojobs.testing.conformance.machine import Comparing
from protojobs.testing.conformance.settling import Settling
from protojobs.testing.conformance.transferring import Transferring
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.tables.tables import PLAIN


class TestWithAnArchive(Enqueueing, Settling, Administering, Counting, Listing, Transferring, Comparing):
    machine_examples = 3

    @pytest.fixture(scope="class")
    @classmethod
    def keeper(cls, postgresql_url: str) -> Iterator[SQLAlchemyDriver]:
        driver = SQLAlchemyDriver(postgresql_url, archive="daily")
        driver.setup()
        yield driver
        driver.teardown()
        driver.close()

    @pytest.fixture(scope="class")
    @classmethod
    def reset(cls, keeper: SQLAlchemyDriver) -> Callable[[], None]:
        def empty() -> None:
            with keeper.engine.begin() as conn:
                for name in [*PLAIN.metadata.tables, "jobs_archive"]:
                    conn.execute(text(f"DELETE FROM {name}"))

        return empty

    @pytest.fixture(scope="class")
    @classmethod
    def driver_factory(cls, postgresql_url: str) -> DriverFactory:
        return partial(SQLAlchemyDriver, f"{postgresql_url}?archive=daily")

    @pytest.fixture
    def store_url(self, postgresql_url: str) -> str:
        return f"{postgresql_url}?archive=daily"
