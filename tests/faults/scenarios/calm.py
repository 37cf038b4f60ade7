"""10,000 jobs and no fault; 2 % of them outlast two leases. Nothing may run twice."""

from __future__ import annotations

from ..crew import Crew
from ..figures import summed_up
from ..stage import Report, Stage

JOBS = 10_000
WORKERS = 4
LEASE_S = 3.0
DRAIN_S = 180.0


def run(stage: Stage) -> Report:
    """See above; `--minutes` scales the jobs, from one minute."""
    count = round(JOBS * (stage.minutes or 1.0))
    crew = Crew(stage.folder, lease_s=LEASE_S)
    try:
        for _ in range(WORKERS):
            crew.hire(stage.url)
        crew.produce(
            stage.url,
            count=count,
            rate=400,
            takes_s=0.02,
            long_s=2 * LEASE_S + 1,
            long_share=0.02,
            calm=1,
            executors="thread,thread,thread,async",
        )
        return summed_up(stage, crew, count, drain_s=DRAIN_S)
    finally:
        crew.dismiss()
