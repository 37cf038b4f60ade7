"""What a worker does beside its jobs takes a bounded share of its time."""

from __future__ import annotations

from protojobs import JobQueue
from protojobs.port.records import Pruned
from protojobs.testing.manual_clock import ManualClock
from protojobs.worker.lease.lease import WorkerLease
from protojobs.worker.lease.maintenance import PRUNE_EVERY_S, PRUNE_SHARE, Maintenance
from protojobs.worker.queue_order import QueueOrder
from protojobs.worker.reports.rollups import Rollups
from protojobs_memory import MemoryDriver

BATCH_S = 0.1  # what a prune takes here
TURN_S = 0.01


class Full(MemoryDriver):
    """Has old jobs for so many prunes."""

    def __init__(self, clock: ManualClock, rounds: int) -> None:
        super().__init__()
        self.began: list[float] = []
        self._clock, self._rounds = clock, rounds

    def prune(self, **_asked: object) -> Pruned:
        self.began.append(self._clock.monotonic())
        self._clock.advance(BATCH_S)
        return Pruned(completed=1_000, has_more=len(self.began) < self._rounds)


def prunes(*, rounds: int, seconds: float) -> list[float]:
    """When a worker began to prune in its first `seconds`."""
    clock = ManualClock()
    driver = Full(clock, rounds)
    queue = JobQueue(driver, clock=clock)
    lease = WorkerLease(driver, ["default"], concurrency=1, lease_s=60.0, clock=clock)
    upkeep = Maintenance(queue.runtime, lease, QueueOrder(["default"]), lambda _event: None, lambda _now, _held: None)
    while clock.monotonic() < seconds:
        upkeep.turn(clock.monotonic(), may_write=True)
        clock.advance(TURN_S)
    return driver.began


def test_while_there_is_more_to_prune_it_takes_a_small_share_of_the_time() -> None:
    began = prunes(rounds=1_000, seconds=600)
    first = began[0]
    assert 0.8 * PRUNE_EVERY_S <= first <= 1.2 * PRUNE_EVERY_S + TURN_S
    share = len(began) * BATCH_S / (600 - first)
    assert 0.9 * PRUNE_SHARE < share <= 1.01 * PRUNE_SHARE


def test_while_it_stops_no_notes_are_sent() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    queue = JobQueue(driver, clock=clock)
    lease = WorkerLease(driver, ["default"], concurrency=1, lease_s=60.0, clock=clock)
    lease.rollups = Rollups(driver, lease.info.id, clock)
    upkeep = Maintenance(queue.runtime, lease, QueueOrder(["default"]), lambda _event: None, lambda _now, _held: None)
    sampled = list[bool]()
    for may_write in (False, True):
        clock.advance(100)
        upkeep.turn(clock.monotonic(), may_write=may_write)
        sampled.append(bool(driver.state.notes.depths))
    assert sampled == [False, True]


def test_once_all_is_pruned_it_looks_once_a_minute() -> None:
    began = prunes(rounds=3, seconds=600)
    pauses = [after - before for before, after in zip(began, began[1:], strict=False)]
    assert all(pause < 3 for pause in pauses[:2])
    assert all(0.8 * PRUNE_EVERY_S <= pause <= 1.2 * PRUNE_EVERY_S + BATCH_S + TURN_S for pause in pauses[2:])
    assert len(pauses) >= 8


def test_what_a_worker_prunes_ended_longer_ago_than_a_push_may_be_sent_again() -> None:
    asked: list[dict[str, object]] = []

    class Asked(MemoryDriver):
        def prune(self, **ages: object) -> Pruned:
            asked.append(ages)
            return Pruned()

    clock = ManualClock()
    queue = JobQueue(Asked(), {"completed_job_retention": 0.1, "failed_job_retention": 48}, clock=clock)
    lease = WorkerLease(queue.driver, ["default"], concurrency=1, lease_s=60.0, clock=clock)
    upkeep = Maintenance(queue.runtime, lease, QueueOrder(["default"]), lambda _event: None, lambda _now, _held: None)
    clock.advance(2 * PRUNE_EVERY_S)
    upkeep.turn(clock.monotonic(), may_write=True)
    queue.prune()
    queue.prune(completed_older_than=60)
    assert [(one["completed_older_than"], one["failed_older_than"]) for one in asked] == [
        (3_600.0, 172_800.0),
        (3_600.0, 172_800.0),
        (60.0, None),
    ]
