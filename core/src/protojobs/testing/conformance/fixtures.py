"""What a driver's author gives to the kit, and what the kit makes of it for its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import entry_points
from typing import Protocol

import pytest

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.transactions import Begins, BeginsNested
from protojobs.testing.conformance.levels import NOT_CLAIMED
from protojobs.testing.emptying import empty

__all__ = ["Begin", "DriverFactory", "Fixtures", "Handles", "Later", "Savepoint"]

Later = Callable[[float], Store]
Begin = Callable[[], AbstractContextManager[object]]
Savepoint = Callable[[object], AbstractContextManager[object]]


class DriverFactory(Protocol):
    """Makes one more driver object that looks at the same store."""

    def __call__(self, *, time_offset: float = 0.0) -> Store:
        """A new driver whose store time runs `time_offset` seconds ahead."""
        ...


class Handles:
    """The driver objects of one test. Each stands for a process of its own, so none is ever handed out twice."""

    def __init__(self, factory: DriverFactory) -> None:
        self._factory = factory
        self._made: list[Store] = []

    def __call__(self, time_offset: float = 0.0) -> Store:
        """One more driver on the test's store."""
        driver = self._factory(time_offset=time_offset) if time_offset else self._factory()
        self._made.append(driver)
        return driver

    def close(self) -> None:
        """Close all of them."""
        for driver in self._made:
            driver.close()


class Fixtures:
    """Override `driver_factory`; and `reset`, `disturb`, `transaction`, `savepoint` or `store_url` where their own text
    says that it helps.
    """

    @pytest.fixture
    def driver_factory(self) -> DriverFactory:
        """To be given: a callable that makes driver objects on one store, and takes `time_offset`."""
        pytest.fail(
            "The conformance kit needs a `driver_factory` fixture in your test class: a callable that returns a new"
            " driver object on the same store at each call, and passes on time_offset=."
        )

    @pytest.fixture
    def reset(self, driver_factory: DriverFactory) -> Callable[[], None]:
        """May be given: a callable that leaves the store set up and empty. It runs before each test: make it cheap."""

        def emptied() -> None:
            driver = driver_factory()
            empty(driver)
            driver.close()

        return emptied

    @pytest.fixture
    def disturb(self, handles: Handles) -> Callable[[], None]:
        """May be given: a callable that cuts every connection to the store. By default the drivers are closed."""
        return handles.close

    @pytest.fixture
    def transaction(self, driver: Store) -> Begin:
        """To be given for the level `transactions`, unless the driver itself has `begin`: a callable that answers a
        context manager. It yields what your `enqueue_in` takes, commits at the end, and rolls back at an exception.
        """
        if not driver.capabilities.transactions:
            pytest.skip(f"{NOT_CLAIMED}transactions")
        if not isinstance(driver, Begins):
            pytest.fail("The driver claims transactions: give the fixture `transaction`, or the driver a `begin`.")
        return driver.begin

    @pytest.fixture
    def savepoint(self) -> Savepoint:
        """May be given: from such a transaction to a context manager that is a savepoint in it. By default the
        `begin_nested` of the transaction is called, where it has one.
        """

        def nested(transaction: object) -> AbstractContextManager[object]:
            if not isinstance(transaction, BeginsNested):
                pytest.skip(f"{NOT_CLAIMED}savepoints (no fixture `savepoint`, and no `begin_nested`)")
            return transaction.begin_nested()

        return nested

    @pytest.fixture
    def store_url(self) -> str | None:
        """To be given for the level `faults`: the URL by which `create_driver` finds the same store in a process of its
        own. Your driver must be installed, with its entry point.
        """
        return None

    @pytest.fixture
    def model_factory(self) -> DriverFactory:
        """The store that the state machine takes for the truth: the memory driver, with a store of its own."""
        found = tuple(entry_points(group="protojobs.drivers", name="memory"))
        if not found:
            pytest.fail("The state machine compares with the memory driver: pip install protojobs-memory")
        factory: DriverFactory = partial(found[0].load(), f"memory://conformance-{fresh_id()}")
        return factory

    @pytest.fixture
    def handles(self, driver_factory: DriverFactory, reset: Callable[[], None]) -> Iterator[Handles]:
        """Makes further driver objects on the store, which is empty when the test begins."""
        reset()
        handles = Handles(driver_factory)
        yield handles
        handles.close()

    @pytest.fixture
    def driver(self, handles: Handles) -> Store:
        """The driver under test, on an empty store."""
        return handles()

    @pytest.fixture
    def later(self, handles: Handles) -> Later:
        """`later(70)`: a driver on the same store, for which 70 more seconds have passed."""
        known: dict[float, Store] = {}

        def moved_by(seconds: float) -> Store:
            if seconds not in known:
                known[seconds] = handles(seconds)
            return known[seconds]

        return moved_by
