"""All at once, by the dice: kills, freezes, stops, cut, deaf and slow networks, crashes of the store, wrong clocks.

Three workers, each behind a proxy of its own (not on SQLite), the first with a clock that is 30 s wrong; two producers.
The workers also tick an every-second schedule: each second fires once, however late.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from ..crew import Crew, wait_for
from ..figures import summed_up
from ..nemesis import STOP_S, Nemesis
from ..stage import Report, Stage
from ..times import every_second

MINUTES = 2.0
WORKERS = 3
LEASE_S = 3.0
JOBS_A_SECOND = 40
PAUSE_S = (0.5, 2.0)  # between two faults
GRACE_S = 5.0
DRAIN_S = 150.0  # a claim that the store executed late is found by the second comparison, a minute later
CRASHES_AT = (0.3, 0.7)
EXECUTORS = "thread,thread,thread,async,async,process"


def run(stage: Stage) -> Report:
    """See above."""
    seconds = 60 * (stage.minutes or MINUTES)
    count = round(JOBS_A_SECOND * seconds)
    crew = Crew(stage.folder, lease_s=LEASE_S, grace_s=GRACE_S)
    with contextlib.ExitStack() as stack:
        stack.callback(crew.dismiss)
        for _ in range(2):
            rate = JOBS_A_SECOND / 2
            crew.produce(stage.url, count=count // 2, rate=rate, takes_s=1.0, push_timeout=30, executors=EXECUTORS)
        nemesis = Nemesis(stage, crew, stack, workers=WORKERS)
        with stage.queue() as queue:
            schedule = every_second(queue)
        wait_for("a worker to begin", lambda: crew.ready, STOP_S)  # on a busy machine that takes its time
        began = time.monotonic()
        crashes = [began + seconds * share for share in CRASHES_AT]
        with ThreadPoolExecutor(1) as apart:
            while (now := time.monotonic()) < began + seconds:
                if crashes and now >= crashes[0]:
                    crashes.pop(0)
                    struck = apart.submit(nemesis.strike_store)
                nemesis.strike()
                nemesis.replenish()
                stage.say(f"{now - began:3.0f} s: {len(crew.faults)} faults")
                nemesis.rest(stage.dice.uniform(*PAUSE_S))
            struck.result()
        nemesis.relent()
        return summed_up(stage, crew, count, drain_s=DRAIN_S, schedules=[schedule])
