"""A backlog of every kind of job, and what a store holds of it, field by field."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from msgspec.structs import asdict

from protojobs.entropy import fresh_id
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState
from protojobs.port.records import ExportedJob, FailedJob, JobFilter

_BEGAN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
_TEXTS = ("plain", "Ünïcödé – 漢字 🚚", 'quotes " and \\ and \n lines', "x" * 2_000, "")


def fill(store: Store, number: int, seed: int) -> None:
    """Store so many jobs: pending, scheduled, retrying and failed, with all that a job can have."""
    dice = random.Random(seed)
    jobs = [a_job(dice, n) for n in range(number)]
    for start in range(0, number, 500):
        store.import_jobs(jobs[start : start + 500])


def a_job(dice: random.Random, n: int) -> ExportedJob:
    status = JobState.FAILED if n % 5 == 0 else JobState.PENDING
    attempts = dice.randint(1, 5) if status is JobState.FAILED or n % 3 == 0 else 0
    created = _BEGAN + timedelta(microseconds=dice.randrange(10**12))
    job_id, name, queue = (
        fresh_id(),
        dice.choice(["mail.send", "näme", "x"]),
        dice.choice(["a", "b", "Emails", "émails"]),
    )
    data = f'{{"n":{n},"text":"{n % 7}"}}' if n % 2 else '"' + "y" * dice.randrange(1_000) + '"'
    ended = created + timedelta(days=1, microseconds=7) if status is JobState.FAILED else None
    failed = FailedJob(
        id=fresh_id(), job_id=job_id, queue=queue, job_class="shop.jobs.Any", job_name=name, data=data,
        attempts=attempts, exception=dice.choice(_TEXTS), failed_at=ended,
    ) if ended else None  # fmt: skip
    return ExportedJob(
        id=job_id, queue=queue, job_name=name, job_class="shop.jobs.Any", data=data, status=status,
        priority=dice.randint(-100, 100), attempts=attempts, max_retries=dice.randint(5, 9),
        retry_delay=dice.choice([0.0, 0.1, 60.0, 86400.5]), timeout=dice.choice([0.0, 1.25, 60.0]),
        retry_policy=dice.choice([None, '{"factor":1.5}']), meta=dice.choice([None, '{"trace":"00-ab-cd-01"}']),
        created_at=created, available_at=created + timedelta(seconds=dice.choice([0, 0, 10**9])),
        reserved_at=created + timedelta(seconds=3) if attempts else None, processed_at=ended, reserved_by="",
        claim_seq=attempts + dice.randint(0, 3), crashes=dice.randint(0, 2), returns=dice.randint(0, 9),
        reclaims=dice.randint(0, 2), progress=dice.choice([None, 0.5]) if attempts else None,
        reason=dice.choice([None, "shutdown"]), failed=failed,
    )  # fmt: skip


def contents(store: Store) -> dict[str, dict[str, object]]:
    """Every job by id, with its failed_jobs row. Fails on one that is found twice."""
    found: dict[str, dict[str, object]] = {}
    cursor: str | None = None
    while True:
        page = store.find(JobFilter(), limit=500, cursor=cursor)
        for job in page.jobs:
            assert job.id not in found, f"{job.id} is in the store twice"
            found[job.id] = {**asdict(job), "failed": None}
        if (cursor := page.cursor) is None:
            break
    while True:
        failures = store.failed(limit=500, cursor=cursor)
        for row in failures.jobs:
            assert found[row.job_id]["failed"] is None, f"{row.job_id} has failed twice"
            found[row.job_id]["failed"] = row
        if (cursor := failures.cursor) is None:
            return found
