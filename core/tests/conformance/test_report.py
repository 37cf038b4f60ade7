"""From the outcomes of tests to the levels: which one was reached, and whether all is well."""

from __future__ import annotations

import pytest

from protojobs.port.records import Capabilities
from protojobs.testing.conformance.levels import Level
from protojobs.testing.conformance.report import Outcome, Subject, TestReport, reported, skipped_as

TestReport.__test__ = False  # its name looks like a class of tests

P, F, C, R = Outcome.PASSED, Outcome.FAILED, Outcome.NOT_CLAIMED, Outcome.NOT_RUN
SUBJECT = Subject(
    driver="D", distribution="", store="d://", capabilities=Capabilities(), port_version=1, protojobs="0", python="3",
    system="",
)  # fmt: skip


def some(level: Level, *outcomes: Outcome) -> list[TestReport]:
    return [
        TestReport(id=f"{level}.t{n}", concern=level.value, level=level, outcome=each, sentence="", seconds=0.5)
        for n, each in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("queue", "transactions", "faults", "reached", "ok"),
    [
        ([P, P], [P], [P], Level.FAULTS, True),
        ([P], [C, C], [C], Level.QUEUE, True),
        ([P], [C], [P], Level.FAULTS, True),  # what is not claimed is passed over
        ([P], [P, C], [P], Level.FAULTS, True),  # savepoints are not claimed, the rest of the level is
        ([P], [P, F], [P], Level.QUEUE, False),
        ([P, F], [P], [P], None, False),
        ([P], [P], [P, R], Level.TRANSACTIONS, False),  # claimed, and nobody knows
        ([P], [P], [F], Level.TRANSACTIONS, False),
        ([], [], [], None, False),  # nothing ran: nothing is shown
        ([C], [C], [C], None, False),
    ],
)
def test_the_level_reached(queue, transactions, faults, reached, ok) -> None:
    tests = some(Level.QUEUE, *queue) + some(Level.TRANSACTIONS, *transactions)
    tests += some(Level.FAULTS, *faults)
    report = reported(SUBJECT, Level.FAULTS, tests, seconds=1.0, is_whole=True)
    assert (report.reached, report.ok) == (reached, ok)


def test_a_run_that_was_not_whole_shows_nothing() -> None:
    report = reported(SUBJECT, Level.QUEUE, some(Level.QUEUE, P), seconds=1.0, is_whole=False)
    assert (report.reached, report.ok) == (None, False)


def test_levels_above_the_one_asked_for_are_left_out() -> None:
    report = reported(SUBJECT, Level.QUEUE, some(Level.QUEUE, P, P), seconds=1.0, is_whole=True)
    assert [(level.name, level.passed, level.seconds) for level in report.levels] == [("queue", 2, 1.0)]
    assert (report.reached, report.ok) == (Level.QUEUE, True)


def test_a_skip_counts_as_not_claimed_only_where_the_kit_says_so() -> None:
    assert skipped_as("not claimed: transactions") is C
    assert skipped_as("not run: no SIGSTOP") is R
    assert skipped_as("whatever somebody's plugin thought") is R
