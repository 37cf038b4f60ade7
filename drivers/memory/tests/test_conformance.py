from functools import partial

import pytest

from protojobs.entropy import fresh_id
from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_memory import MemoryDriver


class TestMemoryDriver(DriverConformance):
    @pytest.fixture
    def driver_factory(self) -> DriverFactory:
        return partial(MemoryDriver, f"memory://{fresh_id()}")
