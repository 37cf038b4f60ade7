"""The kit against the store at a URL: what `python -m protojobs.testing.conformance` gives to pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from protojobs import create_driver
from protojobs.port.driver import Store
from protojobs.testing.conformance.fixtures import DriverFactory
from protojobs.testing.conformance.suite import DriverConformance
from protojobs.testing.emptying import empty

__all__ = ["STORE_URL", "TestTheStore"]

STORE_URL = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def keeper(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The driver that empties the store before each test, and after the last."""
    driver = create_driver(request.config.stash[STORE_URL])
    yield driver
    empty(driver)
    driver.close()


class TestTheStore(DriverConformance):
    """Everything that the kit asks can be made from a URL."""

    @pytest.fixture
    def store_url(self, request: pytest.FixtureRequest) -> str:
        """The store's."""
        return request.config.stash[STORE_URL]

    @pytest.fixture
    def driver_factory(self, store_url: str) -> DriverFactory:
        """As an application would make it."""

        def make(*, time_offset: float = 0.0) -> Store:
            return create_driver(store_url, time_offset=time_offset)

        return make

    @pytest.fixture
    def reset(self, keeper: Store) -> Callable[[], None]:
        """By one driver for all tests."""
        return lambda: empty(keeper)
