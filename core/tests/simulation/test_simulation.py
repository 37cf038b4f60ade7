"""The worker's own decisions under a virtual clock, faults and a seed. A failing seed is a bug report: it replays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from faults.history import End, History

from .simulated_worker import LEASE_S
from .world import QUEUES, Plan, World, judged

SEEDS = 1_000
BLOCKS = 20  # the processes of a test run share them
OUTAGE_MAX_S = 3 * LEASE_S
TESTS = Path(__file__).parents[3] / "tests"


def befell(history: History) -> set[str]:
    """What happened to workers that had jobs. A registration that was given up may leave a row that just lapses."""
    had_jobs = {run.worker for run in history.runs} | {""}
    return {fault.kind for fault in history.faults if fault.worker in had_jobs}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_is_lost_and_nothing_doubled_without_a_reason(block: int) -> None:
    seen: set[str] = set()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        history = World(seed).run()
        assert judged(history) == [], f"seed {seed}"
        assert len(history.finals) == len(history.pushed) > 0
        seen |= {fault.kind for fault in history.faults} | {final.state for final in history.finals.values()}
    faults = {"kill", "freeze", "cut off", "starved", "stop", "drain", "slow", "outage", "lost lease"}
    assert seen == faults | {"completed", "failed", "cancelled"}


@pytest.mark.parametrize("block", range(2))
def test_outages_alone_make_nothing_run_twice(block: int) -> None:
    """Of up to three leases: long enough for every lease to lapse, and none may be taken for lost."""
    longest = 0.0
    for seed in range(block * 50, (block + 1) * 50):
        history = World(seed, hurts=("outage",), outage_max_s=OUTAGE_MAX_S).run()
        assert judged(history) == [], f"seed {seed}"
        assert befell(history) <= {"outage"}, f"seed {seed}: a lease was lost"
        longest = max([longest, *(fault.ended - fault.began for fault in history.faults if fault.kind == "outage")])
    assert longest > 2 * LEASE_S


def test_planned_stops_alone_cost_no_attempt_and_no_second_run_but_of_what_was_cut() -> None:
    for seed in range(50):
        history = World(seed, hurts=("stop",)).run()
        assert judged(history) == [], f"seed {seed}"
        assert befell(history) <= {"stop"}, f"seed {seed}: a lease was lost"


def test_limits_of_their_own_and_copies_of_their_processes_alone_make_nothing_run_twice() -> None:
    for seed in range(50):
        history = World(seed, hurts=("limit", "fork")).run()
        assert judged(history) == [], f"seed {seed}"
        assert befell(history) <= {"drain"}, f"seed {seed}: a lease was lost"
        assert not any(run.end is End.CUT for run in history.runs if not history.pushed[run.job].may_be_cancelled)


@pytest.mark.parametrize("seed", [7, 77, 777])
def test_one_seed_gives_one_history(seed: int) -> None:
    assert World(seed).run() == World(seed).run()


def test_a_seed_replays_in_another_process() -> None:
    """Which has another order of sets of strings."""
    program = "from simulation.world import World; print([World(seed).run() for seed in range(5)])"
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{TESTS}:{Path(__file__).parents[1]}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert len(told[0]) > 10_000
    assert told[0] == told[1]


def test_a_killed_workers_job_runs_again_within_lease_plus_2_s() -> None:
    for seed in range(60):
        world = World(seed, jobs=0, workers=2, hurts=(), hurt_s=10 * LEASE_S)
        for worker in world.workers:
            worker.queues = QUEUES
        push_at, kill_at = 3 * LEASE_S, 3 * LEASE_S + world.dice.uniform(0.2, LEASE_S)
        job = structs.replace(world.new_job("job", Plan(takes_s=100.0)), delay=0.0)

        def kill_the_runner(world: World = world) -> None:
            (runner,) = {run.worker for run in world.history.runs}
            next(worker for worker in world.workers if worker.id == runner).die("kill", since=world.now)

        world.at(push_at, lambda world=world, job=job: world.push([job]))
        world.at(kill_at, kill_the_runner)
        first, again = world.run(limit=kill_at + 3 * LEASE_S).runs
        assert first.ended == pytest.approx(kill_at, abs=1e-6)
        assert again.began - kill_at <= LEASE_S + 2, f"seed {seed}"
