"""Moving to another store: export, import, drop; each can be repeated, so a transfer may die anywhere."""

from __future__ import annotations

from msgspec.structs import asdict, replace

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ExportedJob, JobFilter, Stats
from protojobs.testing.conformance.fixtures import Fixtures, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    all_failed,
    all_jobs,
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

__all__ = ["Transferring"]


@concern("transferring")
class Transferring(Fixtures):
    """Pending and failed jobs can leave, and arrive as they were."""

    def test_exported_jobs_are_moving_and_carry_their_old_state(self, driver: Store) -> None:
        failed, retried, fresh = a_failed_a_retried_and_a_fresh_job(driver)
        before = {job_id: job_of(driver, job_id) for job_id in (failed, retried, fresh)}
        rows = {row.job_id: row for row in all_failed(driver)}
        jobs = {job.id: job for job in export_all(driver, "token")}
        assert jobs.keys() == before.keys()
        for job_id, job in jobs.items():
            as_it_was = asdict(replace(before[job_id], claim_seq=before[job_id].claim_seq + 1))
            assert asdict(job) == {**as_it_was, "failed": rows.get(job_id)}
            assert job_of(driver, job_id).status is JobState.MOVING

    def test_only_pending_and_failed_jobs_are_exported(self, driver: Store) -> None:
        worker = join(driver)
        for verb in (Verb.COMPLETE, Verb.CANCEL, None):
            push(driver)
            claim = only(lend(driver, worker))
            if verb is not None:
                settle(driver, claim, verb)
        delayed = only(push(driver, new_job(delay=100)))
        assert [job.id for job in export_all(driver, "token")] == [delayed]

    def test_a_moving_job_is_left_alone_by_everything_else(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        driver.export_jobs("token")
        worker = join(driver)
        assert lend(driver, worker) == []
        assert driver.clear("q").total == 0
        driver.cancel([job_id])
        assert later(1e8).prune(completed_older_than=0, failed_older_than=0).total == 0
        assert later(1e8).reclaim(100).jobs == ()
        assert driver.export_jobs("another") == ([], None)
        assert driver.enqueue([new_job(id=job_id)])[0].duplicate_of == job_id
        assert job_of(driver, job_id).status is JobState.MOVING

    def test_a_moving_job_is_found_and_its_queue_listed_but_it_is_counted_nowhere(self, driver: Store) -> None:
        failed, retried, fresh = a_failed_a_retried_and_a_fresh_job(driver)
        export_all(driver, "token")
        assert {job.id for job in all_jobs(driver)} == {failed, retried, fresh}
        assert len(all_jobs(driver, JobFilter(states=(JobState.MOVING,), queue="q"))) == 3
        assert [row.job_id for row in all_failed(driver)] == [failed]
        assert (driver.stats(), driver.stats("q")) == (Stats(), Stats())
        assert [(queue.name, queue.stats, queue.oldest_ready_s) for queue in driver.queues()] == [("q", Stats(), None)]

    def test_export_goes_page_by_page(self, driver: Store) -> None:
        ids = push(driver, *[new_job() for _ in range(7)])
        assert sorted(job.id for job in export_all(driver, "token", limit=3)) == sorted(ids)

    def test_a_page_asked_for_again_is_the_same(self, driver: Store) -> None:
        push(driver, *[new_job() for _ in range(7)])
        first, cursor = driver.export_jobs("token", limit=3)
        assert cursor is not None
        second, _ = driver.export_jobs("token", cursor=cursor, limit=3)
        assert driver.export_jobs("token", limit=3)[0] == first
        assert driver.export_jobs("token", cursor=cursor, limit=3)[0] == second
        assert not {job.id for job in first} & {job.id for job in second}

    def test_an_export_begun_anew_goes_on_with_what_is_left(self, driver: Store) -> None:
        ids = push(driver, *[new_job() for _ in range(7)])
        first, _ = driver.export_jobs("token", limit=3)
        assert driver.drop_exported("token", [job.id for job in first]) == 3
        rest = export_all(driver, "token", limit=3)
        assert sorted(job.id for job in [*first, *rest]) == sorted(ids)

    def test_imported_jobs_are_what_they_were(self, driver: Store) -> None:
        a_failed_a_retried_and_a_fresh_job(driver)
        jobs = export_all(driver, "token")
        assert driver.drop_exported("token", [job.id for job in jobs]) == 3
        assert driver.stats().total == 0
        assert all_failed(driver) == []
        answers = driver.import_jobs(jobs)
        assert [(answer.id, answer.duplicate_of) for answer in answers] == [(job.id, None) for job in jobs]
        for job in jobs:
            assert asdict(job) == {**asdict(job_of(driver, job.id)), "failed": job.failed}
        assert [row.job_id for row in all_failed(driver)] == [job.id for job in jobs if job.failed]
        assert (driver.stats("q").pending, driver.stats("q").failed) == (2, 1)

    def test_jobs_imported_twice_are_stored_once(self, driver: Store) -> None:
        a_failed_a_retried_and_a_fresh_job(driver)
        jobs = export_all(driver, "token")
        driver.drop_exported("token", [job.id for job in jobs])
        driver.import_jobs(jobs)
        assert [answer.duplicate_of for answer in driver.import_jobs(jobs)] == [job.id for job in jobs]
        assert (len(all_jobs(driver)), len(all_failed(driver))) == (3, 1)

    def test_imported_jobs_live_on(self, driver: Store) -> None:
        failed, retried, fresh = a_failed_a_retried_and_a_fresh_job(driver)
        jobs = export_all(driver, "token")
        driver.drop_exported("token", [job.id for job in jobs])
        driver.import_jobs(jobs)
        driver.retry_failed([row.id for row in all_failed(driver)])
        attempts = {claim.id: claim.attempts for claim in lend(driver, join(driver))}
        assert attempts == {failed: 1, retried: 2, fresh: 1}

    def test_only_what_moves_under_the_token_is_dropped(self, driver: Store) -> None:
        moving = push(driver, new_job())
        driver.export_jobs("token")
        staying = only(push(driver))
        assert driver.drop_exported("another", moving) == 0
        assert driver.drop_exported("token", [*moving, staying, fresh_id()]) == 1
        assert driver.drop_exported("token", moving) == 0
        assert [job.id for job in all_jobs(driver)] == [staying]

    def test_a_late_result_for_an_exported_job_is_stale(self, driver: Store, later: Later) -> None:
        job_id = only(push(driver))
        claim = only(lend(driver, join(driver)))
        later(LEASE_S + 10).reclaim(100)
        driver.export_jobs("token")
        answer = only(driver.settle([settlement(claim, Verb.COMPLETE)]))
        assert (answer.status.value, answer.state) == ("stale", JobState.MOVING)
        assert job_of(driver, job_id).status is JobState.MOVING

    def test_the_holder_of_a_claim_before_the_export_cannot_repeat_it(self, driver: Store) -> None:
        push(driver)
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.RELEASE)
        driver.export_jobs("token")
        assert [answer.status.value for answer in driver.settle([settlement(claim, Verb.RELEASE)])] == ["stale"]


def a_failed_a_retried_and_a_fresh_job(driver: Store) -> tuple[str, str, str]:
    """Their ids; the queue is `q`."""
    failed, retried, fresh = fresh_ids(3)
    push(driver, new_job(id=failed), new_job(id=retried))
    first, second = exactly(2, lend(driver, join(driver)))
    driver.settle([replace(settlement(first, Verb.FAIL), error="Traceback", fingerprint="3fa1c2")])
    settle(driver, second, Verb.RETRY)
    push(driver, new_job(id=fresh, priority=3))
    return failed, retried, fresh


def export_all(driver: Store, token: str, *, limit: int = 500) -> list[ExportedJob]:
    """All pages of an export."""
    jobs, cursor = driver.export_jobs(token, limit=limit)
    while cursor is not None:
        page, cursor = driver.export_jobs(token, cursor=cursor, limit=limit)
        assert len(page) <= limit
        jobs.extend(page)
    return jobs
