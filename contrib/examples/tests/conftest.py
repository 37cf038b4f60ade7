"""What the tests of the examples share: a queue in memory, and a way to run one job through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from protojobs import JobQueue, create_driver
from protojobs.port.records import FailedJob, JobRecord
from protojobs_examples.mail_catcher import MailCatcher


class OneJob:
    """What became of a job: its record, its failed row if it has one, and its result if it has completed."""

    def __init__(self, record: JobRecord, failed: FailedJob | None, result: object) -> None:
        self.record = record
        self.failed = failed
        self.result = result
        self.status = str(record.status)


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    driver = create_driver("memory://")
    driver.setup()
    yield JobQueue(driver, {"concurrency": 1})
    driver.close()


@pytest.fixture
def run(queue: JobQueue) -> Iterator[Callable[..., OneJob]]:
    """`run(job, data)`: push it, work until nothing is due, and look at what became of it."""
    from protojobs import events

    results: dict[str, object] = {}

    def keep(event: events.JobProcessed) -> None:
        results[event.job_id] = event.result

    def run_one(job: object, data: object) -> OneJob:
        job_id = queue.push(job, data)
        record = queue.get(job_id)
        assert record is not None
        queue.work(record.queue, 20)
        record = queue.get(job_id)
        assert record is not None
        failed = next((one for one in queue.failed_jobs() if one.job_id == job_id), None)
        return OneJob(record, failed, results.get(job_id))

    events.on("job.processed", keep)
    yield run_one
    events.off("job.processed", keep)


@pytest.fixture
def catcher() -> Iterator[MailCatcher]:
    refusals = {
        "busy@example.com": ["451 4.3.2 try again later"],
        "gone@example.com": ["550 5.1.1 no such mailbox"] * 9,
    }
    with MailCatcher(refusals) as catcher:
        yield catcher
