"""Enqueue: stored once, all or none, within its bounds; and the storage it needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest

from protojobs.errors import ProtojobsError, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, Enqueued, NewJob
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import at_once, fresh_ids, job_of, join, lend, new_job, only, push, settle

__all__ = ["Enqueueing"]

Answer = TypeVar("Answer")


@concern("enqueueing")
class Enqueueing(Fixtures):
    """A job whose enqueue was answered is in the store, once."""

    def test_setup_can_be_repeated_and_keeps_the_jobs(self, driver: Store) -> None:
        job_id = only(push(driver))
        driver.setup()
        assert job_of(driver, job_id).status is JobState.PENDING

    def test_setup_is_safe_when_several_start_at_once(self, handles: Handles) -> None:
        assert at_once(*[handles().setup for _ in range(4)]) == [None] * 4
        push(handles())

    def test_a_closed_driver_can_be_used_again(self, driver: Store) -> None:
        job_id = only(push(driver))
        driver.close()
        driver.close()
        assert job_of(driver, job_id).id == job_id

    def test_a_stored_job_is_answered_with_its_id(self, driver: Store) -> None:
        job = new_job()
        assert driver.enqueue([job]) == [Enqueued(id=job.id)]

    def test_a_stored_job_is_seen_by_another_driver_with_every_field(self, driver: Store, handles: Handles) -> None:
        job = NewJob(
            id=fresh_ids(1)[0],
            queue="emails",
            job_name="mail.welcome",
            job_class="app.mail.Welcome",
            data='{"to":"anna@example.org","n":[1,2.5,null,true],"text":"é 漢 \\u0000 \\n 🎈"}',
            priority=-7,
            max_retries=9,
            retry_delay=12.5,
            retry_policy='{"kind":"fixed"}',
            timeout=33.25,
            meta='{"traceparent":"00-1"}',
        )
        before = driver.now()
        driver.enqueue([job])
        seen = job_of(handles(), job.id)
        for field in ("id", "queue", "job_name", "job_class", "data", "priority", "max_retries"):
            assert getattr(seen, field) == getattr(job, field), field
        for field in ("retry_delay", "retry_policy", "timeout", "meta"):
            assert getattr(seen, field) == getattr(job, field), field
        assert (seen.status, seen.reserved_by, seen.reserved_at, seen.processed_at) == (
            JobState.PENDING,
            "",
            None,
            None,
        )
        assert (seen.attempts, seen.claim_seq, seen.crashes, seen.returns, seen.reclaims) == (0, 0, 0, 0, 0)
        assert (seen.progress, seen.cancel_requested_at, seen.reason) == (None, None, None)
        assert before <= seen.created_at <= driver.now()
        assert seen.available_at == seen.created_at

    def test_times_are_aware_utc_and_keep_their_microseconds(self, driver: Store) -> None:
        moment = driver.now().replace(microsecond=123_457) + timedelta(days=1)
        job_id = only(push(driver, new_job(available_at=moment)))
        seen = job_of(driver, job_id)
        assert seen.available_at == moment
        assert seen.available_at.utcoffset() == seen.created_at.utcoffset() == timedelta(0)

    def test_nothing_at_all_can_be_enqueued(self, driver: Store) -> None:
        assert driver.enqueue([]) == []

    def test_an_id_that_is_known_is_a_duplicate_and_changes_nothing(self, driver: Store, handles: Handles) -> None:
        first = new_job(priority=1)
        push(driver, first)
        again = new_job(id=first.id, queue="other", priority=2)
        assert handles().enqueue([again]) == [Enqueued(id=first.id, duplicate_of=first.id)]
        seen = job_of(driver, first.id)
        assert (seen.queue, seen.priority) == ("q", 1)
        assert driver.stats().total == 1

    def test_an_id_twice_in_one_batch_is_stored_once(self, driver: Store) -> None:
        job = new_job()
        assert driver.enqueue([job, job]) == [Enqueued(id=job.id), Enqueued(id=job.id, duplicate_of=job.id)]
        assert driver.stats().pending == 1

    def test_known_and_new_ids_in_one_batch_are_answered_in_order(self, driver: Store) -> None:
        old, new, newer = (new_job() for _ in range(3))
        driver.enqueue([old])
        answers = driver.enqueue([new, old, newer])
        assert [(answer.id, answer.duplicate_of) for answer in answers] == [
            (new.id, None),
            (old.id, old.id),
            (newer.id, None),
        ]

    @pytest.mark.parametrize("verb", [Verb.COMPLETE, Verb.FAIL, Verb.CANCEL])
    def test_the_id_of_a_finished_job_is_a_duplicate_too(self, driver: Store, verb: Verb) -> None:
        job = new_job()
        push(driver, job)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, verb)
        assert driver.enqueue([job]) == [Enqueued(id=job.id, duplicate_of=job.id)]

    def test_of_several_enqueues_of_one_id_at_once_one_stores_it(self, handles: Handles) -> None:
        job = new_job()
        drivers = [handles() for _ in range(4)]
        answers = at_once(*[partial(each.enqueue, [job]) for each in drivers])
        assert sorted(str(answer) for answer in answers) == sorted(
            [str([Enqueued(id=job.id)]), *[str([Enqueued(id=job.id, duplicate_of=job.id)])] * 3]
        )
        assert drivers[0].stats().pending == 1

    def test_a_full_batch_is_stored(self, driver: Store) -> None:
        jobs = [new_job(id=job_id) for job_id in fresh_ids(BATCH_JOBS_MAX)]
        assert driver.enqueue(jobs) == [Enqueued(id=job.id) for job in jobs]
        assert driver.stats("q").pending == BATCH_JOBS_MAX

    def test_a_batch_of_too_many_jobs_is_refused_whole(self, driver: Store) -> None:
        with pytest.raises(ProtojobsError):
            driver.enqueue([new_job(id=job_id) for job_id in fresh_ids(BATCH_JOBS_MAX + 1)])
        assert driver.stats().total == 0

    def test_a_batch_of_too_many_bytes_is_refused_whole(self, driver: Store) -> None:
        text = '"' + "é" * (BATCH_BYTES_MAX // 8) + '"'  # two bytes each: counted in bytes, not in characters
        with pytest.raises(ProtojobsError):
            driver.enqueue([new_job(data=text) for _ in range(4)])
        assert driver.stats().total == 0

    def test_a_payload_of_a_megabyte_comes_back_unchanged(self, driver: Store) -> None:
        data = '"' + "0123456789abcdef" * 65_536 + '"'
        push(driver, new_job(data=data))
        claim = only(lend(driver, join(driver)))
        assert claim.data == data

    def test_cut_connections_lose_and_double_nothing(self, driver: Store, disturb: Callable[[], None]) -> None:
        job = new_job()
        push(driver, job)
        disturb()
        assert until_answered(lambda: driver.enqueue([job])) == [Enqueued(id=job.id, duplicate_of=job.id)]
        worker = join(driver)
        disturb()
        claims = until_answered(lambda: driver.held(worker) or lend(driver, worker))
        assert [claim.id for claim in claims] == [job.id]


def until_answered(call: Callable[[], list[Answer]]) -> list[Answer]:
    """What the call answers at last, after a few StoreUnavailable at most."""
    for _ in range(5):
        try:
            return call()
        except StoreUnavailable:
            continue
    pytest.fail("the driver did not find its store again")
