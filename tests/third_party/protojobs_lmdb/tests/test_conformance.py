from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from protojobs_lmdb import LmdbDriver

from protojobs.testing.conformance import DriverConformance, DriverFactory


class TestLmdbDriver(DriverConformance):
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return f"lmdb:///{tmp_path / 'jobs'}"  # a store that is the test's own

    @pytest.fixture
    def driver_factory(self, store_url: str) -> DriverFactory:
        return partial(LmdbDriver, store_url)

    @pytest.fixture
    def reset(self, driver_factory: DriverFactory) -> Callable[[], None]:
        def emptied() -> None:  # without this fixture the store is emptied gently, which takes a dozen verbs
            driver = driver_factory()
            driver.teardown()
            driver.setup()
            driver.close()

        return emptied
