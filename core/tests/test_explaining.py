"""Each reason why a job is not running, and what is said of one that runs or has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from protojobs import JobQueue
from protojobs.doctor.explaining import Check, Explanation, explain
from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import CRASHES_MAX, RETURNS_FREE, JobState, Verb
from protojobs.port.records import ClaimedJob, JobRecord, NewJob, Settlement, WorkerInfo
from protojobs.port.unreadable_rows import read
from protojobs.testing import ManualClock
from protojobs.testing.conformance.steps import join, lend, new_job, push, settle
from protojobs_memory import MemoryDriver

if TYPE_CHECKING:
    from protojobs.port.driver import Store

Make = Callable[..., JobQueue]


def worker(driver: Store, *queues: str, concurrency: int = 1, host: str = "here") -> str:
    """Register one that serves these queues."""
    made = WorkerInfo(
        id=fresh_id(), host=host, pid=7, queues=queues or ("q",), concurrency=concurrency, lease_s=60.0
    )  # fmt: skip
    driver.register(made)
    return made.id


def said(explanation: Explanation, code: str) -> Check:
    return next(check for check in explanation.checks if check.code == code)


def failed_codes(explanation: Explanation) -> list[str]:
    return [check.code for check in explanation.checks if not check.passed]


def release(driver: Store, claim: ClaimedJob, reason: str, delay: float = 0.0) -> None:
    driver.settle(
        [Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.RELEASE,
                    reason=reason, delay=delay)]
    )  # fmt: skip


def die_of_it(driver: Store, clock: ManualClock, times: int) -> None:
    """So often a worker claims the one job and is not heard of again."""
    for _ in range(times):
        lend(driver, join(driver, lease_s=10.0))
        clock.advance(11)
        driver.reclaim(10)


# ------------------------------------------------------------------------------------------------ what stands before it


def test_an_id_that_is_not_stored(queue: JobQueue) -> None:
    found = explain(queue, "no-such-id")
    assert (found.state, found.code) == (None, "exists")
    assert failed_codes(found) == ["exists"]
    assert "protojobs jobs list" in found.mend


def test_a_job_with_nothing_in_its_way(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    worker(queue.driver)
    found = explain(queue, job)
    assert (found.state, found.code, failed_codes(found)) == (JobState.PENDING, "runnable", [])
    # in the order in which a claim decides
    assert [check.code for check in found.checks] == [
        *("exists", "pending", "queue_active", "due", "worker_alive", "worker_listens", "slot_free"),
        *("first_in_line", "name_known", "not_poison"),
    ]


def test_its_queue_is_paused(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    worker(queue.driver)
    queue.pause("q")
    found = explain(queue, job)
    assert found.code == "queue_active"
    assert found.mend == "protojobs queues resume q"


def test_a_queues_name_cannot_add_words_to_the_command_that_mends(queue: JobQueue) -> None:
    (job,) = push(queue.driver, new_job("q; $(reboot)"))
    queue.pause("q; $(reboot)")
    assert explain(queue, job).mend == "protojobs queues resume 'q; $(reboot)'"


def test_the_queue_is_found_among_many_of_like_names(queue: JobQueue) -> None:
    push(queue.driver, *[new_job(f"tenant-{number:04}") for number in range(700)])
    (job,) = push(queue.driver, new_job("tenant-0650"))
    queue.pause("tenant-0650")
    assert explain(queue, job).code == "queue_active"


def test_it_is_not_due_yet(queue: JobQueue) -> None:
    (job,) = push(queue.driver, new_job(delay=90.0))
    worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "due"
    assert "in 90.0 s" in found.verdict
    assert "first_in_line" not in [check.code for check in found.checks]


def test_its_last_attempt_failed_and_the_next_one_waits(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    (claim,) = lend(queue.driver, worker(queue.driver))
    settle(queue.driver, claim, Verb.RETRY, delay=60.0)
    found = explain(queue, job)
    assert found.code == "due"
    assert "attempt 1 has failed" in found.verdict


def test_it_was_given_back_until_later(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    (claim,) = lend(queue.driver, worker(queue.driver))
    release(queue.driver, claim, "transform", delay=30.0)
    found = explain(queue, job)
    assert found.code == "due"
    assert "given back (transform)" in found.verdict


def test_no_worker_is_alive(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    assert explain(queue, job).code == "worker_alive"


def test_a_worker_whose_lease_has_ended_is_not_alive(queue: JobQueue, clock: ManualClock) -> None:
    (job,) = push(queue.driver)
    worker(queue.driver)
    clock.advance(61)
    assert explain(queue, job).code == "worker_alive"


def test_no_worker_serves_its_queue(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    worker(queue.driver, "emails", "reports")
    found = explain(queue, job)
    assert found.code == "worker_listens"
    assert '"emails", "reports"' in found.verdict
    assert found.mend == "protojobs worker q --app your.module"


def test_all_slots_are_busy(queue: JobQueue) -> None:
    push(queue.driver)
    lend(queue.driver, worker(queue.driver), limit=1)
    (job,) = push(queue.driver)
    found = explain(queue, job)
    assert found.code == "slot_free"
    assert "1 job for 1 slot" in found.verdict


def test_a_last_attempt_is_lent_to_a_free_slot_only(queue: JobQueue) -> None:
    push(queue.driver)
    lend(queue.driver, worker(queue.driver), limit=1)
    (job,) = push(queue.driver, new_job(max_retries=0))
    assert "last attempt" in said(explain(queue, job), "slot_free").words


def test_jobs_come_before_it(queue: JobQueue, clock: ManualClock) -> None:
    push(queue.driver, new_job(priority=5), new_job(priority=5, delay=60.0), new_job(priority=-5))
    clock.advance(1)
    (job,) = push(queue.driver)
    push(queue.driver, new_job(available_at=clock.now()))
    worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "first_in_line"
    assert found.verdict.startswith("1 due job of its queue comes before it")


def test_its_worker_serves_other_queues_first(queue: JobQueue) -> None:
    push(queue.driver)
    (job,) = push(queue.driver)
    worker(queue.driver, "vip", "q")
    assert 'serve "vip" before this queue' in explain(queue, job).verdict


def test_a_driver_that_tells_no_place_in_the_line(make_queue: Make, clock: ManualClock) -> None:
    class Silent(MemoryDriver):
        in_front = None  # type: ignore[assignment]

    queue = make_queue(Silent(clock=clock))
    push(queue.driver)
    clock.advance(5)
    (job,) = push(queue.driver)
    worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "first_in_line"
    assert found.verdict.startswith("1 due job or more")


def test_no_worker_that_took_it_knows_its_name(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    (claim,) = lend(queue.driver, worker(queue.driver))
    release(queue.driver, claim, "unknown_name", delay=4.0)
    found = explain(queue, job)
    assert failed_codes(found) == ["due", "name_known"]  # that it waits is the consequence
    assert found.code == "name_known"
    assert "tests.Job" in found.mend


def test_its_data_does_not_decode_in_the_worker_that_took_it(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    by = worker(queue.driver)
    release(queue.driver, lend(queue.driver, by)[0], "undecodable", delay=4.0)
    found = explain(queue, job)
    assert failed_codes(found) == ["due", "data_decodes"]
    assert found.code == "data_decodes"


def test_a_name_that_was_unknown_once_is_no_trouble_any_more(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    by = worker(queue.driver)
    release(queue.driver, lend(queue.driver, by)[0], "unknown_name")
    settle(queue.driver, lend(queue.driver, by)[0], Verb.RETRY)
    assert explain(queue, job).code == "runnable"


def test_a_suspect_is_called_one(queue: JobQueue, clock: ManualClock) -> None:
    (job,) = push(queue.driver)
    die_of_it(queue.driver, clock, 2)
    worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "runnable"
    assert "It is a suspect" in said(found, "not_poison").words


def test_a_job_that_kills_its_workers_is_not_run_again(queue: JobQueue, clock: ManualClock) -> None:
    (job,) = push(queue.driver, new_job(max_retries=RETURNS_FREE))
    die_of_it(queue.driver, clock, 2 + CRASHES_MAX)
    worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "not_poison"
    assert f"{CRASHES_MAX} times" in found.verdict


# ------------------------------------------------------------------------------------------------ running, and ended


def run_one(driver: Store, *jobs: NewJob) -> tuple[str, str]:
    """(job, worker)"""
    (job,) = push(driver, *jobs)
    holder = worker(driver)
    lend(driver, holder)
    return job, holder


def test_a_running_job_names_its_worker(queue: JobQueue, clock: ManualClock) -> None:
    job, holder = run_one(queue.driver)
    clock.advance(30)
    found = explain(queue, job)
    assert (found.state, found.code) == (JobState.PROCESSING, "processing")
    assert holder in found.verdict
    assert "(here, process 7)" in found.verdict
    assert "for 30.0 s" in found.verdict


def test_a_running_job_may_lie_ready_in_its_worker(queue: JobQueue) -> None:
    push(queue.driver)
    job, _ = run_one(queue.driver)
    assert "2 jobs for 1 slot" in explain(queue, job).mend


def test_a_running_job_that_was_asked_to_cancel(queue: JobQueue) -> None:
    job, _ = run_one(queue.driver)
    queue.cancel(job)
    assert explain(queue, job).code == "cancel_requested"


def test_a_run_beyond_its_timeout(queue: JobQueue, clock: ManualClock) -> None:
    job, holder = run_one(queue.driver)
    for _ in range(4):
        clock.advance(50)
        queue.driver.heartbeat(holder, {})
    found = explain(queue, job)
    assert found.code == "in_time"
    assert "timeout of 60 s" in found.verdict


@pytest.mark.parametrize(("is_alone", "words"), [(True, "no living worker"), (False, "takes it back within seconds")])
def test_a_running_job_whose_worker_beats_no_more(
    queue: JobQueue, clock: ManualClock, is_alone: bool, words: str
) -> None:
    job, _ = run_one(queue.driver)
    clock.advance(61)
    if not is_alone:
        worker(queue.driver)
    found = explain(queue, job)
    assert found.code == "worker_alive"
    assert "not been heard of for 61.0 s" in found.verdict
    assert words in found.verdict
    assert bool(found.mend) is is_alone


def test_a_running_job_whose_worker_has_left(queue: JobQueue) -> None:
    job, holder = run_one(queue.driver)
    queue.driver.leave(holder)
    found = explain(queue, job)
    assert found.code == "worker_alive"
    assert f"({holder}) is gone" in found.verdict


@pytest.mark.parametrize(
    ("verb", "words"),
    [(Verb.COMPLETE, "It completed at"), (Verb.FAIL, "after 1 attempt: Traceback"), (Verb.CANCEL, "It was cancelled")],
)
def test_a_finished_job_tells_how_it_ended(queue: JobQueue, verb: Verb, words: str) -> None:
    (job,) = push(queue.driver)
    (claim,) = lend(queue.driver, worker(queue.driver))
    settle(queue.driver, claim, verb)
    found = explain(queue, job)
    assert found.state is not None
    assert found.code == found.state.value
    assert words in found.verdict
    assert failed_codes(found) == ["pending"]


def test_a_failed_job_is_retried_by_its_failed_id(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    (claim,) = lend(queue.driver, worker(queue.driver))
    settle(queue.driver, claim, Verb.FAIL)
    (row,) = queue.failed_jobs()
    assert explain(queue, job).mend.endswith(f"protojobs failed retry {row.id}")


def test_a_job_on_its_way_to_another_store(queue: JobQueue) -> None:
    (job,) = push(queue.driver)
    queue.driver.export_jobs("move")
    found = explain(queue, job)
    assert (found.state, found.code) == (JobState.MOVING, "moving")
    assert "protojobs transfer" in found.mend


# ------------------------------------------------------------------------------------------------ bounds


class Counting(MemoryDriver):
    """Counts the questions that are asked of it."""

    asked = 0

    def __getattribute__(self, name: str) -> object:
        if name in {"get", "now", "queues", "workers", "in_front", "find", "failed", "stats", "get_failed"}:
            object.__setattr__(self, "asked", object.__getattribute__(self, "asked") + 1)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("verbs", [(), (Verb.FAIL,)])
def test_it_asks_a_bounded_number_of_questions(make_queue: Make, clock: ManualClock, verbs: Sequence[Verb]) -> None:
    driver = Counting(clock=clock)
    queue = make_queue(driver)
    push(driver, *[new_job() for _ in range(1_000)])
    claims = lend(driver, worker(driver), limit=900)
    for verb in verbs:
        for claim in claims:
            settle(driver, claim, verb)
    driver.asked = 0
    explain(queue, claims[0].id if verbs else push(driver)[0])
    assert 0 < driver.asked <= 8


def test_nothing_from_the_store_makes_a_sentence_long(queue: JobQueue) -> None:
    (job,) = push(queue.driver, new_job("x" * 10_000, job_name="y" * 10_000))
    worker(queue.driver, "z" * 10_000)
    assert max(len(check.words) for check in explain(queue, job).checks) < 600


# ------------------------------------------------------------------------------------------------ rows that were spoilt


class Spoilt(MemoryDriver):
    """A store into which a foreign hand has written these values."""

    values: dict[str, object] = {}

    def get(self, ids: Sequence[str]) -> list[JobRecord]:
        return [read(JobRecord, structs.asdict(job) | self.values) for job in super().get(ids)]


def test_a_row_that_a_claim_will_set_aside(make_queue: Make, clock: ManualClock) -> None:
    queue = make_queue(driver := Spoilt(clock=clock))
    (job,) = push(driver)
    worker(driver)
    driver.values = {"timeout": "soon"}
    found = explain(queue, job)
    assert (found.state, found.code) == (JobState.PENDING, "readable")
    assert "timeout is 'soon', not a number of seconds. The claim that meets it sets it aside" in found.verdict
    assert job in found.mend


def test_a_state_that_nobody_knows(make_queue: Make, clock: ManualClock) -> None:
    queue = make_queue(driver := Spoilt(clock=clock))
    (job,) = push(driver)
    driver.values = {"status": "sleeping"}
    found = explain(queue, job)
    assert (found.state, found.code) == (JobState.UNREADABLE, "unreadable")
    assert "status is 'sleeping', not a state" in found.verdict
    assert f"protojobs jobs cancel {job}" in found.mend
