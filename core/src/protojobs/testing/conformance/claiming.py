"""Claim: what is lent, in which order, how much of it, and to whom."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import BATCH_BYTES_MAX, ClaimedJob
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
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
    their_ids,
)

__all__ = ["Claiming"]


@concern("claiming")
class Claiming(Fixtures):
    """Due jobs are lent in order, once, and only to a worker whose lease stands."""

    def test_a_claim_says_all_that_is_needed_to_run_the_job(self, driver: Store) -> None:
        job = new_job(priority=3, max_retries=2)
        push(driver, job)
        worker, before = join(driver), driver.now()
        claim = only(lend(driver, worker))
        for field in ("id", "queue", "job_name", "job_class", "data", "priority", "max_retries", "retry_delay", "meta"):
            assert getattr(claim, field) == getattr(job, field), field
        assert (claim.attempts, claim.claim_seq, claim.reserved_by) == (1, 1, worker)
        assert type(claim) is ClaimedJob
        assert (claim.crashes, claim.returns, claim.reclaims, claim.is_cancel_requested) == (0, 0, 0, False)
        assert before <= claim.reserved_at <= driver.now()

    def test_a_claimed_job_is_processing_and_names_its_holder(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        claim = only(lend(driver, worker))
        seen = job_of(driver, job_id)
        assert (seen.status, seen.reserved_by, seen.reserved_at) == (JobState.PROCESSING, worker, claim.reserved_at)
        assert (seen.attempts, seen.claim_seq) == (1, 1)

    def test_a_claimed_job_is_not_lent_again(self, driver: Store, handles: Handles) -> None:
        push(driver)
        worker = join(driver)
        assert len(lend(driver, worker)) == 1
        assert lend(driver, worker) == []
        assert lend(handles(), join(driver)) == []

    def test_a_claimed_job_is_not_lent_again_after_its_lease_has_lapsed(self, driver: Store, later: Later) -> None:
        push(driver)
        lend(driver, join(driver))
        other = join(later(1000))
        assert lend(later(1000), other) == []

    def test_a_worker_that_was_never_registered_is_lent_nothing(self, driver: Store) -> None:
        job_id = only(push(driver))
        with pytest.raises(LeaseLost):
            lend(driver, fresh_ids(1)[0])
        assert job_of(driver, job_id).status is JobState.PENDING

    def test_a_worker_without_lease_learns_it_from_an_empty_queue_too(self, driver: Store) -> None:
        with pytest.raises(LeaseLost):
            lend(driver, fresh_ids(1)[0])

    def test_a_lapsed_lease_that_still_stands_is_good_for_claims(self, driver: Store, later: Later) -> None:
        worker = join(driver)
        push(driver)
        assert len(lend(later(1000), worker)) == 1

    def test_jobs_of_one_enqueue_are_lent_in_the_order_of_their_ids(self, driver: Store) -> None:
        ids = fresh_ids(10)
        push(driver, *[new_job(id=job_id) for job_id in reversed(ids)])
        assert their_ids(lend(driver, join(driver))) == ids

    def test_jobs_are_lent_in_the_order_in_which_they_became_due(self, driver: Store) -> None:
        now, ids = driver.now(), fresh_ids(4)
        ages = [10, 40, 20, 30]
        push(
            driver,
            *[new_job(id=id, available_at=now - timedelta(seconds=age)) for id, age in zip(ids, ages, strict=True)],
        )
        assert their_ids(lend(driver, join(driver))) == [ids[1], ids[3], ids[2], ids[0]]

    def test_higher_priority_goes_first_however_late_it_came(self, driver: Store, later: Later) -> None:
        low, high, middle = new_job(priority=-100), new_job(priority=100), new_job(priority=0)
        push(driver, low)
        push(later(1), middle)
        push(later(2), high)
        claims = lend(later(3), join(driver))
        assert their_ids(claims) == [high.id, middle.id, low.id]

    def test_queues_go_in_the_callers_order_before_priority(self, driver: Store) -> None:
        low, high = [new_job("a", priority=0) for _ in range(4)], [new_job("b", priority=50) for _ in range(4)]
        push(driver, *low, *high)
        worker = join(driver)
        for number in range(4):  # full claims, one right after the other: what a driver remembers has no order
            assert their_ids(lend(driver, worker, "b", "a", limit=1)) == [high[number].id]
            assert their_ids(lend(driver, worker, "a", "b", limit=1)) == [low[number].id]

    def test_only_the_named_queues_are_touched(self, driver: Store) -> None:
        push(driver, new_job("a"), new_job("b"))
        assert [job.queue for job in lend(driver, join(driver), "b", "c")] == ["b"]

    def test_a_claim_of_no_queue_lends_nothing(self, driver: Store) -> None:
        push(driver)
        assert driver.claim(join(driver), [], slots=10, limit=10) == []

    def test_a_queue_named_twice_lends_each_job_once(self, driver: Store) -> None:
        ids = push(driver, new_job(), new_job())
        assert sorted(their_ids(lend(driver, join(driver), "q", "q"))) == sorted(ids)

    def test_no_more_than_the_limit_is_lent(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(5)])
        worker = join(driver)
        assert [len(lend(driver, worker, limit=2)) for _ in range(4)] == [2, 2, 1, 0]

    def test_beyond_the_slots_only_jobs_with_a_spare_attempt_are_lent(self, driver: Store) -> None:
        ids = fresh_ids(5)
        spare = [0, 0, 1, 0, 3]
        push(driver, *[new_job(id=id, max_retries=count) for id, count in zip(ids, spare, strict=True)])
        worker = join(driver)
        assert their_ids(lend(driver, worker, slots=1, limit=10)) == [ids[0], ids[2], ids[4]]
        assert their_ids(lend(driver, worker, slots=10, limit=10)) == [ids[1], ids[3]]

    def test_a_job_on_its_last_attempt_does_not_wait_beyond_the_slots(self, driver: Store) -> None:
        push(driver, new_job(max_retries=1))
        worker = join(driver)
        claim = only(lend(driver, worker, slots=0, limit=10))
        settle(driver, claim, Verb.RETRY)
        assert lend(driver, worker, slots=0, limit=10) == []
        assert [job.attempts for job in lend(driver, worker, slots=1, limit=10)] == [2]

    def test_a_job_beyond_its_attempts_is_still_lent_to_be_given_up(self, driver: Store) -> None:
        push(driver, new_job(max_retries=0))
        worker = join(driver)
        for attempt in (1, 2, 3):
            claim = only(lend(driver, worker))
            assert claim.attempts == attempt
            settle(driver, claim, Verb.RETRY)

    def test_the_payloads_of_one_claim_are_bounded_but_the_first_is_always_lent(self, driver: Store) -> None:
        third = '"' + "x" * (BATCH_BYTES_MAX // 3) + '"'
        for _ in range(2):
            push(driver, new_job(data=third), new_job(data=third))
        worker = join(driver)
        assert [len(lend(driver, worker)) for _ in range(3)] == [2, 2, 0]

    def test_a_paused_queue_lends_nothing_on_any_driver_until_it_is_resumed(
        self, driver: Store, handles: Handles
    ) -> None:
        push(driver, new_job("a"), new_job("b"))
        worker, other = join(driver), handles()
        assert other.pause("a") is True
        assert other.pause("a") is False
        assert [job.queue for job in lend(driver, worker, "a", "b")] == ["b"]
        assert other.resume("a") is True
        assert other.resume("a") is False
        assert [job.queue for job in lend(driver, worker, "a", "b")] == ["a"]

    def test_jobs_of_a_paused_queue_can_be_pushed_and_settled(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        driver.pause("q")
        assert settle(driver, claim, Verb.COMPLETE).state is JobState.COMPLETED
        push(driver)
        assert driver.stats("q").pending == 1

    def test_a_queue_without_jobs_can_be_paused_and_is_listed(self, driver: Store) -> None:
        assert driver.resume("quiet") is False
        driver.pause("quiet")
        assert [(queue.name, queue.is_paused, queue.stats.total) for queue in driver.queues()] == [("quiet", True, 0)]

    def test_settle_and_claim_does_both(self, driver: Store) -> None:
        ids = fresh_ids(3)
        push(driver, *[new_job(id=job_id) for job_id in ids])
        worker = join(driver)
        claim = only(lend(driver, worker, limit=1))
        reply = driver.settle_and_claim(worker, [settlement(claim, Verb.COMPLETE)], ["q"], slots=10, limit=10)
        assert [answer.state for answer in reply.settled] == [JobState.COMPLETED]
        assert their_ids(reply.claimed) == ids[1:]
        assert {type(job) for job in reply.claimed} == {ClaimedJob}
        assert reply.lease_lost is False

    def test_settle_and_claim_with_limit_zero_only_settles(self, driver: Store) -> None:
        push(driver, new_job(), new_job())
        worker = join(driver)
        claim = only(lend(driver, worker, limit=1))
        reply = driver.settle_and_claim(worker, [settlement(claim, Verb.COMPLETE)], ["q"], slots=10, limit=0)
        assert (len(reply.settled), reply.claimed) == (1, ())
        assert driver.stats("q").pending == 1

    def test_settle_and_claim_with_limit_zero_does_not_look_for_the_lease(self, driver: Store) -> None:
        push(driver)
        worker = join(driver)
        claim = only(lend(driver, worker))
        driver.leave(worker)
        reply = driver.settle_and_claim(worker, [settlement(claim, Verb.COMPLETE)], ["q"], slots=10, limit=0)
        assert ([answer.state for answer in reply.settled], reply.lease_lost) == ([JobState.COMPLETED], False)

    def test_settle_and_claim_lends_what_it_has_just_given_back(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        claim = only(lend(driver, worker))
        reply = driver.settle_and_claim(worker, [settlement(claim, Verb.RELEASE)], ["q"], slots=10, limit=10)
        assert [(job.id, job.claim_seq) for job in reply.claimed] == [(job_id, 2)]

    def test_settle_and_claim_still_settles_when_the_lease_is_gone(self, driver: Store) -> None:
        push(driver, new_job(), new_job())
        worker = join(driver)
        claim = only(lend(driver, worker, limit=1))
        driver.leave(worker)
        reply = driver.settle_and_claim(worker, [settlement(claim, Verb.COMPLETE)], ["q"], slots=10, limit=10)
        assert [answer.state for answer in reply.settled] == [JobState.COMPLETED]
        assert (reply.claimed, reply.lease_lost) == ((), True)
        assert job_of(driver, claim.id).status is JobState.COMPLETED, "it was answered, and is not stored"
        assert (driver.stats("q").completed, driver.stats("q").pending) == (1, 1)

    def test_held_tells_a_worker_what_it_was_lent(self, driver: Store, handles: Handles) -> None:
        push(driver, *[new_job() for _ in range(3)])
        worker = join(driver)
        first, second = exactly(2, lend(driver, worker, limit=2))
        lend(driver, join(driver))
        settle(driver, first, Verb.RETRY, delay=10)
        held = only(handles().held(worker))
        assert (held, type(held)) == (second, ClaimedJob)
        assert driver.held(fresh_ids(1)[0]) == []

    def test_what_a_worker_that_left_was_lent_is_held_until_it_is_taken_back(self, driver: Store) -> None:
        job_id = only(push(driver))
        worker = join(driver)
        lend(driver, worker)
        driver.leave(worker)
        assert their_ids(driver.held(worker)) == [job_id]
        driver.reclaim(10)
        assert driver.held(worker) == []
