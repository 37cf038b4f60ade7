"""Leases: a worker holds its jobs for as long as its row stands; reclaim, not the clock, ends that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS, JobState, Verb
from protojobs.port.records import Reclaimed, SettleStatus
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    exactly,
    fence_of,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
    their_ids,
)

__all__ = ["Leases"]

LAPSED_S = LEASE_S + 10
NEARLY_S = LEASE_S - 20  # tests take less than the rest
ALL = 1_000


@concern("leases")
class Leases(Fixtures):
    """Heartbeats prolong, reclaim ends, and what is gone is never made again."""

    def test_a_registered_worker_is_listed_with_its_lease(self, driver: Store, handles: Handles) -> None:
        worker = join(driver, isolates=True)
        push(driver, new_job(), new_job())
        lend(driver, worker, limit=1)
        seen = only(handles().workers())
        assert (seen.id, seen.host, seen.pid, seen.queues, seen.concurrency) == (worker, "host", 1, ("q",), 10)
        assert (seen.lease_s, seen.isolates, seen.processing) == (LEASE_S, True, 1)
        assert seen.started_at == seen.heartbeat_at
        assert seen.lease_ends_at == seen.heartbeat_at + timedelta(seconds=LEASE_S)

    def test_workers_are_listed_oldest_first_lapsed_ones_included(self, driver: Store, later: Later) -> None:
        second, first, third = join(later(10)), join(driver), join(later(1000))
        assert [worker.id for worker in later(2000).workers()] == [first, second, third]

    def test_a_heartbeat_prolongs_the_lease(self, driver: Store, later: Later) -> None:
        worker = join(driver)
        later(NEARLY_S).heartbeat(worker, {})
        seen = only(driver.workers())
        assert seen.lease_ends_at == seen.heartbeat_at + timedelta(seconds=LEASE_S)
        assert seen.heartbeat_at >= seen.started_at + timedelta(seconds=NEARLY_S)
        assert later(LAPSED_S).reclaim(ALL).workers == ()

    def test_a_heartbeat_renews_a_lapsed_lease_that_still_stands(self, driver: Store, later: Later) -> None:
        push(driver)
        worker = join(driver)
        claim = only(lend(driver, worker))
        later(LAPSED_S).heartbeat(worker, {})
        round_ = later(LAPSED_S).reclaim(ALL)
        assert (round_.workers, round_.jobs) == ((), ())
        assert is_between(LEASE_S - 20, round_.others_end_in, LEASE_S)
        assert settle(driver, claim, Verb.COMPLETE).state is JobState.COMPLETED

    def test_a_heartbeat_without_row_raises_and_makes_none(self, driver: Store, later: Later) -> None:
        worker, other = join(driver), join(driver, lease_s=10_000)
        later(LAPSED_S).reclaim(ALL)
        for lost in (worker, fresh_id()):
            with pytest.raises(LeaseLost):
                driver.heartbeat(lost, {})
        assert [seen.id for seen in driver.workers()] == [other]

    def test_a_worker_that_left_has_no_row_and_may_leave_again(self, driver: Store) -> None:
        worker = join(driver)
        driver.leave(worker)
        driver.leave(worker)
        assert driver.workers() == []
        with pytest.raises(LeaseLost):
            driver.heartbeat(worker, {})

    def test_a_register_sent_twice_makes_one_row(self, driver: Store) -> None:
        worker = join(driver)
        join(driver, id=worker)
        assert [seen.id for seen in driver.workers()] == [worker]

    def test_a_register_of_a_known_id_replaces_its_row(self, driver: Store, later: Later) -> None:
        worker = join(driver, isolates=True, lease_s=1_000)
        join(later(100), id=worker)
        seen = only(driver.workers())
        assert (seen.isolates, seen.lease_s) == (False, LEASE_S)
        assert seen.started_at == seen.heartbeat_at == seen.lease_ends_at - timedelta(seconds=LEASE_S)

    def test_a_heartbeat_stores_the_progress_of_the_workers_claims(self, driver: Store) -> None:
        push(driver, new_job(), new_job())
        worker = join(driver)
        first, second = exactly(2, lend(driver, worker))
        driver.heartbeat(worker, {fence_of(first): 0.5})
        assert (job_of(driver, first.id).progress, job_of(driver, second.id).progress) == (0.5, None)
        driver.heartbeat(worker, {})
        assert job_of(driver, first.id).progress == 0.5

    def test_a_heartbeat_answers_what_a_person_wants_cancelled(self, driver: Store, handles: Handles) -> None:
        push(driver, *[new_job() for _ in range(3)])
        worker, other = join(driver), join(driver)
        first, _ = exactly(2, lend(driver, worker, limit=2))
        third = only(lend(driver, other))
        assert driver.heartbeat(worker, {}).cancels == ()
        handles().cancel([first.id, third.id])
        for _ in range(2):  # it stays marked: a supervisor may have made the first of these beats in the worker's place
            assert driver.heartbeat(worker, {}).cancels == (fence_of(first),)
        settle(driver, first, Verb.CANCEL)
        assert driver.heartbeat(worker, {}).cancels == ()

    def test_a_heartbeat_answers_when_the_first_lease_of_the_others_ends(self, driver: Store, later: Later) -> None:
        worker = join(driver, lease_s=5)
        assert driver.heartbeat(worker, {}).others_end_in is None
        join(driver, lease_s=500)
        join(driver, lease_s=300)
        assert is_between(280, driver.heartbeat(worker, {}).others_end_in, 300)
        assert is_between(-720, later(1000).heartbeat(worker, {}).others_end_in, -700)

    def test_nothing_is_reclaimed_while_the_lease_stands(self, driver: Store, later: Later) -> None:
        push(driver)
        worker = join(driver)
        lend(driver, worker)
        round_ = later(NEARLY_S).reclaim(ALL)
        assert (round_.workers, round_.jobs, round_.has_more) == ((), (), False)
        assert is_between(0, round_.others_end_in, LEASE_S - NEARLY_S)
        assert their_ids(driver.held(worker)) != []

    def test_the_jobs_of_a_lapsed_worker_are_due_at_once_and_unspent(self, driver: Store, later: Later) -> None:
        job = new_job()
        push(driver, job)
        worker = join(driver)
        lend(driver, worker)
        ahead = later(LAPSED_S)
        due_at = job_of(driver, job.id).available_at
        round_ = ahead.reclaim(ALL)
        lost = only(round_.jobs)
        assert (round_.workers, round_.has_more, round_.others_end_in) == ((worker,), False, None)
        assert (lost.id, lost.queue, lost.job_name, lost.job_class) == (job.id, "q", job.job_name, job.job_class)
        assert (lost.attempts, lost.state, lost.reserved_by) == (0, JobState.PENDING, worker)
        seen = job_of(driver, job.id)
        assert (seen.status, seen.reserved_by, seen.attempts) == (JobState.PENDING, "", 0)
        assert (seen.claim_seq, seen.returns, seen.reclaims, seen.crashes) == (2, 1, 1, 0)
        assert seen.available_at == due_at  # its old place in the line, however long that has become
        assert driver.workers() == []

    def test_a_reclaimed_job_can_be_claimed_by_another_worker(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        lend(driver, join(driver))
        ahead = later(LAPSED_S)
        ahead.reclaim(ALL)
        claim = only(lend(ahead, join(ahead)))
        assert (claim.id, claim.attempts, claim.claim_seq, claim.reclaims) == (job_id, 1, 3, 1)

    def test_only_the_jobs_of_lapsed_workers_are_taken(self, driver: Store, later: Later) -> None:
        push(driver, new_job(), new_job())
        lapsed, alive = join(driver), join(driver, lease_s=10_000)
        mine = only(lend(driver, lapsed, limit=1))
        theirs = only(lend(driver, alive))
        assert their_ids(later(LAPSED_S).reclaim(ALL).jobs) == [mine.id]
        assert driver.held(alive) == [theirs]

    def test_a_worker_that_was_reclaimed_is_lent_nothing_more(self, driver: Store, later: Later) -> None:
        worker = join(driver)
        later(LAPSED_S).reclaim(ALL)
        push(driver)
        with pytest.raises(LeaseLost):
            lend(driver, worker)
        assert driver.settle_and_claim(worker, [], ["q"], slots=1, limit=1).lease_lost is True
        assert driver.stats("q").pending == 1

    def test_a_second_round_finds_nothing(self, driver: Store, later: Later) -> None:
        push(driver)
        lend(driver, join(driver))
        ahead = later(LAPSED_S)
        ahead.reclaim(ALL)
        assert ahead.reclaim(ALL) == Reclaimed()

    def test_a_reclaim_that_is_executed_too_late_takes_nothing(self, driver: Store, later: Later) -> None:
        """It was on its way while the store was away, and no worker has had the chance to renew its lease since."""
        job_id = only(push(driver))
        worker = join(driver)
        lend(driver, worker)
        until = driver.heartbeat(worker, {}).at
        assert until is not None
        ahead = later(LAPSED_S)
        assert ahead.reclaim(ALL, until=until) == Reclaimed(has_more=True)
        assert their_ids(driver.held(worker)) == [job_id]
        assert [seen.id for seen in driver.workers()] == [worker]
        assert their_ids(ahead.reclaim(ALL, until=until + timedelta(seconds=LAPSED_S + 60)).jobs) == [job_id]

    def test_a_heartbeat_tells_the_stores_time(self, driver: Store) -> None:
        worker = join(driver)
        before = driver.now()
        at = driver.heartbeat(worker, {}).at
        assert at is not None
        assert before <= at <= driver.now()

    def test_the_jobs_of_a_worker_that_left_are_orphans_and_taken_back(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        lend(driver, worker)
        driver.leave(worker)
        assert job_of(driver, job_id).status is JobState.PROCESSING
        round_ = driver.reclaim(ALL)
        assert (their_ids(round_.jobs), round_.workers) == ([job_id], ())
        assert round_.jobs[0].reserved_by == worker
        seen = job_of(driver, job_id)
        assert (seen.status, seen.claim_seq, seen.attempts, seen.reclaims) == (JobState.PENDING, 2, 0, 1)

    def test_reclaim_goes_in_bounded_rounds_until_all_are_back(self, driver: Store, later: Later) -> None:
        ids = push(driver, *[new_job() for _ in range(7)])
        lend(driver, join(driver))
        ahead = later(LAPSED_S)
        rounds: list[Reclaimed] = []
        while not rounds or rounds[-1].has_more:
            rounds.append(ahead.reclaim(3))
            assert len(rounds[-1].jobs) <= 3
            assert len(rounds) < 10
        assert sorted(job.id for round_ in rounds for job in round_.jobs) == sorted(ids)
        assert {job_of(driver, job_id).reclaims for job_id in ids} == {1}

    def test_a_cancel_mark_makes_a_lost_job_cancelled(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        lend(driver, join(driver))
        driver.cancel([job_id])
        lost = only(later(LAPSED_S).reclaim(ALL).jobs)
        assert lost.state is JobState.CANCELLED
        seen = job_of(driver, job_id)
        assert (seen.status, seen.reserved_by, seen.claim_seq) == (JobState.CANCELLED, "", 2)
        assert seen.processed_at is not None

    def test_lost_leases_give_the_attempt_back_twenty_times_and_then_spend(self, driver: Store) -> None:
        job_id = only(push(driver))
        seen: list[tuple[int, int]] = []
        for _ in range(RETURNS_FREE + 2):
            lend_and_abandon(driver)
            job = job_of(driver, job_id)
            seen.append((job.returns, job.attempts))
        free = [(number, 0) for number in range(1, RETURNS_FREE + 1)]
        assert seen == [*free, (RETURNS_FREE + 1, 1), (RETURNS_FREE + 2, 2)]
        assert job_of(driver, job_id).crashes == 0

    def test_a_suspect_whose_worker_did_not_isolate_counts_a_crash_and_spends(
        self, driver: Store, later: Later
    ) -> None:
        job_id = only(push(driver))
        for _ in range(SUSPECT_RECLAIMS):
            lend_and_abandon(driver)
        assert job_of(driver, job_id).crashes == 0
        lend(driver, join(driver, isolates=False))
        lost = only(later(LAPSED_S).reclaim(ALL).jobs)
        job = job_of(driver, job_id)
        assert (lost.attempts, job.attempts, job.crashes, job.reclaims) == (1, 1, 1, SUSPECT_RECLAIMS + 1)

    def test_a_suspect_whose_worker_isolates_counts_no_crash(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        for _ in range(SUSPECT_RECLAIMS):
            lend_and_abandon(driver)
        lend(driver, join(driver, isolates=True))
        later(LAPSED_S).reclaim(ALL)
        job = job_of(driver, job_id)
        assert (job.attempts, job.crashes, job.reclaims) == (0, 0, SUSPECT_RECLAIMS + 1)

    def test_an_orphan_never_counts_a_crash(self, driver: Store) -> None:
        job_id = only(push(driver))
        for _ in range(SUSPECT_RECLAIMS + 2):
            lend_and_abandon(driver)
        job = job_of(driver, job_id)
        assert (job.attempts, job.crashes, job.reclaims) == (0, 0, SUSPECT_RECLAIMS + 2)

    def test_a_late_result_after_the_worker_registered_anew_is_stale(self, driver: Store, later: Later) -> None:
        push(driver)
        worker = join(driver)
        claim = only(lend(driver, worker))
        ahead = later(LAPSED_S)
        ahead.reclaim(ALL)
        join(ahead)
        assert [answer.status for answer in ahead.settle([settlement(claim, Verb.COMPLETE)])] == [SettleStatus.STALE]


def lend_and_abandon(driver: Store) -> None:
    """One claim whose worker goes away without a word, and the reclaim that follows."""
    worker = join(driver)
    assert len(lend(driver, worker)) == 1
    driver.leave(worker)
    assert len(driver.reclaim(ALL).jobs) == 1


def is_between(low: float, seconds: float | None, high: float) -> bool:
    """Whether a duration, which goes on while a test looks at it, is where it should be."""
    return seconds is not None and low <= seconds <= high
