"""Stores and workers with one planted defect each, which the checker must find.

Some defects cannot be seen from outside, whatever the seed, and so are not here:

- A store that does not ask who holds the claim, as long as it asks for the claim_seq and whether the job is held: each
  claim and each involuntary exit has a number of its own, so the number alone tells the holder. The third term guards
  against what `SettlesTwice` does, a settlement that comes again when nobody holds the job.
- A store that calls a repeated settlement stale: the worker drops the result either way. Only its log differs.
- A worker that goes on with what it has not started after its lease was lost: those runs overlap with others for a
  reason that the promise names. The rule keeps their number small.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from unittest.mock import patch

from msgspec import structs

from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimedJob, Enqueued, NewJob, Reclaimed, Settled, Settlement
from protojobs.worker.lease.watch import GOOD_BEATS, LeaseWatch
from protojobs.worker.outcome import Outcome
from protojobs.worker.planner import Planner
from protojobs.worker.runs.run import Run, unrun
from protojobs_memory import MemoryDriver, claiming

from .scheduler import Steps
from .simulated_worker import LEASE_S, SimulatedWorker

# -------------------------------------------------------------------------------------------------------------- stores


class ForgetsTheNumber(MemoryDriver):
    """A fence of id and holder: a settlement that comes late ends a later claim of the same worker."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return super().settle([self._renumbered(settlement) for settlement in settlements])

    def _renumbered(self, settlement: Settlement) -> Settlement:
        row = self.state.rows.get(settlement.id)
        is_holder = row is not None and row.reserved_by == settlement.reserved_by != ""
        return structs.replace(settlement, claim_seq=row.claim_seq) if row is not None and is_holder else settlement


class SettlesTwice(MemoryDriver):
    """A fence of id and claim_seq alone: a release or snooze that is sent again gives a second attempt back."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        for settlement in settlements:
            row = self.state.rows.get(settlement.id)
            if row is not None and row.claim_seq == settlement.claim_seq and row.state is JobState.PENDING:
                row.attempts -= settlement.verb in (Verb.SNOOZE, Verb.RELEASE)
        return super().settle(settlements)


class HasNoFence(MemoryDriver):
    """Whoever knows the id may settle the job of whoever holds it."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return super().settle([self._forged(settlement) for settlement in settlements])

    def _forged(self, settlement: Settlement) -> Settlement:
        row = self.state.rows.get(settlement.id)
        if row is None or not row.reserved_by:
            return settlement
        return structs.replace(settlement, claim_seq=row.claim_seq, reserved_by=row.reserved_by)


