"""What a run of the kit found out: for each test, each concern and each level, and which level was reached.

`Report` is the document that `protojobs conformance --json` writes, schema `protojobs/conformance@1`. Fields are added
to it, never taken away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from protojobs.port.records import Capabilities
from protojobs.testing.conformance.levels import NOT_CLAIMED, Contract, Level

__all__ = ["SCHEMA", "Counts", "Outcome", "Report", "Subject", "TestReport", "reported", "skipped_as", "unfinished"]

SCHEMA = "protojobs/conformance@1"


class Outcome(StrEnum):
    """How a test ended; and with the same words how a concern or a level did."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CLAIMED = "not_claimed"  # the driver does not say that it can do this
    NOT_RUN = "not_run"  # it says so, but it could not be tried here


class Subject(Struct, frozen=True, kw_only=True):
    """What was tested, and with what."""

    driver: str  # the class
    distribution: str  # name and version, empty when unknown
    store: str  # the URL without its password
    capabilities: Capabilities
    port_version: int
    protojobs: str
    python: str
    system: str


class TestReport(Struct, frozen=True, kw_only=True):
    """One test. `seconds` counts making the store ready as well; `detail` says why it did not pass."""

    id: str
    concern: str
    level: Level
    outcome: Outcome
    sentence: str
    seconds: float
    detail: str = ""


class Counts(Struct, frozen=True, kw_only=True):
    """One concern, or one level, by the outcomes of its tests."""

    name: str
    level: Level
    outcome: Outcome
    passed: int = 0
    failed: int = 0
    not_claimed: int = 0
    not_run: int = 0
    seconds: float = 0.0


class Report(Struct, frozen=True, kw_only=True):
    """The whole. `reached` is the highest level that passed with all claimed ones below it; None: not even the first.

    `ok`: the run was whole, and everything that the driver claims passed, as far as it was asked for.
    """

    schema: str
    subject: Subject
    asked: Level
    reached: Level | None
    ok: bool
    seconds: float
    levels: tuple[Counts, ...]
    concerns: tuple[Counts, ...]
    tests: tuple[TestReport, ...]


def reported(subject: Subject, asked: Level, tests: Sequence[TestReport], *, seconds: float, is_whole: bool) -> Report:
    """Add it all up."""
    levels = [_counts(level.value, level, [test for test in tests if test.level is level]) for level in Level]
    levels = levels[: list(Level).index(asked) + 1]
    names = dict.fromkeys((test.concern, test.level) for test in tests)
    concerns = [_counts(name, level, [test for test in tests if test.concern == name]) for name, level in names]
    fine = (Outcome.PASSED, Outcome.NOT_CLAIMED)
    reached: Level | None = None
    for level in levels:
        if level.outcome not in fine:
            break
        if level.outcome is Outcome.PASSED:
            reached = level.level
    return Report(
        schema=SCHEMA,
        subject=subject,
        asked=asked,
        reached=reached if is_whole else None,
        ok=is_whole and reached is not None and all(level.outcome in fine for level in levels),
        seconds=round(seconds, 3),
        levels=tuple(levels),
        concerns=tuple(concerns),
        tests=tuple(tests),
    )


def _counts(name: str, level: Level, tests: Sequence[TestReport]) -> Counts:
    counts = Counter(test.outcome.value for test in tests)
    order = (Outcome.FAILED, Outcome.NOT_RUN, Outcome.PASSED, Outcome.NOT_CLAIMED)
    outcome = next((outcome for outcome in order if counts[outcome.value]), Outcome.NOT_RUN)
    return Counts(
        name=name,
        level=level,
        outcome=outcome,
        passed=counts["passed"],
        failed=counts["failed"],
        not_claimed=counts["not_claimed"],
        not_run=counts["not_run"],
        seconds=round(sum(test.seconds for test in tests), 3),
    )


def skipped_as(reason: str) -> Outcome:
    """How a test counts that was skipped for this reason."""
    return Outcome.NOT_CLAIMED if reason.startswith(NOT_CLAIMED) else Outcome.NOT_RUN


def unfinished(contract: Contract, test_id: str) -> TestReport:
    """A test that has not ended yet."""
    return TestReport(
        id=test_id,
        concern=contract.concern,
        level=contract.level,
        outcome=Outcome.PASSED,
        sentence=contract.sentence + test_id.removeprefix(contract.id),
        seconds=0.0,
    )
