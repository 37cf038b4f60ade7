"""The worker's own decisions under a virtual clock, faults and a seed. A failing seed is a bug report: it replays."""

from __future__ import annotations

import pytest

from protojobs.lifecycle import Verb
from protojobs_memory import MemoryDriver

from .checker import complaints
from .world import LEASE_S, World

SEEDS = 150


@pytest.mark.parametrize("block", range(5))
def test_nothing_is_lost_and_nothing_doubled_without_a_reason(block: int) -> None:
    for seed in range(block * SEEDS // 5, (block + 1) * SEEDS // 5):
        world = World(seed)
        world.run()
        assert complaints(world) == [], f"seed {seed}"
        assert world.history.faults > 3
        assert len(world.history.runs) >= len(world.history.pushed)


def test_one_seed_gives_one_history() -> None:
    first, second = World(7).run(), World(7).run()
    told = [(note.job.id, note.job.claim_seq, note.worker, note.started_at) for note in first.runs]
    assert told == [(note.job.id, note.job.claim_seq, note.worker, note.started_at) for note in second.runs]


class ForgetsTheHolder(MemoryDriver):
    """A store without the fence's third term: whoever knows the number may settle."""

    def settle(self, settlements):  # type: ignore[no-untyped-def]
        return super().settle([self._as_current(s) for s in settlements])

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        return super().settle_and_claim(
            worker, [self._as_current(s) for s in settlements], queues, slots=slots, limit=limit
        )

    def _as_current(self, sent):  # type: ignore[no-untyped-def]
        from msgspec.structs import replace

        row = self.state.rows.get(sent.id)
        return sent if row is None else replace(sent, claim_seq=row.claim_seq, reserved_by=row.reserved_by)


class LosesRetries(MemoryDriver):
    """A store that takes a retry for the end of the job."""

    def settle_and_claim(self, worker, settlements, queues, *, slots, limit):  # type: ignore[no-untyped-def]
        from msgspec.structs import replace

        turned = [replace(s, verb=Verb.CANCEL) if s.verb is Verb.RETRY else s for s in settlements]
        return super().settle_and_claim(worker, turned, queues, slots=slots, limit=limit)


@pytest.mark.parametrize("broken", [ForgetsTheHolder, LosesRetries])
def test_the_checker_sees_a_store_that_breaks_its_promise(broken: type[MemoryDriver]) -> None:
    found: list[str] = []
    for seed in range(30):
        world = World(seed)
        world.store = broken(clock=world.clock)
        world.run()
        found += complaints(world)
    assert found


def test_a_killed_workers_job_runs_again_within_lease_plus_2_s() -> None:
    for seed in range(60):
        world = World(seed, jobs=0, workers=2)
        world.may_fail = False
        push_at, kill_at = 3 * LEASE_S, 3 * LEASE_S + world.dice.uniform(0.1, LEASE_S)

        def kill_the_runner(world: World = world) -> None:
            (runner,) = {note.worker for note in world.history.runs}
            next(worker for worker in world.workers if worker.id == runner).is_dead = True

        world.at(push_at, lambda world=world: world.push(0, takes_s=100.0))
        world.at(kill_at, kill_the_runner)
        world.run(faults_until=push_at, limit=kill_at + 3 * LEASE_S)
        _, again = world.history.runs
        assert again.started_at - kill_at <= LEASE_S + 2, f"seed {seed}"
