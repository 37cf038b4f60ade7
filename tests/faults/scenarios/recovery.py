"""A light load, and a worker killed every few seconds: how soon do its jobs run again? At most lease + 2 s (p99)."""

from __future__ import annotations

import time

from ..crew import Crew
from ..figures import percentile, recoveries, summed_up
from ..stage import Report, Stage

MINUTES = 2.0
WORKERS = 3
LEASE_S = 3.0
KILL_EVERY_S = 8.0  # so that jobs end between two kills: those which lose two workers are suspects, and wait longer
JOBS_A_SECOND = 12
TAKES_S = 2.0


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    count = round(JOBS_A_SECOND * seconds)
    crew = Crew(stage.folder, lease_s=LEASE_S)
    try:
        for _ in range(WORKERS):
            crew.hire(stage.url)
        crew.produce(stage.url, count=count, rate=JOBS_A_SECOND, batch=1, takes_s=TAKES_S, calm=1)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            time.sleep(KILL_EVERY_S)  # the pace of the faults
            crew.kill(stage.dice.choice(crew.at_work))
            crew.hire(stage.url)
        report = summed_up(stage, crew, count, drain_s=60)
        with stage.queue() as queue:
            took, _ = recoveries(crew.history(queue))
    finally:
        crew.dismiss()
    if percentile(took, 99) > LEASE_S + 2:
        report.complaints.append(f"recovery took {percentile(took, 99):.2f} s (p99), more than lease + 2 s")
    return report
