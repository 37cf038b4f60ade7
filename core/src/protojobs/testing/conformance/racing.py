"""Many at once: whatever the timing, two live claims of one job never exist."""

from __future__ import annotations

from collections import Counter
from functools import partial

from protojobs.errors import LeaseLost
from protojobs.lifecycle import JobState, Verb
from protojobs.protocols import Store
from protojobs.records import ClaimedJob, Heartbeat, Reclaimed, SettleStatus
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.steps import (
    LEASE_S,
    all_jobs,
    all_well,
    at_once,
    fresh_ids,
    join,
    lend,
    new_job,
    push,
    settlement,
)

__all__ = ["Racing"]

CROWD = 4  # threads, each with a driver of its own
JOBS = 120


@concern("racing")
class Racing(Fixtures):
    """Each story is told by several threads, each with its own driver, as if by several processes."""

    def test_many_workers_claiming_at_once_are_lent_each_job_once(self, driver: Store, handles: Handles) -> None:
        ids = fresh_ids(JOBS)
        push(driver, *[new_job(id=job_id, priority=place % 3) for place, job_id in enumerate(ids)])
        drivers = [handles() for _ in range(CROWD)]
        workers = [join(each) for each in drivers]
        stories = [partial(claim_until_dry, *pair) for pair in zip(drivers, workers, strict=True)]
        lent = [claim for claims in all_well(at_once(*stories)) for claim in claims]
        assert Counter(claim.id for claim in lent) == Counter(ids)
        assert {claim.claim_seq for claim in lent} == {1}
        holders = {job.id: job.reserved_by for job in all_jobs(driver)}
        assert {claim.id: claim.reserved_by for claim in lent} == holders

    def test_the_threads_of_one_driver_are_lent_each_job_once(self, driver: Store) -> None:
        ids = push(driver, *[new_job() for _ in range(JOBS)])
        worker = join(driver)
        lent = all_well(at_once(*[partial(claim_until_dry, driver, worker)] * CROWD))
        assert Counter(claim.id for claims in lent for claim in claims) == Counter(ids)

    def test_a_full_run_by_many_completes_each_job_once(self, driver: Store, handles: Handles) -> None:
        ids = push(driver, *[new_job() for _ in range(JOBS)])
        drivers = [handles() for _ in range(CROWD)]
        stories = [partial(work_until_dry, each) for each in drivers]
        done = [job_id for each in all_well(at_once(*stories)) for job_id in each]
        assert Counter(done) == Counter(ids)
        assert (driver.stats("q").completed, driver.stats("q").total) == (JOBS, JOBS)

    def test_many_reclaiming_at_once_take_each_job_back_once(self, driver: Store, handles: Handles) -> None:
        ids = push(driver, *[new_job() for _ in range(40)])
        worker = join(driver)
        lend(driver, worker)
        drivers = [handles(LEASE_S + 10) for _ in range(CROWD)]
        stories = [partial(reclaim_until_dry, each) for each in drivers]
        rounds = [round_ for each in all_well(at_once(*stories)) for round_ in each]
        rounds.extend(reclaim_until_dry(drivers[0]))  # what was locked just then
        assert Counter(job.id for round_ in rounds for job in round_.jobs) == Counter(ids)
        assert [name for round_ in rounds for name in round_.workers] == [worker]
        assert {(job.status, job.claim_seq, job.reclaims) for job in all_jobs(driver)} == {(JobState.PENDING, 2, 1)}

    def test_a_late_heartbeat_and_a_reclaim_never_both_win(self, driver: Store, handles: Handles) -> None:
        beating, taking = handles(LEASE_S + 10), handles(LEASE_S + 10)
        for _ in range(10):
            worker = join(driver)
            beat, taken = at_once(partial(beating.heartbeat, worker, {}), partial(taking.reclaim, 100))
            assert isinstance(taken, Reclaimed)
            assert isinstance(beat, Heartbeat | LeaseLost)
            assert (worker in taken.workers) is isinstance(beat, LeaseLost)
            driver.leave(worker)

    def test_a_claim_and_a_reclaim_at_once_lend_nothing_to_the_dead(self, driver: Store, handles: Handles) -> None:
        claiming, taking = handles(), handles(LEASE_S + 10)
        for _ in range(10):
            push(driver)
            worker = join(driver)
            lent, taken = at_once(partial(lend, claiming, worker), partial(taking.reclaim, 100))
            assert isinstance(taken, Reclaimed)
            assert isinstance(lent, list | LeaseLost)
            reclaim_until_dry(taking)
            assert driver.held(worker) == []
            assert driver.stats("q").processing == 0
            driver.clear("q")


def claim_until_dry(driver: Store, worker: str) -> list[ClaimedJob]:
    """Claim in small bites until a few in a row find nothing (rows locked by others are passed over)."""
    lent: list[ClaimedJob] = []
    dry = 0
    while dry < 5:
        claims = lend(driver, worker, limit=7)
        lent.extend(claims)
        dry = 0 if claims else dry + 1
    return lent


def work_until_dry(driver: Store) -> list[str]:
    """Claim and complete until a few rounds find nothing; the ids whose completion was applied."""
    worker = join(driver)
    done: list[str] = []
    claims: tuple[ClaimedJob, ...] = ()
    dry = 0
    while dry < 5:
        said = [settlement(claim, Verb.COMPLETE) for claim in claims]
        reply = driver.settle_and_claim(worker, said, ["q"], slots=7, limit=7)
        done.extend(answer.id for answer in reply.settled if answer.status is SettleStatus.APPLIED)
        claims = reply.claimed
        dry = 0 if claims else dry + 1
    return done


def reclaim_until_dry(driver: Store) -> list[Reclaimed]:
    """Reclaim in small rounds until one finds nothing."""
    rounds = [driver.reclaim(7)]
    while rounds[-1].has_more or rounds[-1].jobs:
        rounds.append(driver.reclaim(7))
    return rounds
