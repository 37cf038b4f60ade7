"""Many processes on one queue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from crew import Crew
from worker_process import count

from protojobs import JobQueue
from protojobs.port.driver import Store

PROCESSES, JOBS = 10, 5_000


@pytest.mark.faults  # run by `python3 dev.py faults --short`
def test_ten_processes_run_each_of_5000_jobs_exactly_once(store: Store, store_url: str, tmp_path: Path) -> None:
    queue = JobQueue(store)
    queue.push_many(count.bind(number) for number in range(JOBS))
    crew = Crew(store_url, tmp_path, lease_s=60)
    try:
        for _ in range(PROCESSES):
            crew.hire(until_empty=True)
        for member in crew.members:
            assert member.wait(120) == 0
    finally:
        crew.dismiss()
    ran = crew.entries("ran")
    assert Counter(entry["number"] for entry in ran) == Counter(range(JOBS))
    assert {entry["claim_seq"] for entry in ran} <= {1, 2}  # 2: fetched ahead, given back unrun, lent again
    stats = queue.stats("work")
    assert (stats.completed, stats.total) == (JOBS, JOBS)
