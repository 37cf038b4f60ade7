"""A transfer that is killed with -9 again and again, on every leg from store to store, loses and doubles nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import pytest
from backlog import contents, fill
from mover import STEPS

from protojobs import create_driver
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState

JOBS = 10_000
KILLS = 5
PAGES = 40  # of a leg
DELAYS_S = (0.0, 0.001, 0.003, 0.01)  # from the begin of a step to the kill: within it, or in the next
MOVER = Path(__file__).with_name("mover.py")
LEGS = ("sqlite", "postgresql", "valkey", "sqlite")


class Mover:
    """One run of the transfer."""

    def __init__(self, source: str, destination: str, batch: int) -> None:
        command = [sys.executable, str(MOVER), source, destination, str(batch)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._said = cast("IO[str]", self._process.stdout)

    def kill_in(self, step: str, occurrence: int, seconds: float) -> None:
        """Kill it so long after this step has begun for so many times."""
        while occurrence:
            line = self._said.readline()
            assert line.strip() in STEPS, f"it ended before it could be killed: {line}"
            occurrence -= line.strip() == step
        time.sleep(seconds)
        self._process.kill()
        self._process.communicate(timeout=30)

    def finish(self) -> list[str]:
        """Wait for its end; the lines that it says."""
        said, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return said.splitlines()


@pytest.fixture
def stores(make_store_url: Callable[[str], str], valkey_url: str) -> Iterator[list[tuple[str, Store]]]:
    urls = [valkey_url if kind == "valkey" else make_store_url(kind) for kind in LEGS]
    drivers = [create_driver(url) for url in urls]
    drivers[LEGS.index("valkey")].teardown()  # it is the whole session's
    for driver in drivers:
        driver.setup()
    yield list(zip(urls, drivers, strict=True))
    for driver in drivers:
        driver.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backlog_goes_from_store_to_store_though_killed_five_times_on_each_leg(stores) -> None:
    dice = random.Random(20_261_001)
    fill(stores[0][1], JOBS, seed=1)
    before = contents(stores[0][1])
    assert len(before) == JOBS
    batch = max(JOBS // PAGES, 1)
    was_between = 0
    for leg, ((here_url, here), (there_url, there)) in enumerate(zip(stores, stores[1:], strict=False), 1):
        began = time.monotonic()
        for _ in range(KILLS):
            page = dice.randint(1, PAGES // (KILLS + 1))
            Mover(here_url, there_url, batch).kill_in(dice.choice(STEPS), page, dice.choice(DELAYS_S))
            left, arrived = contents(here), contents(there)
            assert left.keys() | arrived.keys() == before.keys(), "a job is in neither store"
            both = left.keys() & arrived.keys()
            assert all(left[job_id]["status"] is JobState.MOVING for job_id in both), "a job can run in both stores"
            assert len(both) <= batch
            was_between += bool(both)
        assert Mover(here_url, there_url, batch).finish()[-1] == "complete"
        assert contents(here) == {}
        assert here.stats().total == 0
        # Each export adds one to claim_seq, so that what a worker at the source still says of an earlier claim is void.
        wanted = {job_id: {**job, "claim_seq": job["claim_seq"] + leg} for job_id, job in before.items()}
        assert contents(there) == wanted
        stats = there.stats()
        failed = sum(job["status"] is JobState.FAILED for job in before.values())
        assert (stats.pending, stats.failed) == (JOBS - failed, failed)
        print(f"leg {leg}, {LEGS[leg - 1]} -> {LEGS[leg]}: {JOBS:,} jobs in {time.monotonic() - began:.1f} s")
    print(f"{was_between} of {KILLS * (len(LEGS) - 1)} kills struck between import and drop")
