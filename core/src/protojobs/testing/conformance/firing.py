"""Fire: a schedule moves on and the job of its time is stored, in one step, once; whoever comes late does nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from protojobs.errors import ProtojobsError
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import BATCH_BYTES_MAX, BATCH_JOBS_MAX, NewJob
from protojobs.port.schedules import FireStatus, Firing, Overlap, Schedule, SchedulePage
from protojobs.testing.conformance.enqueueing import until_answered
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.plans import (
    MICROSECOND,
    MINUTE,
    a_due_schedule,
    firing_of,
    job_id_of,
    new_schedule,
    outcomes,
    paused,
    schedule_of,
    store_schedule,
)
from protojobs.testing.conformance.steps import (
    all_jobs,
    fresh_ids,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    their_ids,
)
from protojobs.testing.conformance.waiting import rings

__all__ = ["FiringOnce"]

FIRED, SKIPPED, DUPLICATE, LOST = FireStatus.FIRED, FireStatus.SKIPPED, FireStatus.DUPLICATE, FireStatus.LOST

WAITING = ("pending", "delayed", "retrying", "moving")
LAST_JOBS = (*WAITING, "processing", "completed", "failed", "cancelled", "gone", "none")
HELD_UP = {Overlap.ALLOW: (), Overlap.SKIP: (*WAITING, "processing"), Overlap.QUEUE_ONE: WAITING}


@concern("firing")
class FiringOnce(Fixtures):
    """No time of a schedule fires twice, none is lost, and none is half fired."""

    def test_a_firing_stores_its_job_with_every_field(self, driver: Store, handles: Handles) -> None:
        schedule = a_due_schedule(driver)
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
            meta='{"schedule":"s"}',
            available_at=schedule.next_due_at,
        )
        before = driver.now()
        assert outcomes(driver, firing_of(schedule, job=job)) == [FIRED]
        seen = job_of(handles(), job.id)
        for field in ("id", "queue", "job_name", "job_class", "data", "priority", "max_retries", "available_at"):
            assert getattr(seen, field) == getattr(job, field), field
        for field in ("retry_delay", "retry_policy", "timeout", "meta"):
            assert getattr(seen, field) == getattr(job, field), field
        ends = (seen.reserved_by, seen.reserved_at, seen.processed_at)
        assert (seen.status, *ends) == (JobState.PENDING, "", None, None)
        assert (seen.attempts, seen.claim_seq, seen.crashes, seen.returns, seen.reclaims) == (0, 0, 0, 0, 0)
        assert before <= seen.created_at <= driver.now()

    def test_a_firing_moves_the_schedule_on(self, driver: Store, handles: Handles) -> None:
        schedule = a_due_schedule(driver)
        outcomes(driver, said := firing_of(schedule))
        assert schedule_of(handles(), "s") == moved(schedule, said)
        assert driver.due_schedules(10).schedules == (moved(schedule, said),)
        assert driver.stats("q").pending == driver.stats().total == 1

    def test_a_fired_job_is_lent_when_it_is_due(self, driver: Store, later: Later) -> None:
        schedule, ahead = a_due_schedule(driver), driver.now() + 10 * MINUTE
        now, then = firing_of(schedule), firing_of(schedule, passed=1, job=new_job(available_at=ahead))
        assert outcomes(driver, now, then) == [FIRED, FIRED]
        worker = join(driver)
        assert their_ids(lend(driver, worker)) == [job_id_of(now)]
        assert their_ids(lend(later(700), worker)) == [job_id_of(then)]

    def test_the_delay_of_a_fired_job_is_counted_from_the_stores_now(self, driver: Store) -> None:
        outcomes(driver, said := firing_of(a_due_schedule(driver), job=new_job(delay=100)))
        job = job_of(driver, job_id_of(said))
        assert job.available_at - job.created_at == timedelta(seconds=100)

    def test_times_that_were_missed_are_passed_over_in_the_step(self, driver: Store) -> None:
        schedule = a_due_schedule(driver)
        assert schedule.next_due_at is not None
        due = schedule.next_due_at + 5 * MINUTE
        said = replace(firing_of(schedule), due=due, next_due=due + MINUTE)
        assert outcomes(driver, said) == [FIRED]
        assert schedule_of(driver, "s") == moved(schedule, said)

    def test_a_time_without_a_job_is_passed_over(self, driver: Store) -> None:
        schedule = a_due_schedule(driver)
        first, second = firing_of(schedule), replace(firing_of(schedule, passed=1), job=None)
        assert outcomes(driver, first, second) == [FIRED, SKIPPED]
        after = moved(moved(schedule, first), second)
        assert after.last_job_id == job_id_of(first)
        assert schedule_of(driver, "s") == after
        assert driver.stats().total == 1

    def test_a_schedule_ends_with_its_last_time(self, driver: Store) -> None:
        schedule = a_due_schedule(driver)
        said = replace(firing_of(schedule), next_due=None)
        assert outcomes(driver, said) == [FIRED]
        assert schedule_of(driver, "s") == moved(schedule, said)
        assert driver.due_schedules(10).schedules == ()
        assert outcomes(driver, firing_of(schedule), firing_of(schedule, passed=1)) == [LOST, LOST]

    def test_a_firing_ends_the_wait(self, driver: Store, handles: Handles) -> None:
        other = handles()
        said = firing_of(a_due_schedule(driver))
        assert rings(driver, lambda: outcomes(other, said))

    @pytest.mark.parametrize("why", ["unknown", "expects less", "expects more", "paused", "ahead", "ended"])
    def test_a_firing_that_does_not_fit_its_schedule_does_nothing(self, driver: Store, why: str) -> None:
        now = driver.now()
        due = {"ahead": now + 5 * MINUTE, "ended": None}.get(why, now - 5 * MINUTE)
        if why != "unknown":
            store_schedule(driver, replace(new_schedule(due=due), is_paused=why == "paused"))
        before = driver.get_schedules(["s"])
        said = firing_of(new_schedule(due=due or now - MINUTE))
        if why.startswith("expects"):
            off = said.due + (MICROSECOND if why == "expects more" else -MICROSECOND)
            said = replace(said, expected_next=off, due=off + MINUTE, next_due=off + 2 * MINUTE)
        assert outcomes(driver, said) == [LOST]
        assert driver.get_schedules(["s"]) == before
        assert driver.stats().total == 0

    def test_a_firing_waits_for_its_time_and_not_only_for_the_schedules(self, driver: Store, later: Later) -> None:
        schedule = a_due_schedule(driver)
        due = driver.now() + 5 * MINUTE
        said = replace(firing_of(schedule), due=due, next_due=due + MINUTE)
        assert outcomes(driver, said) == [LOST]
        assert schedule_of(driver, "s") == schedule
        assert outcomes(later(400), said) == [FIRED]

    def test_a_firing_that_is_sent_again_does_nothing(self, driver: Store, handles: Handles) -> None:
        schedule = a_due_schedule(driver)
        outcomes(driver, said := firing_of(schedule))
        again = replace(said, job=new_job())
        assert outcomes(handles(), said, again) == [LOST, LOST]
        assert schedule_of(driver, "s") == moved(schedule, said)
        assert driver.stats().total == 1

    def test_no_time_at_or_before_the_last_one_fires(self, driver: Store) -> None:
        due = driver.now() - 9 * MINUTE
        last = due + 5 * MINUTE
        schedule = store_schedule(driver, replace(new_schedule(due=due), last_due_at=last))
        for early in (due, last - MICROSECOND, last):
            said = replace(firing_of(schedule), due=early, next_due=last + 2 * MINUTE)
            assert outcomes(driver, said) == [LOST]
        assert schedule_of(driver, "s") == schedule
        assert driver.stats().total == 0
        assert outcomes(driver, replace(said, due=last + MICROSECOND)) == [FIRED]

    @pytest.mark.parametrize("how", ["clear", "prune", "forget"])
    def test_a_firing_is_remembered_when_its_job_is_gone(self, driver: Store, later: Later, how: str) -> None:
        schedule = a_due_schedule(driver)
        outcomes(driver, said := firing_of(schedule))
        claim = only(lend(driver, join(driver)))
        settle(driver, claim, Verb.FAIL if how == "forget" else Verb.COMPLETE)
        acts: dict[str, Callable[[], object]] = {
            "clear": lambda: driver.clear("q"),
            "prune": lambda: later(1e6).prune(completed_older_than=10),
            "forget": lambda: driver.forget_failed([row.id for row in driver.failed().jobs]),
        }
        acts[how]()
        assert driver.get([job_id_of(said)]) == []
        assert outcomes(driver, said) == [LOST]
        current = schedule_of(driver, "s")
        assert current == moved(schedule, said)
        set_back = replace(current, next_due_at=said.expected_next)  # as a change of its spec may do
        assert driver.save_schedule(set_back, version=current.version) is True
        assert outcomes(driver, said) == [LOST]
        assert driver.stats().total == 0

    def test_a_pause_between_the_look_and_the_firing_holds(self, driver: Store, handles: Handles) -> None:
        a_due_schedule(driver)
        seen = only(driver.due_schedules(10).schedules)
        assert paused(handles(), seen) is True
        assert outcomes(driver, firing_of(seen)) == [LOST]
        assert driver.stats().total == 0
        resumed = replace(seen, is_paused=False)
        assert driver.save_schedule(resumed, version=seen.version + 1) is True
        assert outcomes(driver, firing_of(seen)) == [FIRED]

    def test_a_removal_between_the_look_and_the_firing_holds(self, driver: Store, handles: Handles) -> None:
        schedule = a_due_schedule(driver)
        handles().remove_schedule("s")
        assert outcomes(driver, firing_of(schedule)) == [LOST]
        assert (driver.stats().total, driver.get_schedules(["s"])) == (0, SchedulePage())

    @pytest.mark.parametrize("overlap", list(Overlap), ids=str)
    @pytest.mark.parametrize("last_job", LAST_JOBS)
    def test_the_job_before_it_decides_an_overlap(self, driver: Store, overlap: Overlap, last_job: str) -> None:
        before = store_schedule(
            driver,
            replace(new_schedule(due=driver.now() - MINUTE, overlap=overlap), last_job_id=a_job(driver, last_job)),
        )
        is_held_up = last_job in HELD_UP[overlap]
        outcome = outcomes(driver, said := firing_of(before))
        assert outcome == [SKIPPED if is_held_up else FIRED]
        after = moved(before, replace(said, job=None) if is_held_up else said)
        assert schedule_of(driver, "s") == after
        assert bool(driver.get([job_id_of(said)])) is not is_held_up

    def test_the_job_of_a_firing_in_the_same_call_decides_too(self, driver: Store) -> None:
        schedule = a_due_schedule(driver, overlap=Overlap.SKIP)
        first, second, third = (firing_of(schedule, passed=passed) for passed in range(3))
        assert outcomes(driver, first, second, third) == [FIRED, SKIPPED, SKIPPED]
        assert their_ids(all_jobs(driver)) == [job_id_of(first)]
        assert schedule_of(driver, "s").last_job_id == job_id_of(first)

    def test_what_was_held_up_fires_again_once_the_job_before_it_is_done(self, driver: Store) -> None:
        schedule = a_due_schedule(driver, overlap=Overlap.QUEUE_ONE)
        said = [firing_of(schedule, passed=passed) for passed in range(5)]
        worker = join(driver)
        assert outcomes(driver, said[0], said[1]) == [FIRED, SKIPPED]
        claim = only(lend(driver, worker))
        assert outcomes(driver, said[2], said[3]) == [FIRED, SKIPPED], "one runs, one waits"
        settle(driver, claim, Verb.COMPLETE)
        assert outcomes(driver, said[4]) == [SKIPPED]
        assert {job.id for job in all_jobs(driver)} == {job_id_of(said[0]), job_id_of(said[2])}

    def test_a_job_that_is_known_is_not_stored_again_and_the_schedule_moves_on(self, driver: Store) -> None:
        schedule = a_due_schedule(driver)
        outcome = outcomes(driver, said := firing_of(schedule, job=new_job("q", id=push(driver)[0], priority=9)))
        assert outcome == [DUPLICATE]
        assert schedule_of(driver, "s") == moved(schedule, said)
        assert [(job.id, job.priority) for job in all_jobs(driver)] == [(job_id_of(said), 0)]
        assert driver.stats("q").pending == driver.stats().total == 1

    def test_a_job_twice_in_one_call_is_stored_once(self, driver: Store) -> None:
        job = new_job()
        said = [firing_of(a_due_schedule(driver, name), job=job) for name in ("a", "b")]
        assert outcomes(driver, *said) == [FIRED, DUPLICATE]
        assert {schedule_of(driver, name).last_job_id for name in ("a", "b")} == {job.id}
        assert driver.stats().total == 1

    def test_what_is_held_up_is_passed_over_even_if_its_job_is_known(self, driver: Store) -> None:
        schedule = a_due_schedule(driver, overlap=Overlap.SKIP)
        outcomes(driver, first := firing_of(schedule))
        second = firing_of(schedule, passed=1, job=new_job(id=push(driver)[0]))
        assert outcomes(driver, second) == [SKIPPED]
        assert schedule_of(driver, "s").last_job_id == job_id_of(first)

    def test_several_are_answered_in_order(self, driver: Store) -> None:
        a, b, gone = (
            a_due_schedule(driver, "a"),
            a_due_schedule(driver, "b", overlap=Overlap.SKIP),
            new_schedule("gone", due=driver.now() - MINUTE),
        )
        said = (
            firing_of(b), firing_of(gone), firing_of(a), firing_of(b, passed=1), firing_of(a, passed=2),
            firing_of(a, passed=1), firing_of(a, passed=2), firing_of(a),
        )  # fmt: skip
        assert outcomes(driver, *said) == [FIRED, LOST, FIRED, SKIPPED, LOST, FIRED, FIRED, LOST]
        stored = {job_id_of(each) for each in (said[0], said[2], said[5], said[6])}
        assert {job.id for job in all_jobs(driver)} == stored
        assert (schedule_of(driver, "a").version, schedule_of(driver, "b").version) == (4, 3)
        assert schedule_of(driver, "a").last_job_id == job_id_of(said[6])

    def test_nothing_at_all_can_be_fired(self, driver: Store) -> None:
        assert driver.fire([]) == []

    def test_a_full_batch_is_fired(self, driver: Store) -> None:
        due = driver.now() - (BATCH_JOBS_MAX + 1) * MINUTE
        schedule = store_schedule(driver, new_schedule(due=due))
        said = [firing_of(schedule, passed=passed) for passed in range(BATCH_JOBS_MAX)]
        assert outcomes(driver, *said) == [FIRED] * BATCH_JOBS_MAX
        assert schedule_of(driver, "s").version == BATCH_JOBS_MAX + 1
        assert driver.stats("q").pending == BATCH_JOBS_MAX

    @pytest.mark.parametrize("what", ["due too early", "no step", "a step back", "too many", "too large"])
    def test_firings_that_no_store_should_take_are_refused_whole(self, driver: Store, what: str) -> None:
        schedule = a_due_schedule(driver)
        first, second = firing_of(schedule), firing_of(schedule, passed=1)
        large = new_job(data='"' + "é" * (BATCH_BYTES_MAX // 8) + '"')
        refused: dict[str, list[Firing]] = {
            "due too early": [replace(second, due=second.expected_next - MICROSECOND)],
            "no step": [replace(second, next_due=second.due)],
            "a step back": [replace(second, next_due=second.due - MINUTE)],
            "too many": [second] * BATCH_JOBS_MAX,
            "too large": [replace(second, job=replace(large, id=job_id)) for job_id in fresh_ids(4)],
        }
        with pytest.raises(ProtojobsError):
            driver.fire([first, *refused[what]])
        assert schedule_of(driver, "s") == schedule
        assert driver.stats().total == 0

    def test_cut_connections_lose_and_double_no_firing(self, driver: Store, disturb: Callable[[], None]) -> None:
        said = firing_of(a_due_schedule(driver))
        disturb()
        first = [answer.status for answer in until_answered(lambda: driver.fire([said]))]
        disturb()
        second = [answer.status for answer in until_answered(lambda: driver.fire([said]))]
        assert (first, second) in (([FIRED], [LOST]), ([LOST], [LOST])), "the first answer may have been cut off"
        assert their_ids(all_jobs(driver)) == [job_id_of(said)]


def moved(before: Schedule, said: Firing) -> Schedule:
    """The schedule as a firing leaves it that found it so."""
    last_job_id = said.job.id if said.job else before.last_job_id
    return replace(
        before,
        next_due_at=said.next_due,
        last_due_at=said.due,
        last_job_id=last_job_id,
        version=before.version + 1,
    )


def a_job(driver: Store, how: str) -> str | None:
    """The id of a job in that condition; None for none."""
    if how == "none":
        return None
    job_id = only(push(driver, new_job(delay=100 if how == "delayed" else 0)))
    endings = {"completed": Verb.COMPLETE, "failed": Verb.FAIL, "cancelled": Verb.CANCEL, "retrying": Verb.RETRY}
    if how in endings or how == "processing":
        claim = only(lend(driver, join(driver)))
        if how in endings:
            settle(driver, claim, endings[how])
    elif how == "moving":
        driver.export_jobs("token")
    elif how == "gone":
        driver.clear("q")
    return job_id
