"""The kit on one of the drivers of planted_faults.py, whose URL is in the environment; not run as it is."""

from __future__ import annotations

import os
from functools import partial

import pytest

from protojobs import create_driver
from protojobs.testing.conformance import DriverConformance


class TestPlanted(DriverConformance):
    @pytest.fixture
    def store_url(self):
        return os.environ["PLANTED_URL"]

    @pytest.fixture
    def driver_factory(self, store_url):
        return partial(create_driver, store_url)