class LosesRetries(MemoryDriver):
    """Takes a retry for the end of the job."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return super().settle([self._ended(settlement) for settlement in settlements])

    def _ended(self, settlement: Settlement) -> Settlement:
        return structs.replace(settlement, verb=Verb.CANCEL) if settlement.verb is Verb.RETRY else settlement


class LendsTwice(MemoryDriver):
    """Two claims that come within 50 ms of each other get the same jobs."""

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        now = self.now()
        held = [row for rows in list(self.state.holders.values()) for row in list(rows.values())]
        for row in held:
            if row.reserved_at is not None and now - row.reserved_at < timedelta(seconds=0.05):
                self.state.move(row, Verb.RELEASE, JobState.PENDING, row.available_at)
                row.attempts -= 1
        return super().claim(worker, queues, slots=slots, limit=limit)


class LendsEarly(MemoryDriver):
    """Lends jobs a second before they are due."""

    def claim(self, worker: str, queues: Sequence[str], *, slots: int, limit: int) -> list[ClaimedJob]:
        early = lambda state, now, names, due=claiming.due_rows: due(state, now + timedelta(seconds=1), names)  # noqa: E731
        with patch.object(claiming, "due_rows", early):
            return super().claim(worker, queues, slots=slots, limit=limit)


class FindsNoOrphans(MemoryDriver):
    """Takes back the jobs of workers whose lease has run out, and not those of workers that have left."""

    def leave(self, worker: str) -> None:
        super().leave(worker)
        self.left = {*getattr(self, "left", ()), worker}

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        holders = self.state.holders
        orphans = {name: holders.pop(name) for name in getattr(self, "left", ()) if name in holders}
        taken = super().reclaim(limit, until=until)
        holders.update(orphans)
        return taken


class ReclaimsUnseen(MemoryDriver):
    """Looks which leases have ended, and ends them in the next round, without looking again."""

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        now, workers = self.now(), self.state.workers
        for name in getattr(self, "ended", ()):
            workers.pop(name, None)
        lapsed = {name: row for name, row in workers.items() if row.lease_ends_at <= now}
        workers.update(
            {name: structs.replace(row, lease_ends_at=datetime.max.replace(tzinfo=UTC)) for name, row in lapsed.items()}
        )
        taken = super().reclaim(limit, until=until)
        workers.update(lapsed)
        self.ended = tuple(lapsed)
        return taken


class ReclaimsTooLate(MemoryDriver):
    """Does a reclaim that was held up on its way, as if it had been sent just now."""

    def reclaim(self, limit: int, *, until: datetime | None = None) -> Reclaimed:
        return super().reclaim(limit)


class StoresAgain(MemoryDriver):
    """Takes a push that is sent again for a new one."""

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        for job in jobs:
            if (row := self.state.rows.get(job.id)) is not None and row.state is JobState.COMPLETED:
                self.state.remove(row, Verb.CLEAR)
        return super().enqueue(jobs)


# ------------------------------------------------------------------------------------------------------------- workers


class SettlesFirst(SimulatedWorker):
    """Says that a job is done when it begins."""

    def begin_run(self, run: Run) -> None:
        super().begin_run(run)
        self.planner.finished(self.world.now, run.key, run.returned(None))


class LeavesJobsBehind(SimulatedWorker):
    """Ends without giving back what it has not begun."""

    def _apply_message(self, message: object) -> Steps:
        if isinstance(message, int):
            self.planner.lease_lost(self.world.now)  # forgets what waits
        yield from super()._apply_message(message)


class GivesBackTooMuch(SimulatedWorker):
    """Gives back at a stop what it goes on to run."""

    def _apply_message(self, message: object) -> Steps:
        yield from super()._apply_message(message)
        if isinstance(message, int):
            for key, active in self.active.items():
                self.planner.finished(self.world.now, key, unrun(active.run.claimed, Verb.RELEASE, reason="shutdown"))

    def _leave(self) -> Steps:
        while self.active:
            yield 0.1
        yield from super()._leave()


class RunsWhatItTookBack(SimulatedWorker):
    """Takes back what lies ready, and leaves it where a thread finds it."""

    def withdraw(self, keys: list[tuple[str, int]]) -> None:
        ready = dict(self.ready)
        super().withdraw(keys)
        self.ready = ready

    def _slot_is_free(self) -> None:
        for run in self.ready.values():
            run.begins_by = inf
        super()._slot_is_free()


class NeverAsks(SimulatedWorker):
    """Does not ask what it holds: a claim whose answer was lost stays lent."""

    def begin(self) -> None:
        super().begin()
        self._compare_at = float("inf")

    def _make_trip(self, turn):  # type: ignore[no-untyped-def]
        self._unknown = False
        yield from super()._make_trip(turn)


class NeverInDoubt(LeaseWatch):
    """Goes on as if each heartbeat had been answered."""

    def is_in_doubt(self, now: float) -> bool:
        return False


class StartsInDoubt(SimulatedWorker):
    """Starts jobs while it does not know whether its lease stands."""

    def make_watch(self) -> LeaseWatch:
        return NeverInDoubt(LEASE_S)


class HearsOnlyOfMisses(LeaseWatch):
    """Takes a heartbeat that has not come back for one that is on its way, however long."""

    def is_in_doubt(self, now: float) -> bool:
        return self.in_doubt


class StartsWhileItsHeartbeatsWait(SimulatedWorker):
    """Starts jobs while its heartbeats are held up in its own process."""

    def make_watch(self) -> LeaseWatch:
        return HearsOnlyOfMisses(LEASE_S)


class CutsAtItsLimit(SimulatedWorker):
    """Takes a limit of its own for a stop, and cuts what runs beyond the grace."""

    def drain(self) -> None:
        super().drain()
        self.planner.shutdown.stop(self.world.now, 1, "memory")


class TakesAnyAnswer(Planner):
    """Takes what comes under the name of a run for its end, whichever claim it speaks of."""

    def finished(self, now: float, key: tuple[str, int], outcome: Outcome | None, *, was_run: bool = True) -> bool:
        if outcome is not None:
            said = structs.replace(outcome.settlement, id=key[0], claim_seq=key[1])
            outcome = structs.replace(outcome, settlement=said)
        return super().finished(now, key, outcome, was_run=was_run)


class BelievesCopies(SimulatedWorker):
    """Takes the answer of a process's copy for that of the next job in its place."""

    planner_class = TakesAnyAnswer


class NeverPatient(LeaseWatch):
    """Reclaims as soon as it is time, though it has only just heard of the store again."""

    reclaim_until = None

    def may_reclaim(self, now: float) -> bool:
        return now >= self.reclaim_at


class ReclaimsAtOnce(SimulatedWorker):
    """Takes back the jobs of the others after an outage, before they could renew their leases."""

    def make_watch(self) -> LeaseWatch:
        return NeverPatient(LEASE_S)


class LivesInThePast(LeaseWatch):
    """Reclaims because of three good heartbeats, however long ago they are."""

    reclaim_until = None

    def may_reclaim(self, now: float) -> bool:
        return self._good >= GOOD_BEATS and now >= self.reclaim_at


class ReclaimsOnWaking(SimulatedWorker):
    """Takes back the jobs of the others when it was frozen during an outage, before anybody has heard of the store."""

    def make_watch(self) -> LeaseWatch:
        return LivesInThePast(LEASE_S)
