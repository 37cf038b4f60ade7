"""Pushes jobs and writes which of them were acknowledged: `python -m faults.producer '{"url": ..., "count": ...}'`.

A batch that gets no answer is pushed again under the same ids until it is acknowledged, as an application would.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from protojobs import BoundJob, FunctionJob, JobQueue, create_driver
from protojobs.errors import StoreUnavailable

from .history import Journal
from .jobs import FOLDER_VARIABLE, MAX_RETRIES, Plan, act, act_apart, act_async

LATER_S = 1.0
KINDS = {"thread": act, "async": act_async, "process": act_apart}


class Producer:
    """One of them. `takes` is the longest and usual duration; `long_share` of the jobs take `long_s`."""

    kinds: Mapping[str, FunctionJob[..., object]] = KINDS

    def __init__(self, options: dict[str, float | int | str]) -> None:
        self.dice = random.Random(int(options["seed"]))
        self.rate = float(options["rate"])  # a second
        self.batch = int(options["batch"])
        self.takes_s = float(options["takes_s"])
        self.long_s, self.long_share = float(options["long_s"]), float(options["long_share"])
        self.calm = bool(options["calm"])  # jobs that neither fail nor snooze nor come later
        self.executors = str(options["executors"]).split(",")
        self.journal = Journal(Path(os.environ[FOLDER_VARIABLE]))
        config = {"push_timeout": options["push_timeout"]}
        self.queue = JobQueue(create_driver(str(options["url"])), config)

    def run(self, count: int) -> None:
        """Push so many, at the rate."""
        began, pushed = time.monotonic(), 0
        while pushed < count:
            size = min(self.batch, count - pushed)
            self.push([self.drawn() for _ in range(size)])
            pushed += size
            time.sleep(max(0.0, began + pushed / self.rate - time.monotonic()))
        self.queue.close()

    def drawn(self) -> tuple[str, str, Plan, float]:
        """The next job: its id, its kind, what it does, its delay."""
        job = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
        kind = self.dice.choice(self.executors)
        return (job, kind, *self.plan(kind))

    def plan(self, kind: str) -> tuple[Plan, float]:
        """What a job of that kind does, and its delay."""
        takes_s = self.long_s if self.dice.random() < self.long_share else self.dice.uniform(0.0, self.takes_s)
        if self.calm:
            return Plan(takes_s), 0.0
        fails = self.dice.choices((0, 1, 2, MAX_RETRIES + 1), (88, 6, 4, 2))[0]
        return Plan(takes_s, fails, self.dice.random() < 0.05), LATER_S if self.dice.random() < 0.1 else 0.0

    def push(self, jobs: list[tuple[str, str, Plan, float]]) -> None:
        """Each until the store has said yes."""
        told = [(job, delay, plan.fails > MAX_RETRIES) for job, _, plan, delay in jobs]
        self.journal.write("pushing", jobs=told)
        for job, kind, plan, delay in jobs:
            while not self.stored(job, self.kinds[kind].bind(plan), delay):
                time.sleep(0.05)

    def stored(self, job: str, bound: BoundJob, delay: float) -> bool:
        """One try."""
        began = time.monotonic()
        try:
            if delay:
                self.queue.later(delay, bound, id=job)
            else:
                self.queue.push(bound, id=job)
        except StoreUnavailable:
            self.journal.write("refused", id=job, took_s=time.monotonic() - began)
            return False
        self.journal.write("acknowledged", id=job, took_s=time.monotonic() - began)
        return True


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    Producer(asked).run(int(asked["count"]))
