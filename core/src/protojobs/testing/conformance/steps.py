"""Short words for the steps that most tests take. Nothing but the public port stands behind them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import (
    ClaimedJob,
    FailedJob,
    Fence,
    JobFilter,
    JobRecord,
    LostJob,
    NewJob,
    Settled,
    Settlement,
    SettleStatus,
    WorkerInfo,
)

__all__ = [
    "LEASE_S",
    "SETTLING",
    "all_failed",
    "all_jobs",
    "all_well",
    "at_once",
    "exactly",
    "fence_of",
    "fresh_ids",
    "job_of",
    "join",
    "lend",
    "new_job",
    "only",
    "push",
    "settle",
    "settlement",
    "their_ids",
]

LEASE_S = 60.0
PATIENCE_S = 60.0  # what a test waits for its own threads before it calls them stuck

SETTLING = (Verb.COMPLETE, Verb.RETRY, Verb.FAIL, Verb.SNOOZE, Verb.RELEASE, Verb.CANCEL)

Answer = TypeVar("Answer")
Thing = TypeVar("Thing")


def only(things: Iterable[Thing]) -> Thing:
    """The one thing that there is; else the test fails, and shows what there is."""
    return exactly(1, things)[0]


def exactly(count: int, things: Iterable[Thing]) -> list[Thing]:
    """So many things, as there are; else the test fails, and shows what there is."""
    found = list(things)
    assert len(found) == count, f"wanted {count}, got {len(found)}: {found}"
    return found


def fresh_ids(count: int) -> list[str]:
    """New ids, ascending."""
    return sorted(fresh_id() for _ in range(count))


def new_job(  # noqa: PLR0913  a job has many sides, and a test names the one that it is about
    queue: str = "q",
    *,
    id: str | None = None,
    data: str = '{"n":1}',
    job_name: str = "tests.job",
    priority: int = 0,
    max_retries: int = 3,
    delay: float = 0.0,
    available_at: datetime | None = None,
) -> NewJob:
    """A job as core would make it."""
    return NewJob(
        id=id or fresh_id(),
        queue=queue,
        job_name=job_name,
        job_class="tests.Job",
        data=data,
        priority=priority,
        max_retries=max_retries,
        delay=delay,
        available_at=available_at,
    )


def push(driver: Store, *jobs: NewJob) -> list[str]:
    """Store the jobs (without any: one of the queue `q`); their ids."""
    batch = jobs or (new_job(),)
    return [answer.id for answer in driver.enqueue(batch)]


def join(driver: Store, *, isolates: bool = False, lease_s: float = LEASE_S, id: str | None = None) -> str:
    """Register a worker; its id."""
    worker = id or fresh_id()
    driver.register(
        WorkerInfo(id=worker, host="host", pid=1, queues=("q",), concurrency=10, lease_s=lease_s, isolates=isolates)
    )
    return worker


def lend(driver: Store, worker: str, *queues: str, slots: int = 100, limit: int = 100) -> list[ClaimedJob]:
    """Claim from the queues (without any: from `q`)."""
    return driver.claim(worker, queues or ("q",), slots=slots, limit=limit)


def settlement(claim: ClaimedJob, verb: Verb) -> Settlement:
    """What the holder of the claim says."""
    return Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=verb)


def settle(driver: Store, claim: ClaimedJob, verb: Verb, *, delay: float = 0.0) -> Settled:
    """Settle one claim, and expect that it is accepted."""
    said = Settlement(
        id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=verb, delay=delay, error="Traceback"
    )
    answer = only(driver.settle([said]))
    assert answer.status is SettleStatus.APPLIED
    return answer


def fence_of(claim: ClaimedJob) -> Fence:
    """The claim's three marks."""
    return Fence(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by)


def job_of(driver: Store, job_id: str) -> JobRecord:
    """The job as it stands in the store."""
    job = only(driver.get([job_id]))
    return job


def their_ids(jobs: Sequence[ClaimedJob | JobRecord | LostJob]) -> list[str]:
    """The ids of the jobs, in order."""
    return [job.id for job in jobs]


def all_jobs(driver: Store, which: JobFilter | None = None, *, limit: int = 50) -> list[JobRecord]:
    """All that `find` shows, page by page."""
    jobs: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page = driver.find(which or JobFilter(), limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        jobs.extend(page.jobs)
        cursor = page.cursor
        if cursor is None:
            return jobs


def all_failed(driver: Store, queue: str | None = None, *, limit: int = 50) -> list[FailedJob]:
    """All rows of failed_jobs, page by page."""
    jobs: list[FailedJob] = []
    cursor: str | None = None
    while True:
        page = driver.failed(queue=queue, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        jobs.extend(page.jobs)
        cursor = page.cursor
        if cursor is None:
            return jobs


def at_once(*calls: Callable[[], Answer]) -> list[Answer | Exception]:
    """Run the calls in as many threads, started together; what each returned, or raised."""
    answers: dict[int, Answer | Exception] = {}
    start = threading.Barrier(len(calls))

    def run(place: int, call: Callable[[], Answer]) -> None:
        start.wait(PATIENCE_S)
        try:
            answers[place] = call()
        except Exception as error:  # noqa: BLE001  the test looks at it
            answers[place] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    pace = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # else a race between two threads of a few microseconds' work would hardly ever show
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a call to the driver did not come back"
    finally:
        sys.setswitchinterval(pace)
    return [answers[place] for place in range(len(calls))]


def all_well(answers: list[Answer | Exception]) -> list[Answer]:
    """The answers, none of which may be an exception."""
    well: list[Answer] = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        well.append(answer)
    return well
