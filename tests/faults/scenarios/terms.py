"""One of three workers gets SIGTERM every 3 s, with jobs shorter than the grace: none is cut, none runs twice."""

from __future__ import annotations

import time

from ..crew import Crew, wait_for
from ..figures import summed_up
from ..history import End
from ..stage import Report, Stage

MINUTES = 1.0
WORKERS = 3
TERM_EVERY_S = 3.0
LONGEST_S = 1.5
MARGIN_S = 1.0  # beyond the longest job, for the whole stop
LEASE_S = 3.0
STOP_S = 30.0


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    crew = Crew(stage.folder, lease_s=LEASE_S)
    took: list[float] = []
    try:
        for _ in range(WORKERS):
            crew.hire(stage.url)
        count = round(25 * seconds)
        crew.produce(stage.url, count=count, rate=27, takes_s=LONGEST_S, calm=1, executors="thread,async")
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            time.sleep(TERM_EVERY_S)  # the pace of the faults, no wait for anything
            crew.hire(stage.url)
            wait_for("a worker that has begun", lambda: crew.ready, STOP_S)
            took.append(crew.stop(crew.ready[0], within_s=STOP_S))
        report = summed_up(stage, crew, count, drain_s=60)
    finally:
        crew.dismiss()
    cuts = [entry for entry in crew.entries("finish") if entry["end"] == End.CUT.value]
    report.complaints += [f"{entry['id']} was cut" for entry in cuts]
    report.complaints += [f"a worker took {s:.2f} s to stop" for s in took if s > LONGEST_S + MARGIN_S]
    report.figures |= {"cut": len(cuts), "slowest stop in s": round(max(took), 2)}
    return report
