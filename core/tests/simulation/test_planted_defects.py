"""The checker finds a store or a worker that breaks the promise, and has nothing to say of the right one."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from protojobs_memory import MemoryDriver

from . import defects
from .simulated_worker import SimulatedWorker
from .world import EVERYTHING, World, judged

SEEDS = 500  # most defects show within ten
RARE = ("lose answers",) * 3  # so that outages leave time in between
DOUBLED = "which lost no lease|nothing happened to that one|before its delay was over|is by the same claim"
STUCK = "has not come to an end: processing"


class Planted(NamedTuple):
    """A defect, what the checker says of it, and the faults that bring it to light."""

    found_as: str
    store: type[MemoryDriver] = MemoryDriver
    worker: type[SimulatedWorker] = SimulatedWorker
    hurts: tuple[str, ...] = EVERYTHING
    workers: int = 3
    jobs: int = 24

    def world(self, seed: int) -> World:
        return World(seed, **{name: value for name, value in self._asdict().items() if name != "found_as"})

    def is_found(self, seed: int) -> bool:
        return re.search(self.found_as, "\n".join(judged(self.world(seed).run()))) is not None

    def innocent(self) -> Planted:
        return self._replace(store=MemoryDriver, worker=SimulatedWorker)


PLANTED = {
    # A retry that was given up is executed when the same worker runs the job again: a lone worker meets that sooner.
    "no claim_seq in the fence": Planted(DOUBLED, defects.ForgetsTheNumber, hurts=("slow",), workers=1, jobs=60),
    "no holder in the fence": Planted(
        "failures that were stored", defects.SettlesTwice, hurts=("slow", "lose answers"), workers=1
    ),
    "only the id in the fence": Planted(DOUBLED, defects.HasNoFence, hurts=("freeze", "cut off")),
    "a retry ends the job": Planted("nobody cancelled it", defects.LosesRetries),
    "a job lent twice": Planted(DOUBLED, defects.LendsTwice),
    "a delayed job lent early": Planted("before it was due", defects.LendsEarly),
    "a lease ended without looking again": Planted(DOUBLED, defects.ReclaimsUnseen, hurts=("freeze", "cut off")),
    "a push stored again": Planted(DOUBLED, defects.StoresAgain),
    "settled before it ran": Planted("no run of it ended well", worker=defects.SettlesFirst),
    "forgotten at shutdown": Planted(STUCK, defects.FindsNoOrphans, defects.LeavesJobsBehind, hurts=("stop",)),
    "given back while it runs": Planted(DOUBLED, worker=defects.GivesBackTooMuch),
    "run though it was taken back": Planted(DOUBLED, worker=defects.RunsWhatItTookBack, jobs=60),
    "a claim of unknown outcome forgotten": Planted(STUCK, worker=defects.NeverAsks),
    "a job begun in doubt": Planted("had been cut off", worker=defects.StartsInDoubt, hurts=("cut off", "slow")),
    "a job begun while heartbeats wait": Planted(
        "had been starved", worker=defects.StartsWhileItsHeartbeatsWait, hurts=("starve",)
    ),
    "a limit of its own cuts runs": Planted(DOUBLED, worker=defects.CutsAtItsLimit, hurts=("limit",)),
    "a copy's answer for that of another run": Planted(
        "no run of it ended well|failures that were stored|" + DOUBLED, worker=defects.BelievesCopies, hurts=("fork",)
    ),
    "a reclaim at once after an outage": Planted(
        "could have kept it", worker=defects.ReclaimsAtOnce, hurts=("outage",)
    ),
    "a reclaim long after it was sent": Planted("could have kept it", defects.ReclaimsTooLate, hurts=("outage", *RARE)),
    "a reclaim on waking": Planted(
        "could have kept it", worker=defects.ReclaimsOnWaking, hurts=("outage", "freeze", *RARE)
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_the_checker_finds(planted: Planted) -> None:
    seed = next((seed for seed in range(SEEDS) if planted.is_found(seed)), None)
    assert seed is not None, f"not found in {SEEDS} seeds"
    assert judged(planted.innocent().world(seed).run()) == []
