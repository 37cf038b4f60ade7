"""The conformance kit on the planted driver; run by `one.py`, never by the ordinary tests."""

from __future__ import annotations

from functools import partial

import protojobs_mutant
import pytest

from protojobs.entropy import fresh_id
from protojobs.testing.conformance import DriverConformance, DriverFactory


class TestMutant(DriverConformance):
    @pytest.fixture
    def driver_factory(self) -> DriverFactory:
        return partial(protojobs_mutant.MemoryDriver, f"memory://{fresh_id()}")
