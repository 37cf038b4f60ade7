"""What people do to jobs: cancel, clear, prune."""

from __future__ import annotations

from functools import partial

import pytest

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import CancelAnswer, Cleared, Pruned
from protojobs.testing.conformance.counting import assert_counts_are_true
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    SETTLING,
    all_failed,
    all_jobs,
    at_once,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
)

__all__ = ["Administering"]

DAY_S = 86_400.0
FINISHING = (Verb.COMPLETE, Verb.FAIL, Verb.CANCEL)


@concern("administering")
class Administering(Fixtures):
    """Bulk verbs go in bounded rounds, and never touch a job that runs."""

    def test_a_pending_job_is_cancelled_at_once(self, driver: Store, handles: Handles) -> None:
        due, delayed = push(driver, new_job(), new_job(delay=100))
        assert handles().cancel([due, delayed], reason="wrong address") == [CancelAnswer.CANCELLED] * 2
        for job_id in (due, delayed):
            job = job_of(driver, job_id)
            assert (job.status, job.reason, job.attempts) == (JobState.CANCELLED, "wrong address", 0)
            assert job.processed_at is not None
        assert lend(driver, join(driver)) == []

    def test_a_processing_job_is_marked_and_goes_on(self, driver: Store, handles: Handles) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        claim = only(lend(driver, worker))
        before = driver.now()
        assert handles().cancel([job_id]) == [CancelAnswer.REQUESTED]
        job = job_of(driver, job_id)
        assert (job.status, job.reserved_by, job.claim_seq) == (JobState.PROCESSING, worker, claim.claim_seq)
        assert job.cancel_requested_at is not None
        assert before <= job.cancel_requested_at <= driver.now()
        assert [held.is_cancel_requested for held in driver.held(worker)] == [True]

    def test_a_mark_twice_is_a_mark(self, driver: Store) -> None:
        job_id = only(push(driver))
        lend(driver, join(driver))
        assert driver.cancel([job_id, job_id]) == [CancelAnswer.REQUESTED] * 2

    @pytest.mark.parametrize("verb", FINISHING)
    def test_a_finished_job_stays_what_it_is(self, driver: Store, verb: Verb) -> None:
        job_id = only(push(driver))
        settle(driver, lend(driver, join(driver))[0], verb)
        before = job_of(driver, job_id)
        assert driver.cancel([job_id], reason="too late") == [CancelAnswer.FINISHED]
        assert job_of(driver, job_id) == before

    def test_answers_to_a_cancel_come_in_order(self, driver: Store) -> None:
        running, pending = push(driver, new_job(priority=1), new_job())
        lend(driver, join(driver), limit=1)
        answers = driver.cancel([fresh_id(), pending, running, pending])
        assert answers == [
            CancelAnswer.MISSING,
            CancelAnswer.CANCELLED,
            CancelAnswer.REQUESTED,
            CancelAnswer.FINISHED,
        ]

    def test_a_cancel_and_a_claim_at_once_agree_on_one_winner(self, driver: Store, handles: Handles) -> None:
        other = handles()
        worker = join(driver)
        for _ in range(10):
            job_id = only(push(driver))
            answers, lent = at_once(partial(other.cancel, [job_id]), partial(lend, driver, worker))
            is_lent = lent != []
            expected = (
                ([CancelAnswer.REQUESTED], JobState.PROCESSING)
                if is_lent
                else ([CancelAnswer.CANCELLED], JobState.CANCELLED)
            )
            assert (answers, job_of(driver, job_id).status) == expected

    def test_clear_removes_all_but_what_is_processing(self, driver: Store) -> None:
        running = one_of_each_state(driver, "a")
        one_of_each_state(driver, "b")
        assert driver.clear("a") == Cleared(pending=2, completed=1, failed=1, cancelled=1)
        assert [job.id for job in all_jobs(driver) if job.queue == "a"] == [running]
        assert [row.queue for row in all_failed(driver)] == ["b"]
        assert driver.stats("a").total == driver.stats("a").processing == 1
        assert driver.stats("b").total == 6
        assert driver.clear("a") == Cleared()

    def test_a_job_that_ran_through_a_clear_can_be_settled(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        assert driver.clear("q").total == 0
        assert settle(driver, claim, Verb.COMPLETE).state is JobState.COMPLETED

    def test_clear_goes_in_bounded_rounds(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(7)])
        rounds = [driver.clear("q", limit=3)]
        while rounds[-1].has_more:
            rounds.append(driver.clear("q", limit=3))
            assert len(rounds) < 10
        assert [round_.total for round_ in rounds if round_.total > 3] == []
        assert sum(round_.pending for round_ in rounds) == 7
        assert driver.stats("q").total == 0

    def test_clear_of_an_unknown_queue_removes_nothing(self, driver: Store) -> None:
        push(driver)
        assert driver.clear("unknown") == Cleared()
        assert driver.stats().total == 1

    def test_a_cleared_id_can_be_stored_anew(self, driver: Store) -> None:
        job = new_job()
        push(driver, job)
        driver.clear("q")
        assert driver.enqueue([job])[0].duplicate_of is None

    def test_prune_removes_what_ended_long_enough_ago(self, driver: Store, later: Later) -> None:
        one_of_each_state(driver, "a")
        assert later(DAY_S).prune(completed_older_than=2 * DAY_S, failed_older_than=2 * DAY_S) == Pruned()
        assert later(3 * DAY_S).prune(completed_older_than=2 * DAY_S) == Pruned(completed=1, cancelled=1)
        assert later(3 * DAY_S).prune(failed_older_than=2 * DAY_S) == Pruned(failed=1)
        left = sorted(job.status.value for job in all_jobs(driver))
        assert left == ["pending", "pending", "processing"]
        assert all_failed(driver) == []
        assert_counts_are_true(driver)

    def test_prune_asked_for_nothing_removes_nothing(self, driver: Store, later: Later) -> None:
        one_of_each_state(driver, "a")
        assert later(100 * DAY_S).prune() == Pruned()
        assert driver.stats().total == 6

    def test_prune_never_takes_a_live_job_however_old(self, driver: Store, later: Later) -> None:
        push(driver, new_job(), new_job(), new_job(delay=DAY_S))
        lend(driver, join(driver), limit=1)
        assert later(3650 * DAY_S).prune(completed_older_than=0, failed_older_than=0) == Pruned()
        assert driver.stats().total == 3

    def test_prune_counts_from_the_end_of_the_run(self, driver: Store, later: Later) -> None:
        push(driver)
        worker = join(driver)
        claim = only(lend(driver, worker))
        settle(later(10 * DAY_S), claim, Verb.COMPLETE)
        assert later(11 * DAY_S).prune(completed_older_than=2 * DAY_S) == Pruned()
        assert later(13 * DAY_S).prune(completed_older_than=2 * DAY_S) == Pruned(completed=1)

    def test_prune_takes_those_that_ended_first(self, driver: Store, later: Later) -> None:
        (slow,), (quick,) = push(driver), push(driver)
        worker = join(driver)
        claims = {claim.id: claim for claim in lend(driver, worker)}
        settle(driver, claims[quick], Verb.COMPLETE)
        settle(later(DAY_S), claims[slow], Verb.COMPLETE)
        pruned = later(2 * DAY_S).prune(completed_older_than=60, limit=1)
        assert (pruned, {job.id for job in driver.get([slow, quick])}) == (Pruned(completed=1, has_more=True), {slow})

    def test_prune_goes_in_bounded_rounds(self, driver: Store, later: Later) -> None:
        push(driver, *[new_job() for _ in range(7)])
        for claim in lend(driver, join(driver)):
            settle(driver, claim, Verb.COMPLETE)
        ahead = later(DAY_S)
        rounds = [ahead.prune(completed_older_than=60, failed_older_than=60, limit=3)]
        while rounds[-1].has_more:
            rounds.append(ahead.prune(completed_older_than=60, failed_older_than=60, limit=3))
            assert len(rounds) < 10
        assert [round_.total for round_ in rounds if round_.total > 3] == []
        assert sum(round_.completed for round_ in rounds) == 7
        assert driver.stats("q").total == 0

    def test_a_late_result_for_a_pruned_job_is_stale(self, driver: Store, later: Later) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.COMPLETE)
        later(DAY_S).prune(completed_older_than=60)
        for verb in SETTLING:
            answer = only(driver.settle([settlement(claim, verb)]))
            assert (answer.status.value, answer.state) == ("stale", None)


def one_of_each_state(driver: Store, queue: str) -> str:
    """A job due, one delayed, and one of each other state but `moving`; the id of the processing one."""
    worker = join(driver, lease_s=DAY_S * 10_000)
    for verb in FINISHING:
        push(driver, new_job(queue))
        settle(driver, lend(driver, worker, queue)[0], verb)
    push(driver, new_job(queue))
    running = only(lend(driver, worker, queue))
    push(driver, new_job(queue), new_job(queue, delay=100))
    return running.id
