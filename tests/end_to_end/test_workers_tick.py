"""Schedules with workers alone (`protojobs worker`), which are killed and replaced: each time fires once, and runs."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from faults.crew import Crew, wait_for
from faults.history import End
from faults.times import every_second, rested
from protojobs import JobQueue, create_driver
from protojobs.protocols import Store

LEASE_S = 2.0
KILLS = 3
TIMES = 3  # between two kills
SOON_S = 30.0

APP = """
from protojobs import Cron, job

@job(name="shop.report", queue="work", cron=Cron("* * * * * *", misfire="all"))
def report(): ...
"""


def test_each_time_fires_once_though_the_workers_that_tick_are_killed(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    queue, crew, dice = JobQueue(store), Crew(tmp_path, lease_s=LEASE_S), random.Random(1)
    try:
        crew.hire(store_url)
        crew.hire(store_url)
        wait_for("the workers", lambda: len(crew.ready) == 2, SOON_S)
        registered = every_second(queue)
        for _ in range(KILLS):
            fired = len(crew.entries("schedule.fired"))
            wait_for("some times", lambda at=fired: len(crew.entries("schedule.fired")) >= at + TIMES, SOON_S)  # type: ignore[misc]
            crew.kill(dice.choice(crew.at_work))
            crew.hire(store_url)
        times = rested(queue, crew, registered, within_s=SOON_S)
        wait_for("all jobs to end", lambda: not _live(queue), SOON_S)
        ran = {entry["id"] for entry in crew.entries("finish") if entry["end"] == End.OK.value}
    finally:
        crew.dismiss()
    assert list(times.complaints()) == []
    assert len(times.jobs) >= KILLS * TIMES
    assert {job.id for _, job in times.jobs} == ran


def test_a_schedule_that_a_job_declares_is_fired_by_the_worker_that_runs_it(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    queue = JobQueue(create_driver(sqlite_url))
    queue.driver.setup()
    with open(tmp_path / "log", "wb") as log:
        command = [sys.executable, "-m", "protojobs", "--url", sqlite_url, "worker", "work", "--app", "shop"]
        worker = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for("three runs", lambda: queue.stats("work").completed >= 3, SOON_S)
        worker.terminate()
        assert worker.wait(SOON_S) == 0, (tmp_path / "log").read_text()
    finally:
        worker.kill()
    (schedule,) = queue.driver.get_schedules(["shop.report"])
    due = [datetime.fromisoformat(json.loads(job.meta or "{}")["due_at"]) for job in queue.find(limit=100).jobs]
    first = min(due)
    assert sorted(due) == [first + timedelta(seconds=number) for number in range(len(due))]
    assert schedule.last_due_at == max(due)
    queue.close()


def _live(queue: JobQueue) -> int:
    stats = queue.stats("work")
    return stats.pending + stats.processing
