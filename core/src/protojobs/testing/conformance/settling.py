"""Settle: what each of the six verbs makes of the job, and of its counters."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from protojobs.errors import ProtojobsError
from protojobs.port.driver import Store
from protojobs.port.lifecycle import RETURNS_FREE, JobState, Verb
from protojobs.port.records import JobRecord, SettleStatus
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    all_failed,
    exactly,
    fresh_ids,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
)

__all__ = ["Settling"]


@concern("settling")
class Settling(Fixtures):
    """A settlement of the current claim is applied, and says where the job stands."""

    @pytest.mark.parametrize(
        ("verb", "state", "attempts"),
        [
            (Verb.COMPLETE, JobState.COMPLETED, 1),
            (Verb.RETRY, JobState.PENDING, 1),
            (Verb.FAIL, JobState.FAILED, 1),
            (Verb.SNOOZE, JobState.PENDING, 0),
            (Verb.RELEASE, JobState.PENDING, 0),
            (Verb.CANCEL, JobState.CANCELLED, 1),
        ],
    )
    def test_each_verb_leads_to_its_state_and_spends_or_gives_back_the_attempt(
        self, driver: Store, verb: Verb, state: JobState, attempts: int
    ) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        assert settle(driver, claim, verb).state is state
        job = job_of(driver, job_id)
        assert (job.status, job.attempts, job.reserved_by) == (state, attempts, "")
        assert (job.claim_seq, job.crashes, job.returns, job.reclaims) == (1, 0, 0, 0)
        assert (job.processed_at is not None) is (state is not JobState.PENDING)

    def test_a_finished_job_tells_when_it_ended(self, driver: Store) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        before = driver.now()
        settle(driver, claim, Verb.COMPLETE)
        ended = job_of(driver, job_id).processed_at
        assert ended is not None
        assert before <= ended <= driver.now()

    def test_a_finished_job_is_not_lent(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(3)])
        worker = join(driver)
        for claim, verb in zip(lend(driver, worker), (Verb.COMPLETE, Verb.FAIL, Verb.CANCEL), strict=True):
            settle(driver, claim, verb)
        assert lend(driver, worker) == []

    def test_a_batch_is_answered_in_its_order(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(4)])
        claims = lend(driver, join(driver))
        verbs = [Verb.FAIL, Verb.COMPLETE, Verb.RETRY, Verb.CANCEL]
        answers = driver.settle([settlement(claim, verb) for claim, verb in zip(claims, verbs, strict=True)])
        assert [answer.id for answer in answers] == [claim.id for claim in claims]
        assert [answer.state for answer in answers] == [
            JobState.FAILED,
            JobState.COMPLETED,
            JobState.PENDING,
            JobState.CANCELLED,
        ]

    def test_a_batch_of_nothing_is_answered_with_nothing(self, driver: Store) -> None:
        assert driver.settle([]) == []

    def test_a_large_batch_is_settled(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(300)])
        claims = lend(driver, join(driver), slots=300, limit=300)
        answers = driver.settle([settlement(claim, Verb.COMPLETE) for claim in claims])
        assert {answer.status for answer in answers} == {SettleStatus.APPLIED}
        assert driver.stats("q").completed == 300

    def test_a_stale_item_does_not_hinder_the_others_of_its_batch(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(3)])
        first, second, third = exactly(3, lend(driver, join(driver)))
        stale = replace(settlement(second, Verb.COMPLETE), claim_seq=7)
        answers = driver.settle([settlement(first, Verb.COMPLETE), stale, settlement(third, Verb.COMPLETE)])
        assert [answer.status for answer in answers] == [SettleStatus.APPLIED, SettleStatus.STALE, SettleStatus.APPLIED]

    def test_one_claim_twice_in_a_batch_is_applied_once(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        said = settlement(claim, Verb.RETRY)
        assert [answer.status for answer in driver.settle([said, said])] == [
            SettleStatus.APPLIED,
            SettleStatus.REPEATED,
        ]

    def test_any_driver_may_bring_the_result(self, driver: Store, handles: Handles) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        assert settle(handles(), claim, Verb.COMPLETE).state is JobState.COMPLETED

    @pytest.mark.parametrize("verb", [Verb.CLAIM, Verb.RECLAIM, Verb.CLEAR])
    def test_a_verb_that_settles_nothing_is_refused(self, driver: Store, verb: Verb) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        with pytest.raises(ProtojobsError):
            driver.settle([settlement(claim, verb)])
        assert job_of(driver, job_id).status is JobState.PROCESSING

    @pytest.mark.parametrize("verb", [Verb.RETRY, Verb.SNOOZE, Verb.RELEASE])
    def test_a_named_moment_is_kept_to_the_microsecond(self, driver: Store, verb: Verb) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        moment = driver.now().replace(microsecond=999_999) - timedelta(days=1)
        answer = only(driver.settle([replace(settlement(claim, verb), available_at=moment)]))
        assert answer.available_at == job_of(driver, job_id).available_at == moment

    def test_each_claim_counts_an_attempt_and_a_claim(self, driver: Store) -> None:
        push(driver)
        worker = join(driver)
        for number in (1, 2, 3):
            claim = only(lend(driver, worker))
            assert (claim.attempts, claim.claim_seq) == (number, number)
            settle(driver, claim, Verb.RETRY)

    def test_a_plain_release_gives_the_attempt_back_however_often(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        for _ in range(RETURNS_FREE + 3):
            settle(driver, lend(driver, worker)[0], Verb.RELEASE)
        job = job_of(driver, job_id)
        assert (job.attempts, job.returns, job.claim_seq) == (0, 0, RETURNS_FREE + 3)

    def test_a_counted_release_gives_the_attempt_back_twenty_times_and_then_spends(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        seen: list[tuple[int, int]] = []
        for _ in range(RETURNS_FREE + 2):
            claim = only(lend(driver, worker))
            driver.settle([replace(settlement(claim, Verb.RELEASE), counts_return=True)])
            job = job_of(driver, job_id)
            seen.append((job.returns, job.attempts))
        free = [(number, 0) for number in range(1, RETURNS_FREE + 1)]
        assert seen == [*free, (RETURNS_FREE + 1, 1), (RETURNS_FREE + 2, 2)]

    def test_a_crash_is_counted_where_the_worker_says_so(self, driver: Store) -> None:
        retried, failed = push(driver, *[new_job(id=job_id) for job_id in fresh_ids(2)])
        first, second = exactly(2, lend(driver, join(driver)))
        driver.settle([replace(settlement(first, Verb.RETRY), counts_crash=True)])
        driver.settle([replace(settlement(second, Verb.FAIL), counts_crash=True, error="JobCrashed")])
        assert (job_of(driver, retried).crashes, job_of(driver, retried).attempts) == (1, 1)
        assert (job_of(driver, failed).crashes, job_of(driver, failed).status) == (1, JobState.FAILED)
        assert [job.crashes for job in lend(driver, join(driver))] == [1]

    def test_a_cancelled_and_a_released_job_tell_why(self, driver: Store) -> None:
        push(driver, new_job(), new_job())
        first, second = exactly(2, lend(driver, join(driver)))
        driver.settle([replace(settlement(first, Verb.CANCEL), reason="not wanted 漢")])
        driver.settle([replace(settlement(second, Verb.RELEASE), reason="unknown_name")])
        assert (job_of(driver, first.id).reason, job_of(driver, second.id).reason) == ("not wanted 漢", "unknown_name")

    @pytest.mark.parametrize("verb", [Verb.RETRY, Verb.FAIL, Verb.SNOOZE, Verb.RELEASE, Verb.CANCEL])
    def test_a_persons_wish_to_cancel_outlives_the_run(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        driver.cancel([claim.id], reason="by hand")
        assert settle(driver, claim, verb).state is JobState.CANCELLED
        job = job_of(driver, claim.id)
        assert (job.status, job.reserved_by, job.reason) == (JobState.CANCELLED, "", "by hand")
        assert job.processed_at is not None
        assert all_failed(driver) == []

    def test_work_that_was_done_counts_in_spite_of_a_cancel_mark(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        driver.cancel([claim.id])
        assert settle(driver, claim, Verb.COMPLETE).state is JobState.COMPLETED
        assert all_jobs_are_counted_once(driver, job_of(driver, claim.id))


def all_jobs_are_counted_once(driver: Store, job: JobRecord) -> bool:
    """Whether the store has just this one job, counted under its state."""
    stats = driver.stats()
    return stats.total == 1 and getattr(stats, job.status.value) == 1
