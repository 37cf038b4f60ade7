"""The failed store: one row per failed job, from the failing step to the retry or the end."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, FailedJob, NewJob, RetryAnswer
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    all_failed,
    all_well,
    at_once,
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

__all__ = ["Failures"]


@concern("failures")
class Failures(Fixtures):
    """Fail, look, retry, forget."""

    def test_a_failure_is_kept_with_all_that_is_known_of_it(self, driver: Store, handles: Handles) -> None:
        job = new_job("emails", data='{"to":"é 🎈"}')
        push(driver, job)
        claim = only(lend(driver, join(driver), "emails"))
        before = driver.now()
        text = "Traceback (most recent call last):\n  é 🎈\n" * 1_000
        driver.settle([replace(settlement(claim, Verb.FAIL), error=text)])
        failed = only(all_failed(handles()))
        assert (failed.job_id, failed.queue, failed.attempts) == (job.id, "emails", 1)
        assert (failed.job_class, failed.job_name, failed.data) == (job.job_class, job.job_name, job.data)
        assert failed.exception == text
        assert before <= failed.failed_at <= driver.now()
        assert driver.get_failed([failed.id, fresh_id()]) == [failed]

    def test_a_row_is_found_by_its_own_id_and_by_its_jobs(self, driver: Store) -> None:
        first, second = fail(driver, new_job(), new_job())
        found = driver.get_failed([first.job_id, second.id, second.job_id, *push(driver)])
        assert sorted(row.id for row in found) == sorted([first.id, second.id])
        driver.retry_failed([first.id])
        assert driver.get_failed([first.job_id, first.id]) == []

    def test_the_job_and_its_row_come_in_one_step(self, driver: Store) -> None:
        failed = only(fail(driver, new_job()))
        assert job_of(driver, failed.job_id).status is JobState.FAILED
        assert driver.stats("q").failed == len(all_failed(driver)) == 1

    def test_a_failure_sent_again_makes_no_second_row(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        for _ in range(2):
            driver.settle([settlement(claim, Verb.FAIL)])
        assert len(all_failed(driver)) == 1

    def test_failures_are_listed_newest_first_in_bounded_pages(self, driver: Store, later: Later) -> None:
        rows = [row for step in range(5) for row in fail(later(step * 10.0), new_job())]
        for limit in (1, 2, 5, 50):
            assert [row.id for row in all_failed(driver, limit=limit)] == [row.id for row in reversed(rows)]

    def test_failures_of_one_queue_can_be_listed(self, driver: Store) -> None:
        fail(driver, new_job("a"), new_job("b"), new_job("a"))
        assert [row.queue for row in all_failed(driver, "a", limit=1)] == ["a", "a"]
        assert all_failed(driver, "c") == []

    def test_of_long_texts_the_beginning_of_the_data_and_the_end_of_the_traceback_are_shown(
        self, driver: Store
    ) -> None:
        push(driver, new_job(data='"é🎈é🎈"'))
        claim = only(lend(driver, join(driver)))
        driver.settle([replace(settlement(claim, Verb.FAIL), error="Traceback\n é🎈", fingerprint="3fa1c2")])
        whole = only(all_failed(driver))
        for chars_max, data, exception in [
            (3, '"é🎈', " é🎈"),
            (1, '"', "🎈"),
            (0, "", ""),
            (None, whole.data, whole.exception),
        ]:
            row = only(driver.failed(chars_max=chars_max).jobs)
            assert (row.data, row.exception) == (data, exception)
            assert replace(row, data=whole.data, exception=whole.exception) == whole

    def test_a_fingerprint_is_kept_with_its_failure(self, driver: Store, handles: Handles) -> None:
        push(driver, new_job(), new_job(), new_job())
        claims = lend(driver, join(driver))
        marks = dict(zip(their_ids(claims), ["3fa1c2d4e5f60718", "Émile's \"%_\\", ""], strict=True))
        driver.settle([replace(settlement(claim, Verb.FAIL), fingerprint=marks[claim.id]) for claim in claims])
        rows = all_failed(handles())
        assert {row.job_id: row.fingerprint for row in rows} == marks
        assert {row.job_id: row.fingerprint for row in driver.get_failed([row.id for row in rows])} == marks

    def test_a_fingerprint_goes_with_its_row(self, driver: Store) -> None:
        push(driver)
        worker = join(driver)
        for fingerprint in ("first", ""):
            claim = only(lend(driver, worker))
            driver.settle([replace(settlement(claim, Verb.FAIL), fingerprint=fingerprint)])
            row = only(all_failed(driver))
            assert row.fingerprint == fingerprint
            driver.retry_failed([row.id])

    def test_a_retried_failure_is_the_same_job_due_at_once_with_its_own_settings(
        self, driver: Store, handles: Handles
    ) -> None:
        job = NewJob(
            id=fresh_id(),
            queue="q",
            job_name="mail.welcome",
            job_class="app.Welcome",
            data='{"n":7}',
            priority=5,
            max_retries=0,
            retry_delay=7.5,
            retry_policy='{"kind":"fixed"}',
            timeout=12.0,
            meta='{"trace":"1"}',
        )
        failed = only(fail(driver, job))
        before = driver.now()
        assert handles().retry_failed([failed.id]) == [RetryAnswer.REQUEUED]
        seen = job_of(driver, job.id)
        assert (seen.status, seen.attempts, seen.claim_seq, seen.processed_at) == (JobState.PENDING, 0, 2, None)
        assert before <= seen.available_at <= driver.now()
        claim = only(lend(driver, join(driver)))
        assert (claim.attempts, claim.claim_seq) == (1, 3)
        fields = ("id", "queue", "job_name", "job_class", "data", "priority", "max_retries", "retry_delay", "meta")
        for field in (*fields, "retry_policy", "timeout"):
            assert getattr(claim, field) == getattr(job, field), field
        assert all_failed(driver) == []

    def test_a_retried_failure_forgets_its_crashes_returns_and_reclaims(self, driver: Store, later: Later) -> None:
        push(driver)
        lend(driver, join(driver))
        ahead = later(LEASE_S + 10)
        ahead.reclaim(100)
        claim = only(lend(ahead, join(ahead)))
        ahead.settle([replace(settlement(claim, Verb.FAIL), counts_crash=True)])
        seen = job_of(driver, claim.id)
        assert (seen.crashes, seen.returns, seen.reclaims) == (1, 1, 1)
        ahead.retry_failed([row.id for row in all_failed(driver)])
        seen = job_of(driver, claim.id)
        assert (seen.attempts, seen.crashes, seen.returns, seen.reclaims) == (0, 0, 0, 0)

    def test_answers_to_a_retry_come_in_order(self, driver: Store) -> None:
        first, second = fail(driver, new_job(), new_job())
        driver.export_jobs("token", limit=500)  # `moving` now: the rows are there, but the jobs not failed any more
        third = only(fail(driver, new_job()))
        answers = driver.retry_failed([fresh_id(), third.id, first.id, third.id, second.id])
        assert answers == [
            RetryAnswer.MISSING,
            RetryAnswer.REQUEUED,
            RetryAnswer.CONFLICT,
            RetryAnswer.MISSING,
            RetryAnswer.CONFLICT,
        ]

    def test_of_many_retries_at_once_one_requeues(self, driver: Store, handles: Handles) -> None:
        failed = only(fail(driver, new_job()))
        drivers = [handles() for _ in range(4)]
        answers = all_well(at_once(*[partial(each.retry_failed, [failed.id]) for each in drivers]))
        assert sorted(answers) == [*[[RetryAnswer.MISSING]] * 3, [RetryAnswer.REQUEUED]]
        assert job_of(driver, failed.job_id).claim_seq == 2

    def test_a_job_can_fail_again_after_its_retry(self, driver: Store) -> None:
        first = only(fail(driver, new_job()))
        driver.retry_failed([first.id])
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.FAIL)
        second = only(all_failed(driver))
        assert (second.job_id, second.attempts) == (first.job_id, 1)
        assert second.id != first.id

    def test_a_forgotten_failure_is_gone_with_its_job(self, driver: Store) -> None:
        first, second = fail(driver, new_job(), new_job())
        assert driver.forget_failed([first.id, fresh_id(), first.id]) == 1
        assert driver.get([first.job_id]) == []
        assert all_failed(driver) == [second]
        assert driver.stats("q").failed == 1

    def test_forgetting_reaches_no_job_that_is_not_failed(self, driver: Store) -> None:
        failed = only(fail(driver, new_job()))
        driver.retry_failed([failed.id])
        assert driver.forget_failed([failed.id, failed.job_id]) == 0
        assert job_of(driver, failed.job_id).status is JobState.PENDING


def fail(driver: Store, *jobs: NewJob) -> list[FailedJob]:
    """Push, claim and fail the jobs; their rows of failed_jobs, in the order of the jobs."""
    ids = push(driver, *jobs)
    worker = join(driver)
    claims: dict[str, ClaimedJob] = {}
    for queue in sorted({job.queue for job in jobs}):
        claims.update({claim.id: claim for claim in lend(driver, worker, queue)})
    assert sorted(their_ids(list(claims.values()))) == sorted(ids)
    for job_id in ids:
        settle(driver, claims[job_id], Verb.FAIL)
    rows = {row.job_id: row for row in all_failed(driver)}
    return [rows[job_id] for job_id in ids]
