"""The conformance kit on the planted driver; run by `one.py`, never by the ordinary tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial

import protojobs_mutant
import pytest

import servers
from mutants.mutant import STORES
from protojobs.entropy import fresh_id
from protojobs.testing.conformance import DriverConformance, DriverFactory

STORE = os.environ["PROTOJOBS_MUTANT_STORE"]
QUICK = "/dev/shm"  # a file system in memory, where there is one: no disk is waited for


class TestMutant(DriverConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def url(cls) -> Iterator[str]:
        if STORE == "memory":
            yield "memory://"
        elif STORE == "sqlite":
            with tempfile.TemporaryDirectory(dir=QUICK if os.access(QUICK, os.W_OK) else None) as folder:
                yield f"sqlite:///{folder}/jobs.db"
        else:
            with servers.running(STORE) as url:
                yield url

    @pytest.fixture
    def driver_factory(self, url: str) -> DriverFactory:
        own = url + fresh_id() if STORE == "memory" else url  # a store that is the test's own, where it costs nothing
        return partial(getattr(protojobs_mutant, STORES[STORE].driver), own)
