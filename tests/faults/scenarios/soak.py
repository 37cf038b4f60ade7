"""For a long time: jobs that fail, leak, crash, fork and hold sessions, while workers are killed and the store too.

Four workers: one that nothing is done to, which must stay level in memory, threads, descriptors and children; two that
the nemesis strikes; and one with a memory limit, whose jobs leak, under a supervisor. After the faults the checker
looks for what was lost and for second runs without a reason. On SQL all use the application's own engine, with fewer
connections than slots, and jobs hold these for longer than a lease.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ..crew import Crew, wait_for
from ..figures import summed_up
from ..levels import Levels, connections_of, process_of
from ..nemesis import Nemesis
from ..soaking import LEAKY_QUEUE, LIVES_ON
from ..stage import Report, Stage
from ..times import every_second

MINUTES = 30.0
START_S = 180.0  # of all processes on all stores at once
STRUCK = 2
LEASE_S = 10.0  # machines on which all stores run at once are slow now and then
GRACE_S = 5.0
JOBS_A_SECOND = 2.0  # most start a child or a copy: with more, two cores that carry four stores starve heartbeats
PAUSE_S = (3.0, 9.0)  # between two faults
CRASH_EVERY_S = 300.0  # of the store
SAMPLE_S = 5.0
DRAIN_S = 180.0
HOLD_S = 2 * LEASE_S
HOLD_EVERY_S = 6.0  # a connection is held for longer than that: all of the pool are
MEMORY_MAX = "192M"
EXECUTORS = (
    "thread,thread,thread,thread,thread,thread,async,async,async,async,process,process,"
    "leak,crash,fork,fork apart,fork async,leak here"
)


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    crew = Crew(stage.folder, lease_s=LEASE_S, grace_s=GRACE_S)
    count = 0
    with contextlib.ExitStack() as stack:
        stack.callback(crew.dismiss)
        app = "faults.soaking:queue"
        produce = {"module": "faults.soaking_producer", "takes_s": 1.0, "push_timeout": 30, "hold_s": HOLD_S}
        for executors, rate in ((EXECUTORS, JOBS_A_SECOND), ("hold", 1 / HOLD_EVERY_S)):
            if executors == "hold" and stage.kind == "valkey":
                continue
            pushed = round(rate * seconds)
            crew.produce(stage.url, count=pushed, rate=rate, executors=executors, batch=1, **produce)
            count += pushed
        with stage.queue() as queue:
            schedule = every_second(queue)
        steady = crew.hire(stage.url, app=app)
        limits = ("--max-memory", MEMORY_MAX, "--processes", "1")
        crew.hire(stage.url, app=app, options=limits, queue=LEAKY_QUEUE)
        nemesis = Nemesis(stage, crew, stack, workers=STRUCK, app=app)
        wait_for("a worker to begin", lambda: crew.ready, START_S)
        levels = [
            Levels("the worker", process_of(steady.process.pid), SAMPLE_S),
            Levels("the store", connections_of(stage.kind, stage.url), SAMPLE_S),
        ]
        began = crashed_at = time.monotonic()
        with ThreadPoolExecutor(1) as apart:
            while (now := time.monotonic()) < began + seconds:
                if now >= crashed_at + CRASH_EVERY_S:
                    crashed_at = now
                    struck = apart.submit(nemesis.strike_store)
                    struck.add_done_callback(lambda done: done.result())
                nemesis.strike()
                nemesis.replenish()
                for one in levels:
                    one.sample()
                stage.say(f"{now - began:4.0f} of {seconds:.0f} s: {len(crew.faults)} faults")
                nemesis.rest(stage.dice.uniform(*PAUSE_S))
        nemesis.relent()
        report = summed_up(stage, crew, count, drain_s=DRAIN_S, schedules=[schedule])
        report.complaints += [f"a copy of the run of {entry['id']} lives on" for entry in crew.entries(LIVES_ON)]
        lives = Counter(str(entry["worker"]) for entry in crew.entries("worker.starting"))
        report.figures["lives of the worker with a memory limit"] = lives[crew.workers[1].name]
        for one in levels:
            report.figures |= one.figures()
            report.complaints += one.complaints()
        return report
