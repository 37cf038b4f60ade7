"""Run as a program: the conformance kit's queue level against an LMDB driver of which only some verbs are written.

Arguments: where to write the outcomes, then the verbs. Each other verb raises NotImplementedError, as in the scaffold.
The random walk is left out: it needs every verb.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from protojobs_lmdb import LmdbDriver

from protojobs.testing.conformance import DriverConformance, DriverFactory
from protojobs.testing.conformance.levels import Level, contract_of
from third_party.stranger import VERBS

RANDOM_WALK = "test_a_random_walk_is_answered_as_by_the_memory_driver"

written = sys.argv[2:]


def not_written(*_: object, **__: object) -> None:
    raise NotImplementedError


PartOfADriver = type("PartOfADriver", (LmdbDriver,), {verb: not_written for verb in VERBS if verb not in written})


class TestPart(DriverConformance):
    @pytest.fixture
    def driver_factory(self, tmp_path: Path) -> DriverFactory:
        return partial(PartOfADriver, f"lmdb:///{tmp_path / 'jobs'}")

    @pytest.fixture
    def reset(self, driver_factory: DriverFactory) -> Callable[[], None]:
        return driver_factory().setup  # each test has a file of its own here


class Outcomes:
    """A pytest plugin: which tests passed, by the name of their function (all of its parameters)."""

    def __init__(self) -> None:
        self.passed: dict[str, bool] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        queue = [
            item
            for item in items
            if (contract := contract_of(item.cls, item.originalname)) and contract.level is Level.QUEUE
        ]
        items[:] = [item for item in queue if item.originalname != RANDOM_WALK]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            name = report.nodeid.split("::")[-1]
            self.passed[name] = report.passed and self.passed.get(name, True)


if __name__ == "__main__":
    outcomes = Outcomes()
    place = Path(sys.argv[1])
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(place.parent)]
    pytest.main([*options, "--basetemp", str(place.parent / "stores"), __file__], plugins=[outcomes])
    place.write_text(json.dumps(outcomes.passed))
