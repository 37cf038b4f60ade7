"""Runs that ask for a job that comes next, under the same faults: of each run that counts there is exactly its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest
from msgspec import structs

from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import JobFilter, NewJob, Settled, Settlement, SettleStatus
from protojobs.worker.outcome import Outcome
from protojobs_memory import MemoryDriver

from .simulated_worker import SimulatedWorker
from .world import World, judged

SEEDS = 40
LIMIT_S = 150.0  # of the simulated time; what comes next is in a queue that nobody serves, so it never ends by itself


class Asking(SimulatedWorker):
    """Each run that ends well returns its claim's number, and asks for a job that has the run in its name."""

    said = count()

    def put(self, message: object) -> None:
        if (
            isinstance(message, tuple)
            and isinstance(message[1], Outcome)
            and message[1].settlement.verb is Verb.COMPLETE
        ):
            outcome = message[1]
            said = outcome.settlement
            named = f"{said.id}/{said.claim_seq}/{next(self.said)}"  # a copy of its process asks for another one
            following = NewJob(id=named, queue="next", job_name="next", job_class="next", data="{}")
            carrying = structs.replace(said, result=str(said.claim_seq), then=(following,))
            message = (message[0], structs.replace(outcome, settlement=carrying))
        super().put(message)


class StoringStale(MemoryDriver):
    """A defect: what comes next is stored whether or not the run counts."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        answers = super().settle(settlements)
        for said, answer in zip(settlements, answers, strict=True):
            if answer.status is SettleStatus.STALE:
                self.enqueue(said.then)
        return answers


def wrong(world: World) -> list[str]:
    """What there is and should not be, or should be and is not."""
    store, pushed = world.store, list(world.history.pushed)
    results = {each.id: each.result for each in store.get_results(pushed)}
    found: dict[str, int] = {}
    for following in store.find(JobFilter(queue="next"), limit=1_000).jobs:
        run = following.id.rpartition("/")[0]
        found[run] = found.get(run, 0) + 1
    expected: dict[str, int] = {}
    complaints: list[str] = []
    for job in store.get(pushed):
        is_done = job.status is JobState.COMPLETED
        if is_done:
            expected[f"{job.id}/{job.claim_seq}"] = 1
        if results[job.id] != (str(job.claim_seq) if is_done else None):
            complaints.append(f"{job.id}: the result is {results[job.id]}")
    return complaints + [f"{run}: {number}" for run, number in sorted(found.items() ^ expected.items())]


@pytest.mark.parametrize("block", range(4))
def test_of_each_run_that_counts_there_is_exactly_what_it_asked_for(block: int) -> None:
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        world = World(seed, worker=Asking)
        assert judged(world.run(LIMIT_S)) == [], f"seed {seed}"
        assert wrong(world) == [], f"seed {seed}"
        assert world.store.stats("next").pending > 0


def test_a_store_that_keeps_what_lost_runs_ask_for_is_found_out() -> None:
    def is_found_out(seed: int) -> bool:
        world = World(seed, worker=Asking, store=StoringStale)
        world.run(LIMIT_S)
        return bool(wrong(world))

    assert any(is_found_out(seed) for seed in range(SEEDS))
