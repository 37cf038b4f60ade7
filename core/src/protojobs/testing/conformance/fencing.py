"""The fence: a claim that is not the job's current one decides nothing, in whatever order things happen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, JobRecord, SettleStatus
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    SETTLING,
    all_failed,
    all_well,
    at_once,
    fence_of,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
)

__all__ = ["Fencing"]

each_verb = pytest.mark.parametrize("verb", SETTLING)
LAPSED_S = LEASE_S + 10


@concern("fencing")
class Fencing(Fixtures):
    """(id, claim_seq, reserved_by): all three, or nothing happens."""

    @each_verb
    def test_a_lost_claim_is_stale_before_the_job_is_lent_again(self, driver: Store, later: Later, verb: Verb) -> None:
        claim = claimed_and_reclaimed(driver, later)
        assert_refused(driver, claim, verb, SettleStatus.STALE)

    @each_verb
    def test_a_lost_claim_is_stale_while_another_worker_has_the_job(
        self, driver: Store, later: Later, verb: Verb
    ) -> None:
        claim = claimed_and_reclaimed(driver, later)
        ahead = later(LAPSED_S)
        current = only(lend(ahead, join(ahead)))
        assert_refused(driver, claim, verb, SettleStatus.STALE)
        assert settle(driver, current, Verb.COMPLETE).state is JobState.COMPLETED

    @each_verb
    def test_a_lost_claim_is_stale_after_another_worker_has_finished_the_job(
        self, driver: Store, later: Later, verb: Verb
    ) -> None:
        claim = claimed_and_reclaimed(driver, later)
        ahead = later(LAPSED_S)
        settle(ahead, lend(ahead, join(ahead))[0], Verb.COMPLETE)
        assert_refused(driver, claim, verb, SettleStatus.STALE)

    @each_verb
    def test_a_workers_earlier_claim_does_not_settle_its_later_one(self, driver: Store, verb: Verb) -> None:
        push(driver)
        worker = join(driver)
        earlier = only(lend(driver, worker))
        settle(driver, earlier, Verb.RETRY)
        current = only(lend(driver, worker))
        assert_refused(driver, earlier, verb, SettleStatus.STALE)
        assert settle(driver, current, Verb.COMPLETE).state is JobState.COMPLETED

    @each_verb
    @pytest.mark.parametrize("again", SETTLING)
    def test_a_settled_claim_is_recognised_as_repeated_and_not_applied_again(
        self, driver: Store, verb: Verb, again: Verb
    ) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, verb)
        assert_refused(driver, claim, again, SettleStatus.REPEATED)

    @each_verb
    def test_another_holder_settles_nothing(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        assert_refused(driver, replace(claim, reserved_by=join(driver)), verb, SettleStatus.STALE)
        assert_refused(driver, replace(claim, reserved_by=""), verb, SettleStatus.STALE)

    @each_verb
    @pytest.mark.parametrize("seq", [0, 2, 3])
    def test_another_claim_seq_settles_nothing(self, driver: Store, verb: Verb, seq: int) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        assert_refused(driver, replace(claim, claim_seq=seq), verb, SettleStatus.STALE)

    @each_verb
    def test_a_job_that_was_never_lent_is_settled_by_nobody(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        other_id = only(push(driver, new_job("other")))
        assert_refused(driver, replace(claim, id=other_id), verb, SettleStatus.STALE)

    @each_verb
    def test_a_claim_without_holder_settles_nothing(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.RETRY)
        assert_refused(driver, replace(claim, reserved_by=""), verb, SettleStatus.REPEATED)

    @each_verb
    def test_a_missing_job_is_stale_and_has_no_state(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        answer = only(driver.settle([replace(settlement(claim, verb), id=fresh_id())]))
        assert (answer.status, answer.state, answer.available_at) == (SettleStatus.STALE, None, None)

    @each_verb
    def test_the_claim_before_a_retry_by_hand_is_stale(self, driver: Store, verb: Verb) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.FAIL)
        driver.retry_failed([job.id for job in all_failed(driver)])
        assert_refused(driver, claim, verb, SettleStatus.STALE)

    def test_a_claim_settles_after_its_workers_row_is_gone_but_nobody_took_the_job(self, driver: Store) -> None:
        push(driver)
        worker = join(driver)
        claim = only(lend(driver, worker))
        driver.leave(worker)
        assert settle(driver, claim, Verb.COMPLETE).state is JobState.COMPLETED

    def test_a_result_after_the_lease_has_lapsed_counts_while_nobody_took_the_job(
        self, driver: Store, later: Later
    ) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        assert settle(later(LAPSED_S), claim, Verb.COMPLETE).state is JobState.COMPLETED

    def test_progress_of_a_lost_claim_is_not_stored(self, driver: Store, later: Later) -> None:
        claim = claimed_and_reclaimed(driver, later)
        ahead = later(LAPSED_S)
        worker = join(ahead)
        current = only(lend(ahead, worker))
        ahead.heartbeat(worker, {fence_of(claim): 0.9})
        assert job_of(driver, claim.id).progress is None
        ahead.heartbeat(worker, {fence_of(current): 0.25, fence_of(claim): 0.9})
        assert job_of(driver, claim.id).progress == 0.25

    def test_claim_seq_never_goes_back(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        seen: list[int] = []
        worker = join(driver, lease_s=10_000_000)
        moves: list[Callable[[], object]] = [
            lambda: settle(driver, lend(driver, worker)[0], Verb.RELEASE),
            lambda: settle(driver, lend(driver, worker)[0], Verb.SNOOZE),
            lambda: settle(driver, lend(driver, worker)[0], Verb.FAIL),
            lambda: driver.retry_failed([job.id for job in all_failed(driver)]),
            lambda: lend(driver, join(driver)),
            lambda: later(LAPSED_S).reclaim(10),
            lambda: driver.export_jobs("token"),
        ]
        for move in moves:
            move()
            seen.append(job_of(driver, job_id).claim_seq)
        assert seen == [1, 2, 3, 4, 5, 6, 7]

    def test_of_one_claim_settled_at_once_by_many_one_is_applied(self, driver: Store, handles: Handles) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        said = settlement(claim, Verb.RELEASE)
        drivers = [handles() for _ in range(4)]
        answers = all_well(at_once(*[partial(each.settle, [said]) for each in drivers]))
        statuses = sorted(answer.status for each in answers for answer in each)
        assert statuses == [SettleStatus.APPLIED, *[SettleStatus.REPEATED] * 3]
        assert job_of(driver, job_id).attempts == 0


def claimed_and_reclaimed(driver: Store, later: Later) -> ClaimedJob:
    """A claim that was lost: its lease lapsed, and the job was taken back."""
    push(driver)
    claim = only(lend(driver, join(driver)))
    assert [job.id for job in later(LAPSED_S).reclaim(10).jobs] == [claim.id]
    return claim


def assert_refused(driver: Store, claim: ClaimedJob, verb: Verb, status: SettleStatus) -> None:
    """The settlement is answered with `status` and the job's true state, and changes nothing."""
    before, failed, stats = job_of(driver, claim.id), all_failed(driver), driver.stats()
    answer = only(driver.settle([settlement(claim, verb)]))
    assert (answer.id, answer.status) == (claim.id, status)
    assert (answer.state, answer.available_at) == (before.status, before.available_at)
    after: JobRecord = job_of(driver, claim.id)
    assert (after, all_failed(driver), driver.stats()) == (before, failed, stats)
