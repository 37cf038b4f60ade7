"""Many at once: whatever the timing, two live claims of one job never exist, and no time of a schedule fires twice."""

from __future__ import annotations

from collections import Counter
from functools import partial

from msgspec.structs import replace

from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Heartbeat, Reclaimed, SettleStatus
from protojobs.port.schedules import FireStatus, Firing
from protojobs.testing.conformance.fixtures import Fixtures, Handles
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.plans import (
    MINUTE,
    TIMES,
    a_due_schedule,
    all_schedules,
    firing_of,
    job_id_of,
    outcomes,
    paused,
    schedule_of,
)
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
TICKERS = 10
FIRED, LOST = FireStatus.FIRED, FireStatus.LOST


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

    def test_a_worker_settles_beside_its_own_claim(self, driver: Store) -> None:
        """Two calls of one worker at once, as core makes them where a driver has `concurrent_calls`."""
        ids, worker = push(driver, *[new_job() for _ in range(JOBS)]), join(driver)
        first = lend(driver, worker, limit=JOBS // 2)
        settled: list[SettleStatus] = []

        def settle_in_bites() -> list[ClaimedJob]:
            for start in range(0, len(first), 7):
                done = [settlement(claim, Verb.COMPLETE) for claim in first[start : start + 7]]
                settled.extend([reply.status for reply in driver.settle(done)])
            return first

        lent = all_well(at_once(settle_in_bites, partial(claim_until_dry, driver, worker)))
        assert Counter(claim.id for claims in lent for claim in claims) == Counter(ids)
        assert settled == [SettleStatus.APPLIED] * (JOBS // 2)
        stats = driver.stats("q")
        assert (stats.completed, stats.processing) == (JOBS // 2, JOBS - JOBS // 2)

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

    def test_of_many_that_fire_one_time_at_once_one_does(self, handles: Handles) -> None:
        drivers = [handles() for _ in range(TICKERS)]
        schedule = a_due_schedule(drivers[0])
        for passed in range(5):
            said = [firing_of(schedule, passed=passed) for _ in drivers]  # each with a job of its own
            fires = [partial(outcomes, each, firing) for each, firing in zip(drivers, said, strict=True)]
            answers = [answer for (answer,) in all_well(at_once(*fires))]
            assert Counter(answers) == {FIRED: 1, LOST: TICKERS - 1}
            assert schedule_of(drivers[0], "s").last_job_id == job_id_of(said[answers.index(FIRED)])
        assert drivers[0].stats().total == 5

    def test_many_that_fire_all_that_is_due_fire_each_time_once(self, handles: Handles) -> None:
        drivers = [handles() for _ in range(TICKERS)]
        names = ("a", "b", "c")
        dues = {name: a_due_schedule(drivers[0], name).next_due_at for name in names}
        stories = [partial(fire_until_dry, each) for each in drivers]
        fired = [said for each in all_well(at_once(*stories)) for said in each]
        times = {(name, due + passed * MINUTE) for name, due in dues.items() if due for passed in range(TIMES)}
        assert Counter((said.id, said.due) for said in fired) == Counter(times)
        assert {job.id for job in all_jobs(drivers[0])} == {job_id_of(said) for said in fired}

    def test_a_pause_and_a_firing_at_once_never_both_win(self, driver: Store, handles: Handles) -> None:
        firing, pausing = handles(), handles()
        for name in map(str, range(10)):
            schedule = a_due_schedule(driver, name)
            fire, pause = partial(outcomes, firing, firing_of(schedule)), partial(paused, pausing, schedule)
            answers = all_well(at_once(fire, pause))
            after = schedule_of(driver, name)
            assert answers == ([[LOST], True] if after.is_paused else [[FIRED], False])
            assert after.version == 2
        assert driver.stats().total == sum(not schedule.is_paused for schedule in all_schedules(driver))


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


def fire_until_dry(driver: Store) -> list[Firing]:
    """Fire until nothing is due, each schedule up to its last of `TIMES`; the firings that were answered with FIRED."""
    fired: list[Firing] = []
    while schedules := driver.due_schedules(10).schedules:
        said = [
            replace(firing_of(schedule), next_due=None) if schedule.version == TIMES else firing_of(schedule)
            for schedule in schedules
        ]
        fired.extend(each for each, status in zip(said, outcomes(driver, *said), strict=True) if status is FIRED)
    return fired
