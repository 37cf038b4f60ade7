"""Each rule of the checker, on a small history that breaks it and on the nearest one that does not."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from .checker import complaints
from .history import End, Fault, Final, History, Pushed, Run

LEASE_S = 6.0
MAX_RETRIES = 2

COMPLETED, CANCELLED = Final("completed", 1), Final("cancelled", 1)
FAILED = Final("failed", MAX_RETRIES + 1, has_failed_row=True)
ACKNOWLEDGED = Pushed(at=0.0, is_acknowledged=True)
OK = Run("job", 1, 1, "a", 1.0, 2.0, End.OK)
AGAIN = replace(OK, claim_seq=3, worker="b", began=10.0, ended=11.0)
UNSEEN = replace(OK, ended=None, end=None)
CUT = replace(OK, end=End.CUT)
RAISED = replace(OK, end=End.FAILED, again_in=3.0)


def raised(*, times: int, ends_with: Run | None = None) -> list[Run]:
    """Failures one after the other, each when it is due, all of them stored."""
    runs = [replace(RAISED, claim_seq=n, attempt=n, began=5.0 * n, ended=5.0 * n + 1) for n in range(1, times + 1)]
    last = [] if ends_with is None else [replace(ends_with, claim_seq=times + 1, began=90.0, ended=91.0)]
    return runs + last


def killed(*, times: int) -> list[Run]:
    """Runs that KILLS ended, each taken back."""
    return [replace(CUT, claim_seq=2 * n - 1, began=20.0 * n, ended=20.0 * n + 1) for n in range(1, times + 1)]


def of(*runs: Run, final: Final | None = COMPLETED, pushed: Pushed = ACKNOWLEDGED, faults: tuple[Fault, ...] = ()):
    """The history of one job."""
    finals = {} if final is None else {"job": final}
    return History(pushed={"job": pushed}, runs=list(runs), faults=list(faults), finals=finals)


def judged(history: History) -> list[str]:
    return complaints(history, lease_s=LEASE_S, settles_within_s=2.0, max_retries=MAX_RETRIES)


def hit(kind: str, began: float, ended: float | None = None, worker: str = "a") -> Fault:
    return Fault(kind, began, began if ended is None else ended, worker)


KILLS = tuple(hit("kill", 20.0 * n + 1) for n in range(1, 6))


def test_a_job_that_ran_once_and_completed_is_in_order() -> None:
    assert judged(of(OK)) == []


GUILTY = {
    "lost": (of(final=None), "job was acknowledged and is gone"),
    "unexpected": (History(runs=[OK]), "job ran, and nobody pushed it"),
    "stuck": (of(UNSEEN, final=Final("processing", 1)), "job has not come to an end: processing"),
    "completed by nobody": (of(CUT), "job counts as completed, and no run of it ended well"),
    "given up": (of(*raised(times=3), final=FAILED), "job counts as failed, and was not to fail"),
    "cancelled by nobody": (of(OK, final=CANCELLED), "job counts as cancelled, and nobody cancelled it"),
    "no failed row": (
        of(*raised(times=3), final=replace(FAILED, has_failed_row=False), pushed=replace(ACKNOWLEDGED, may_fail=True)),
        "job is failed, and no row of failed jobs says so",
    ),
    "a failed row too many": (
        of(OK, final=replace(COMPLETED, has_failed_row=True)),
        "job is completed, and a row of failed jobs says so",
    ),
    "early": (of(OK, pushed=replace(ACKNOWLEDGED, delay=1.5)), "job began 0.500 s before it was due"),
    "charged for nothing": (
        of(OK, final=Final("completed", 2)),
        "job was charged 2 attempts for 0 failures and one good run",
    ),
    "beyond its attempts": (
        of(*raised(times=3), final=Final("cancelled", 4), pushed=replace(ACKNOWLEDGED, may_be_cancelled=True)),
        "job spent 4 attempts",
    ),
    "given back twice": (
        of(*raised(times=1, ends_with=OK), final=Final("completed", 1)),
        "job was charged 1 attempts for 1 failures that were stored, and its end",
    ),
    "given up early": (
        of(*raised(times=2), final=replace(FAILED, attempts=2), pushed=replace(ACKNOWLEDGED, may_fail=True)),
        "job was given up after 2 of 3 attempts",
    ),
    "too many attempts, whatever the store says": (
        of(*raised(times=4), final=FAILED, pushed=replace(ACKNOWLEDGED, may_fail=True)),
        "job ran again after 3 failures, and has 3 attempts",
    ),
    "one claim twice": (
        of(OK, replace(AGAIN, claim_seq=1)),
        "job: run 1 at 10.000 by b is by the same claim as the one by a",
    ),
    "overlap": (
        of(replace(OK, ended=10.5), AGAIN),
        "job: run 3 at 10.000 by b overlaps run 1 by a, which lost no lease",
    ),
    "again after its end": (
        of(OK, AGAIN),
        "job: run 3 at 10.000 by b came after run 1 by a had ended ok, and nothing happened to that one",
    ),
    "again after an outage": (  # an outage alone is no reason: the result is sent once it is over
        of(OK, AGAIN, faults=(hit("outage", 1.5, 9.0, ""),)),
        "job: run 3 at 10.000 by b came after run 1 by a had ended ok, and nothing happened to that one",
    ),
    "killed long after": (
        of(OK, AGAIN, faults=(hit("kill", 4.5),)),
        "job: run 3 at 10.000 by b came after run 1 by a had ended ok, and nothing happened to that one",
    ),
    "frozen for less than a lease": (
        of(OK, replace(AGAIN, began=6.0, ended=7.0), faults=(hit("freeze", 1.5, 5.5),)),
        "job: run 3 at 6.000 by b came after run 1 by a had ended ok, and nothing happened to that one",
    ),
    "retried too soon": (
        of(RAISED, replace(AGAIN, claim_seq=2, began=4.5, ended=5.0), final=Final("completed", 2)),
        "job: run 2 at 4.500 by b came 0.500 s before its delay was over",
    ),
    "given back while it went on": (
        of(replace(CUT, ended=10.5), AGAIN, faults=(hit("stop", 1.5, 11.0),)),
        "job: run 3 at 10.000 by b overlaps run 1 by a, which lost no lease",
    ),
    "stopped after it had ended": (
        of(OK, AGAIN, faults=(hit("stop", 1.5, 5.0),)),
        "job: run 3 at 10.000 by b came after run 1 by a had ended ok, and nothing happened to that one",
    ),
    "a lease lost for nothing": (
        of(OK, faults=(hit("lost lease", 9.0, inf),)),
        "worker a lost its lease at 9.000, and could have kept it",
    ),
    "a lease lost by an outage": (
        of(OK, faults=(hit("outage", 1.5, 8.5, ""), hit("lost lease", 9.0, inf))),
        "worker a lost its lease at 9.000, and could have kept it",
    ),
    "begun in doubt": (
        of(replace(OK, began=6.0, ended=7.0), faults=(hit("cut off", 1.5, 8.0),)),
        "job: run 1 at 6.000 by a was begun 4.500 s after its worker had been cut off",
    ),
    "a bad exit": (History(exits={"a": 2, "b": 0}), "worker a was asked to end, and ended with 2"),
}


@pytest.mark.parametrize(("history", "complaint"), GUILTY.values(), ids=GUILTY)
def test_it_complains_of(history: History, complaint: str) -> None:
    assert judged(history) == [complaint]


INNOCENT = {
    "never acknowledged": of(final=None, pushed=Pushed(0.0)),
    "acknowledged by a store that was made to forget": of(final=None, faults=(hit("lossy", 0.0, 1.0, ""),)),
    "not seen to end": of(UNSEEN),
    "meant to fail": of(*raised(times=3), final=FAILED, pushed=replace(ACKNOWLEDGED, may_fail=True)),
    "settled unrun for its attempts": of(
        *raised(times=3), final=replace(FAILED, attempts=4), pushed=replace(ACKNOWLEDGED, may_fail=True)
    ),
    "cancelled by somebody": of(final=Final("cancelled"), pushed=replace(ACKNOWLEDGED, may_be_cancelled=True)),
    "on time": of(OK, pushed=replace(ACKNOWLEDGED, delay=1.0)),
    "failed twice and completed": of(*raised(times=2, ends_with=OK), final=Final("completed", 3)),
    "a failure that was not stored": of(
        RAISED, replace(AGAIN, began=9.0), faults=(hit("kill", 2.5),), final=Final("completed", 1)
    ),
    "charged as a killer of workers": of(
        *killed(times=3),
        replace(AGAIN, claim_seq=7, began=190.0, ended=191.0),
        faults=KILLS,
        final=Final("completed", 2),
    ),
    "given up as a killer of workers": of(*killed(times=5), faults=KILLS, final=replace(FAILED, attempts=2)),
    "killed in the middle": of(UNSEEN, AGAIN, faults=(hit("kill", 1.5),)),
    "killed before its result was stored": of(OK, AGAIN, faults=(hit("kill", 3.5),)),
    "killed in an outage that held its result back": of(
        OK, AGAIN, faults=(hit("outage", 1.5, 9.0, ""), hit("kill", 8.0))
    ),
    "overlapping after a lost lease": of(
        replace(OK, ended=10.5), AGAIN, faults=(hit("freeze", 1.5, 10.2), hit("lost lease", 9.0, inf))
    ),
    "frozen for a lease": of(OK, AGAIN, faults=(hit("freeze", 1.5, 9.0),)),
    "cut off for a lease": of(OK, AGAIN, faults=(hit("cut off", 1.5, 9.0),)),
    "retried in time": of(RAISED, replace(AGAIN, claim_seq=2, began=5.0), final=Final("completed", 2)),
    "snoozed": of(replace(RAISED, end=End.SNOOZED), replace(AGAIN, claim_seq=2, began=5.0)),
    "cut at a stop": of(CUT, AGAIN, faults=(hit("stop", 1.5, 5.0),)),
    "stuck at a stop, and gone with its process": of(UNSEEN, AGAIN, faults=(hit("stop", 1.5, 10.0),)),
    "stopped while the store was away": of(OK, AGAIN, faults=(hit("outage", 1.8, 4.0, ""), hit("stop", 1.5, 5.0))),
    "a lease lost by a freeze": of(OK, faults=(hit("freeze", 1.5, 9.5), hit("lost lease", 9.0, inf))),
    "a lease lost by an outage and a freeze after it": of(
        OK, faults=(hit("outage", 1.5, 7.0, ""), hit("freeze", 6.5, 11.0), hit("lost lease", 10.0, inf))
    ),
    "a lease lost by a kill": of(OK, faults=(hit("kill", 2.5), hit("lost lease", 9.0, inf))),
    "begun just after it was cut off": of(replace(OK, began=5.0, ended=6.0), faults=(hit("cut off", 1.5, 8.0),)),
    "begun by one who had been frozen": of(
        replace(OK, began=6.0, ended=7.0), faults=(hit("cut off", 1.5, 8.0), hit("freeze", 2.0, 5.9))
    ),
    "forgotten by a store that went back": of(OK, AGAIN, faults=(hit("rolled back", 1.0, 5.0, ""),)),
}


@pytest.mark.parametrize("history", INNOCENT.values(), ids=INNOCENT)
def test_it_has_nothing_against(history: History) -> None:
    assert judged(history) == []
