"""The memory driver keeps the contract of every driver."""

from functools import partial

import pytest

from protojobs.entropy import fresh_id
from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_memory import MemoryDriver


class TestMemoryDriver(DriverConformance):
    @pytest.fixture
    def store_url(self) -> str:
        return f"memory://{fresh_id()}"

    @pytest.fixture
    def driver_factory(self, store_url: str) -> DriverFactory:
        return partial(MemoryDriver, store_url)
