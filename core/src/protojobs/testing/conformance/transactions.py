"""Transactions: a job commits or vanishes with the caller's own rows, and so does its completion."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Protocol, cast

import pytest
from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid, ProtojobsError
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import BATCH_JOBS_MAX, ClaimedJob, Enqueued, SettleStatus
from protojobs.port.transactions import SupportsTransaction
from protojobs.testing.conformance.counting import assert_counts_are_true
from protojobs.testing.conformance.fixtures import Begin, Fixtures, Handles, Later, Savepoint
from protojobs.testing.conformance.levels import NOT_CLAIMED, Level, concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    SETTLING,
    all_failed,
    all_jobs,
    fence_of,
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

__all__ = ["Joins", "Transactions"]

CROWD = 40
CROWDED_S = 60.0
COMES_S = 1.0  # none came for so long: there is room for no more


class Joins(Store, SupportsTransaction, Protocol):
    """A store whose jobs may join the caller's transaction."""


class TurnedBack(Exception):
    """Raised in the middle of a transaction, to roll it back."""


@concern("transactions", Level.TRANSACTIONS)
class Transactions(Fixtures):
    """Whoever looks from outside sees all of a transaction, or nothing."""

    @pytest.fixture
    def store(self, driver: Store) -> Joins:
        """The driver under test, if it claims transactions."""
        if not driver.capabilities.transactions:
            pytest.skip(f"{NOT_CLAIMED}transactions")
        assert isinstance(driver, SupportsTransaction)
        return cast("Joins", driver)

    def test_a_job_of_a_committed_transaction_is_stored_with_every_field(
        self, store: Joins, transaction: Begin, handles: Handles
    ) -> None:
        job = replace(new_job("emails", priority=7, max_retries=2, data='{"to":"é 🎈"}'), timeout=12.5, meta='{"a":1}')
        with transaction() as mine:
            assert store.enqueue_in(mine, [job]) == [Enqueued(id=job.id)]
        seen = job_of(handles(), job.id)
        for field in ("id", "queue", "job_name", "job_class", "data", "priority", "max_retries", "timeout", "meta"):
            assert getattr(seen, field) == getattr(job, field), field
        assert (seen.status, seen.attempts, seen.claim_seq) == (JobState.PENDING, 0, 0)
        claim = only(lend(store, join(store), "emails"))
        assert settle(store, claim, Verb.COMPLETE).state is JobState.COMPLETED
        assert_counts_are_true(store)

    def test_a_job_of_a_transaction_that_rolls_back_was_never_there(self, store: Joins, transaction: Begin) -> None:
        job = new_job()
        with pytest.raises(TurnedBack), transaction() as mine:
            store.enqueue_in(mine, [job])
            raise TurnedBack
        assert (store.get([job.id]), store.stats().total, store.queues()) == ([], 0, [])
        assert store.enqueue([job]) == [Enqueued(id=job.id)]

    def test_a_job_is_not_seen_from_outside_before_the_commit(
        self, store: Joins, transaction: Begin, handles: Handles
    ) -> None:
        outside, job = handles(), new_job()
        with transaction() as mine:
            store.enqueue_in(mine, [job])
            assert (outside.get([job.id]), all_jobs(outside), outside.stats("q").total) == ([], [], 0)
        assert their_ids(outside.get([job.id])) == [job.id]
        assert outside.stats("q").pending == 1

    def test_all_jobs_of_a_transaction_come_or_go_together(self, store: Joins, transaction: Begin) -> None:
        ids = fresh_ids(6)
        with transaction() as mine:
            for job_id in ids[:3]:
                store.enqueue_in(mine, [new_job(id=job_id)])
        with pytest.raises(TurnedBack), transaction() as mine:
            store.enqueue_in(mine, [new_job(id=job_id) for job_id in ids[3:5]])
            store.enqueue_in(mine, [new_job(id=ids[5])])
            raise TurnedBack
        assert sorted(their_ids(all_jobs(store))) == ids[:3]

    def test_a_known_id_is_a_duplicate_inside_a_transaction_too(self, store: Joins, transaction: Begin) -> None:
        known, new = new_job(priority=1), new_job()
        push(store, known)
        with transaction() as mine:
            answers = store.enqueue_in(mine, [replace(known, priority=2), new])
            again = store.enqueue_in(mine, [new])
        assert answers == [Enqueued(id=known.id, duplicate_of=known.id), Enqueued(id=new.id)]
        assert again == [Enqueued(id=new.id, duplicate_of=new.id)]
        assert (job_of(store, known.id).priority, store.stats().total) == (1, 2)

    def test_a_delay_and_a_moment_are_kept_inside_a_transaction(
        self, store: Joins, transaction: Begin, later: Later
    ) -> None:
        moment = store.now().replace(microsecond=123_457) + timedelta(days=1)
        delayed, named = new_job(delay=100), new_job(available_at=moment)
        with transaction() as mine:
            store.enqueue_in(mine, [delayed, named])
        seen = job_of(store, delayed.id)
        assert seen.available_at - seen.created_at == timedelta(seconds=100)
        assert job_of(store, named.id).available_at == moment
        worker = join(store)
        assert lend(store, worker) == []
        assert their_ids(lend(later(110), worker)) == [delayed.id]

    def test_a_batch_of_too_many_jobs_is_refused_and_leaves_the_transaction_as_it_was(
        self, store: Joins, transaction: Begin
    ) -> None:
        job = new_job()
        with transaction() as mine:
            store.enqueue_in(mine, [job])
            with pytest.raises(ProtojobsError):
                store.enqueue_in(mine, [new_job() for _ in range(BATCH_JOBS_MAX + 1)])
        assert their_ids(all_jobs(store)) == [job.id]

    @pytest.mark.parametrize("stranger", [object(), None, "transaction"], ids=["object", "none", "text"])
    def test_what_is_no_transaction_is_refused(self, store: Joins, stranger: object) -> None:
        push(store)
        claim = only(lend(store, join(store)))
        with pytest.raises(OptionInvalid):
            store.enqueue_in(stranger, [new_job()])
        with pytest.raises(OptionInvalid):
            store.complete_in(stranger, fence_of(claim))
        assert (store.stats().total, job_of(store, claim.id).status) == (1, JobState.PROCESSING)

    def test_a_callback_runs_at_most_once_and_never_before_the_commit(
        self, store: Joins, transaction: Begin, handles: Handles
    ) -> None:
        outside, job = handles(), new_job()
        seen: list[list[str]] = []
        with transaction() as mine:
            store.enqueue_in(mine, [job], on_commit=lambda: seen.append(their_ids(outside.get([job.id]))))
            assert seen == []
        assert seen in ([], [[job.id]])

    def test_a_callback_never_runs_after_a_roll_back(self, store: Joins, transaction: Begin) -> None:
        called: list[bool] = []
        with pytest.raises(TurnedBack), transaction() as mine:
            store.enqueue_in(mine, [new_job()], on_commit=lambda: called.append(True))
            raise TurnedBack
        with transaction() as mine:
            store.enqueue_in(mine, [new_job()])
        assert called == []

    def test_a_job_of_a_savepoint_that_rolls_back_is_gone_and_the_others_stay(
        self, store: Joins, transaction: Begin, savepoint: Savepoint
    ) -> None:
        before, inside, kept, after = (new_job(id=job_id) for job_id in fresh_ids(4))
        called: list[str] = []
        with transaction() as mine:
            store.enqueue_in(mine, [before])
            with pytest.raises(TurnedBack), savepoint(mine):
                store.enqueue_in(mine, [inside], on_commit=lambda: called.append("inside"))
                raise TurnedBack
            with savepoint(mine):
                store.enqueue_in(mine, [kept], on_commit=lambda: called.append("kept"))
            assert called == []
            store.enqueue_in(mine, [after])
        assert sorted(their_ids(all_jobs(store))) == [before.id, kept.id, after.id]
        assert called in ([], ["kept"])
        assert store.stats("q").pending == 3

    def test_a_completion_in_a_savepoint_that_rolls_back_did_not_happen(
        self, store: Joins, transaction: Begin, savepoint: Savepoint
    ) -> None:
        claim = one_claim(store)
        with transaction() as mine, pytest.raises(TurnedBack), savepoint(mine):
            store.complete_in(mine, fence_of(claim))
            raise TurnedBack
        assert job_of(store, claim.id).status is JobState.PROCESSING
        assert settle(store, claim, Verb.RETRY).state is JobState.PENDING
        assert_counts_are_true(store)

    def test_a_completion_commits_with_the_transaction(
        self, store: Joins, transaction: Begin, handles: Handles
    ) -> None:
        outside, claim = handles(), one_claim(store)
        before = store.now()
        with transaction() as mine:
            store.complete_in(mine, fence_of(claim))
            assert job_of(outside, claim.id).status is JobState.PROCESSING
        job = job_of(outside, claim.id)
        assert (job.status, job.reserved_by, job.claim_seq) == (JobState.COMPLETED, "", claim.claim_seq)
        assert job.processed_at is not None
        assert before <= job.processed_at <= store.now()
        assert_counts_are_true(store)

    def test_a_completion_that_rolls_back_leaves_the_claim_as_it_was(self, store: Joins, transaction: Begin) -> None:
        claim = one_claim(store)
        with pytest.raises(TurnedBack), transaction() as mine:
            store.complete_in(mine, fence_of(claim))
            raise TurnedBack
        job = job_of(store, claim.id)
        assert (job.status, job.reserved_by, job.processed_at) == (JobState.PROCESSING, claim.reserved_by, None)
        assert settle(store, claim, Verb.COMPLETE).state is JobState.COMPLETED
        assert_counts_are_true(store)

    @pytest.mark.parametrize("verb", SETTLING)
    def test_what_a_transaction_completed_is_settled_no_more(
        self, store: Joins, transaction: Begin, verb: Verb
    ) -> None:
        claim = one_claim(store)
        with transaction() as mine:
            store.complete_in(mine, fence_of(claim))
        answer = only(store.settle([settlement(claim, verb)]))
        assert (answer.status, answer.state) == (SettleStatus.REPEATED, JobState.COMPLETED)
        assert all_failed(store) == []

    def test_a_completion_and_the_jobs_that_follow_from_it_are_one(self, store: Joins, transaction: Begin) -> None:
        claim, follower = one_claim(store), new_job()
        with pytest.raises(TurnedBack), transaction() as mine:
            store.complete_in(mine, fence_of(claim))
            store.enqueue_in(mine, [follower])
            raise TurnedBack
        assert (job_of(store, claim.id).status, store.get([follower.id])) == (JobState.PROCESSING, [])
        with transaction() as mine:
            store.complete_in(mine, fence_of(claim))
            store.enqueue_in(mine, [follower])
        assert (job_of(store, claim.id).status, job_of(store, follower.id).status) == (
            JobState.COMPLETED,
            JobState.PENDING,
        )

    def test_a_completion_counts_in_spite_of_a_cancel_mark(self, store: Joins, transaction: Begin) -> None:
        claim = one_claim(store)
        store.cancel([claim.id])
        with transaction() as mine:
            store.complete_in(mine, fence_of(claim))
        assert job_of(store, claim.id).status is JobState.COMPLETED

    @pytest.mark.parametrize("wrong", ["id", "claim_seq", "reserved_by", "no holder"])
    def test_a_completion_matches_all_three_marks_of_the_claim(
        self, store: Joins, transaction: Begin, wrong: str
    ) -> None:
        claim = one_claim(store)
        fences = {
            "id": replace(fence_of(claim), id=fresh_id()),
            "claim_seq": replace(fence_of(claim), claim_seq=claim.claim_seq + 1),
            "reserved_by": replace(fence_of(claim), reserved_by=join(store)),
            "no holder": replace(fence_of(claim), reserved_by=""),
        }
        with pytest.raises(LeaseLost), transaction() as mine:
            store.complete_in(mine, fences[wrong])
        assert job_of(store, claim.id).reserved_by == claim.reserved_by
        assert_counts_are_true(store)

    @pytest.mark.parametrize("is_lent_again", [False, True], ids=["pending again", "lent again"])
    def test_a_lost_claim_completes_nothing_and_takes_the_transaction_with_it(
        self, store: Joins, transaction: Begin, later: Later, is_lent_again: bool
    ) -> None:
        claim, follower = one_claim(store), new_job("other")
        ahead = later(LEASE_S + 10)
        ahead.reclaim(100)
        if is_lent_again:
            assert their_ids(lend(ahead, join(ahead))) == [claim.id]
        before = job_of(store, claim.id)
        with pytest.raises(LeaseLost), transaction() as mine:
            store.enqueue_in(mine, [follower])
            store.complete_in(mine, fence_of(claim))
        assert (store.get([follower.id]), job_of(store, claim.id)) == ([], before)

    def test_a_claim_is_completed_once(self, store: Joins, transaction: Begin) -> None:
        claim = one_claim(store)
        with transaction() as mine:
            store.complete_in(mine, fence_of(claim))
        with pytest.raises(LeaseLost), transaction() as mine:
            store.complete_in(mine, fence_of(claim))
        assert store.stats().completed == 1

    def test_a_worker_waits_for_none_of_the_transactions_that_others_hold_open(
        self, store: Joins, transaction: Begin
    ) -> None:
        """Jobs may keep theirs open for longer than a lease, and as many as there are connections for them."""
        worker = join(store)
        (job_id,) = push(store)
        with crowd(store, transaction) as inside:
            if inside < 2:
                pytest.skip(f"{NOT_CLAIMED}transactions beside each other")
            store.heartbeat(worker, {})
            claim = only(lend(store, worker))
            store.heartbeat(worker, {fence_of(claim): 0.5})
            assert [answer.status for answer in store.settle([settlement(claim, Verb.COMPLETE)])] == [
                SettleStatus.APPLIED
            ]
            assert store.reclaim(100).jobs == ()
        assert job_of(store, job_id).status is JobState.COMPLETED


@contextmanager
def crowd(store: Joins, transaction: Begin) -> Generator[int]:
    """For the time of the block: as many transactions as the store lets be open at the same time, up to a bound."""
    may_end, inside = threading.Event(), SimpleQueue[None]()

    def stay() -> None:
        with suppress(Exception), transaction() as mine:  # for which there is no room, is told so sooner or later
            store.enqueue_in(mine, [new_job("crowded")])
            inside.put(None)
            may_end.wait(CROWDED_S)
            raise TurnedBack

    threads = [threading.Thread(target=stay, daemon=True) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    count = 0
    with suppress(Empty):
        while count < CROWD:
            inside.get(timeout=COMES_S if count else CROWDED_S)
            count += 1
    try:
        yield count
    finally:
        may_end.set()
        for thread in threads:
            thread.join(CROWDED_S)


def one_claim(driver: Store) -> ClaimedJob:
    """A job that a worker has."""
    push(driver)
    claim = only(lend(driver, join(driver)))
    return claim
