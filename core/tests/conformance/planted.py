"""Drivers with a lie or a gap planted in them, and classes that quietly leave tests out."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest
from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.testing.conformance import DriverConformance
from protojobs_memory import MemoryDriver

CLAIMED = MemoryDriver.capabilities


class Overclaims(MemoryDriver):
    capabilities = replace(CLAIMED, transactions=True)


class Underclaims(MemoryDriver):
    def enqueue_in(self, transaction, jobs, *, on_commit=None):
        return self.enqueue(jobs)

    def complete_in(self, transaction, claim):
        raise NotImplementedError


class HalfHearted(Underclaims):
    """Claims transactions, has the verbs, and they do not roll back."""

    capabilities = replace(CLAIMED, transactions=True)

    @contextmanager
    def begin(self):
        yield object()


class Reserved(MemoryDriver):
    capabilities = replace(CLAIMED, unique_keys=True)


class CrossProcess(MemoryDriver):
    capabilities = replace(CLAIMED, cross_process=True)


class OnMemory(DriverConformance):
    kind = MemoryDriver
    machine_examples = 1

    @pytest.fixture
    def driver_factory(self):
        return partial(self.kind, f"memory://{fresh_id()}")

    @pytest.fixture
    def store_url(self):
        return "memory://elsewhere"


class TestHonest(OnMemory):
    def test_of_the_authors_own(self):
        """Nobody minds."""

    @pytest.mark.xfail(reason="this store has no clock")
    def test_store_time_does_not_run_backwards(self):
        raise AssertionError


class TestOverclaims(OnMemory):
    kind = Overclaims


class TestUnderclaims(OnMemory):
    kind = Underclaims


class TestHalfHearted(OnMemory):
    kind = HalfHearted


class TestReserved(OnMemory):
    kind = Reserved


class TestCrossProcess(OnMemory):
    kind = CrossProcess


class TestOverrides(OnMemory):
    def test_store_time_does_not_run_backwards(self):
        """Looks as if it passed."""


class TestDeletes(OnMemory):
    test_store_time_does_not_run_backwards = None


class TestSkipsWithoutReason(OnMemory):
    @pytest.mark.skip
    def test_store_time_does_not_run_backwards(self):
        raise AssertionError


class TestGivesBack(TestOverrides):
    test_store_time_does_not_run_backwards = DriverConformance.test_store_time_does_not_run_backwards


class TestGivesNothing(DriverConformance):
    pass
