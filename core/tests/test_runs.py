"""A run that is ended from outside: what that costs the job, by who ended it and how far it had come."""

from __future__ import annotations

import pytest

from protojobs import JobQueue, job
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.run import LEASE_IN_DOUBT, NOT_BEGUN, Run, prepare


@pytest.fixture
def run(queue: JobQueue) -> Run:
    @job(name="fine", max_retries=0)
    def fine() -> None: ...

    now = queue.clock.now()
    claimed = ClaimedJob(
        id="j", claim_seq=1, reserved_by="w", queue="q", job_name="fine", job_class="fine", data="{}", priority=0,
        attempts=1, max_retries=0, retry_delay=0, retry_policy=None, timeout=1.0, available_at=now, reserved_at=now,
        crashes=0, returns=0, reclaims=0,
    )  # fmt: skip
    prepared = prepare(claimed, queue.registry, queue.hooks, queue.clock, lambda _fence, _share: None)
    assert isinstance(prepared, Run)
    return prepared


@pytest.mark.parametrize("why", ["timeout", "shutdown", LEASE_IN_DOUBT])
@pytest.mark.parametrize("ended", [True, False])
def test_one_that_had_not_begun_goes_back_into_the_line(run: Run, why: str, ended: bool) -> None:
    run.cut_by = why
    assert run.cut(ended=ended, exit_bound=5.0) is NOT_BEGUN


def test_one_that_a_person_cancels_is_cancelled_begun_or_not(run: Run) -> None:
    run.cut_by = "cancel"
    outcome = run.cut()
    assert isinstance(outcome, Outcome)
    assert outcome.settlement.verb is Verb.CANCEL


@pytest.mark.parametrize(("why", "verb"), [("timeout", Verb.FAIL), ("shutdown", Verb.RELEASE)])
def test_one_that_had_begun_has_failed_by_its_timeout_and_goes_back_by_a_stop(run: Run, why: str, verb: Verb) -> None:
    run.begin()
    run.cut_by = why
    outcome = run.cut()
    assert isinstance(outcome, Outcome)
    assert outcome.settlement.verb is verb
