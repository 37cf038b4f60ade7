from functools import partial
from pathlib import Path

import pytest

from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs_lmdb import LmdbDriver


class TestLmdbDriver(DriverConformance):
    @pytest.fixture
    def driver_factory(self, tmp_path: Path) -> DriverFactory:
        return partial(LmdbDriver, f"lmdb:///{tmp_path / 'jobs.lmdb'}")
