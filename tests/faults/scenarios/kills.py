"""20,000 jobs, 4 workers of 8 slots, one of them killed every 2 s for 3 minutes, the server killed three times.

On SQLite, which has no server, the disk is full three times, and another process holds the write lock three times.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from ..crew import Crew
from ..figures import summed_up
from ..hurting import crash_store
from ..stage import Report, Stage

MINUTES = 3.0
JOBS_A_MINUTE = 6_667
WORKERS = 4
KILL_EVERY_S = 2.0
LEASE_S = 3.0
DRAIN_S = 180.0


def run(stage: Stage) -> Report:
    """See above; `--minutes` scales the time and the jobs."""
    minutes = stage.minutes or MINUTES
    count = round(JOBS_A_MINUTE * minutes)
    crew = Crew(stage.folder, lease_s=LEASE_S)
    try:
        crew.produce(stage.url, count=count, rate=count / (minutes * 60 - 5), executors="thread,async", push_timeout=30)
        for _ in range(WORKERS):
            crew.hire(stage.url)
        began = time.monotonic()
        crashes = [began + minutes * 60 * share for share in (0.25, 0.5, 0.75)]
        with ThreadPoolExecutor(1) as store_faults:  # workers die while the store is away, too
            while (now := time.monotonic()) < began + minutes * 60:
                if crashes and now >= crashes[0]:
                    crashes.pop(0)
                    struck = store_faults.submit(crash_store, stage, crew)
                crew.kill(stage.dice.choice(crew.at_work))
                while len(crew.at_work) < WORKERS:  # one that found no store at its start has ended, too
                    crew.hire(stage.url)
                stage.say(f"{now - began:3.0f} s: {len(crew.faults)} faults")
                time.sleep(KILL_EVERY_S)  # the pace of the faults
            struck.result()
        return summed_up(stage, crew, count, drain_s=DRAIN_S)
    finally:
        crew.dismiss()
