"""A job that calls os.fork(): its copy of the process runs no other job, answers for none, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import forking_jobs
import pytest
from crew import Crew, wait_for

from protojobs import JobQueue, create_driver

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no fork elsewhere")

COUNTS = 30
FORKS = {
    "thread": (forking_jobs.forks_in_a_thread, forking_jobs.count_in_a_thread),
    "process": (forking_jobs.forks_in_a_child, forking_jobs.count_in_a_child),
    "async": (forking_jobs.forks_on_the_loop, forking_jobs.count_on_the_loop),
}


@pytest.mark.parametrize("where", list(FORKS))
def test_a_copy_that_a_job_makes_runs_nothing_else_and_ends(
    make_store_url: Callable[[str], str], tmp_path: Path, where: str
) -> None:
    url = make_store_url("sqlite")
    queue = JobQueue(create_driver(url))
    queue.driver.setup()
    forks, counts = FORKS[where]
    ids = [queue.push(forks.bind(ends)) for ends in ("by returning", "by sys.exit", "by an exception")]
    queue.push_many(counts.bind(number) for number in range(COUNTS))
    crew = Crew(url, tmp_path, lease_s=60)
    worker = subprocess.Popen(
        [sys.executable, "-m", "protojobs", "worker", "work", "--app", "forking_jobs", "--stop-when-empty"],
        cwd=tmp_path,
        env={**os.environ, "PROTOJOBS_URL": url, "PYTHONPATH": str(Path(__file__).parent), "PROTOJOBS_CONCURRENCY": "1",
             "FORKING_JOURNAL": str(crew.journal)},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    crew.members.append(worker)
    copies: list[int] = []
    try:
        assert worker.wait(60) == 0
        copies += [int(str(entry["pid"])) for entry in crew.entries("copy")]
        assert len(copies) == len(ids)
        wait_for("the copies' end", lambda: not any(is_alive(pid) for pid in copies))
    finally:
        crew.dismiss()
        for pid in copies:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
    assert Counter(entry["number"] for entry in crew.entries("ran")) == Counter(range(COUNTS))
    assert {(record.status, record.attempts) for one in ids if (record := queue.get(one))} == {("completed", 1)}
    assert queue.stats("work").completed == COUNTS + len(ids)
    queue.driver.close()


def is_alive(pid: int) -> bool:
    """Whether the process is there, and not only its entry in the table."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
