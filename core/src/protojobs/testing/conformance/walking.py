"""Every state with every verb: the move that the table of lifecycle.py has, or none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import STORED, TRANSITIONS, JobState, Verb
from protojobs.port.records import Settlement
from protojobs.testing.conformance.counting import assert_counts_are_true
from protojobs.testing.conformance.fixtures import Fixtures, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    SETTLING,
    all_failed,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
)

__all__ = ["Walking"]

YEARS_S = 1e8
EVERY = list(product(STORED, Verb))
ENDING = {JobState.COMPLETED: Verb.COMPLETE, JobState.FAILED: Verb.FAIL, JobState.CANCELLED: Verb.CANCEL}


@concern("transitions")
class Walking(Fixtures):
    """The table is the law, on every store."""

    @pytest.mark.parametrize(("state", "verb"), EVERY, ids=[f"{state}-{verb}" for state, verb in EVERY])
    def test_a_verb_moves_a_job_as_the_table_says_or_not_at_all(
        self, driver: Store, later: Later, state: JobState, verb: Verb
    ) -> None:
        job_id = bring_to(driver, state)
        do(driver, later, job_id, verb)
        expected = TRANSITIONS.get((state, verb), (state,))[0]
        assert_stands(driver, job_id, expected, has_row=state is JobState.FAILED and verb is Verb.EXPORT)

    @pytest.mark.parametrize("verb", Verb)
    def test_on_a_job_with_a_cancel_mark_all_but_complete_end_in_cancelled(
        self, driver: Store, later: Later, verb: Verb
    ) -> None:
        job_id = bring_to(driver, JobState.PROCESSING)
        driver.cancel([job_id])
        do(driver, later, job_id, verb)
        targets = TRANSITIONS.get((JobState.PROCESSING, verb), (JobState.PROCESSING,))
        assert_stands(driver, job_id, JobState.CANCELLED if JobState.CANCELLED in targets else targets[0])

    def test_a_person_marks_a_processing_job_and_leaves_it_where_it_is(self, driver: Store) -> None:
        job_id = bring_to(driver, JobState.PROCESSING)
        driver.cancel([job_id])
        assert_stands(driver, job_id, JobState.PROCESSING)


def assert_stands(driver: Store, job_id: str, state: JobState | None, *, has_row: bool = False) -> None:
    """The job is in that state (None: gone), and everything else in the store agrees with it."""
    seen = driver.get([job_id])
    assert [job.status for job in seen] == ([state] if state else [])
    assert [bool(job.reserved_by) for job in seen] == [state is JobState.PROCESSING for _ in seen]
    has_row = has_row or state is JobState.FAILED
    assert [row.job_id for row in all_failed(driver)] == ([job_id] if has_row else [])
    assert_counts_are_true(driver)


def bring_to(driver: Store, state: JobState) -> str:
    """A job in that state; its id."""
    job_id = only(push(driver, new_job()))
    if state is JobState.MOVING:
        driver.export_jobs("token")
    elif state is not JobState.PENDING:
        claim = only(lend(driver, join(driver)))
        if state is not JobState.PROCESSING:
            settle(driver, claim, ENDING[state])
    assert job_of(driver, job_id).status is state
    return job_id


def do(driver: Store, later: Later, job_id: str, verb: Verb) -> None:
    """Try the verb on the job, in the best way that the port has for it."""
    job = job_of(driver, job_id)
    failed_ids = [row.id for row in all_failed(driver) if row.job_id == job_id]
    acts: dict[Verb, Callable[[], object]] = {
        Verb.CLAIM: lambda: lend(driver, join(driver)),
        Verb.RECLAIM: lambda: later(LEASE_S + 10).reclaim(100),
        Verb.RETRY_FAILED: lambda: driver.retry_failed([*failed_ids, fresh_id(), job_id]),
        Verb.FORGET: lambda: driver.forget_failed([*failed_ids, fresh_id(), job_id]),
        Verb.CLEAR: lambda: driver.clear("q"),
        Verb.PRUNE: lambda: later(YEARS_S).prune(completed_older_than=0, failed_older_than=0),
        Verb.EXPORT: lambda: driver.export_jobs("another token"),
        Verb.DROP_EXPORTED: lambda: driver.drop_exported("token", [job_id]),
    }
    if verb in SETTLING:
        holder = job.reserved_by or fresh_id()
        driver.settle([Settlement(id=job_id, claim_seq=job.claim_seq, reserved_by=holder, verb=verb)])
        if verb is Verb.CANCEL and job.status is not JobState.PROCESSING:
            driver.cancel([job_id])
    else:
        acts[verb]()
