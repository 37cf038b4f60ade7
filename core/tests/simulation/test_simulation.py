"""The worker's own decisions under a virtual clock, faults and a seed. A seed that fails is a bug report: it replays."""

from __future__ import annotations

import pytest
from protojobs_memory import MemoryDriver

from protojobs.lifecycle import Verb

from .checker import complaints
from .world import World

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
