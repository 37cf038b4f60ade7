"""A random walk over the whole port, step by step beside a model: the memory driver.

Both stores are told the same, and must answer the same and hold the same jobs after every step. Ids are made in
ascending order, and each move of time opens a fresh driver, so that neither ties nor a driver's own caches (which may
overlook a new lane for a second) make two right answers possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from protojobs.errors import LeaseLost
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, ClaimReply, JobRecord, QueueInfo, Settlement
from protojobs.testing.conformance.beside import ALL, QUEUES, pick
from protojobs.testing.conformance.fixtures import DriverFactory, Fixtures
from protojobs.testing.conformance.levels import concern
from protojobs.testing.conformance.machine_schedules import SchedulesBesideModel
from protojobs.testing.conformance.steps import (
    LEASE_S,
    SETTLING,
    all_failed,
    all_jobs,
    fence_of,
    join,
    new_job,
    settlement,
)

__all__ = ["Comparing"]

NEVER = datetime(1970, 1, 1, tzinfo=UTC)

queue_names = st.sampled_from(QUEUES)
places = st.integers(0, 30)  # picks one of whatever there is


@concern("model")
class Comparing(Fixtures):
    """The store under test answers as the memory driver does, whatever happens in whatever order."""

    machine_examples = 30
    machine_steps = 40

    def test_a_random_walk_is_answered_as_by_the_memory_driver(
        self, driver_factory: DriverFactory, model_factory: DriverFactory, reset: Callable[[], None]
    ) -> None:
        class Walk(StoreBesideModel):
            def __init__(self) -> None:
                super().__init__(driver_factory, model_factory, reset)

        run_state_machine_as_test(
            Walk,
            settings=settings(
                max_examples=self.machine_examples,
                stateful_step_count=self.machine_steps,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )


class StoreBesideModel(SchedulesBesideModel):
    """The rules: one for each verb of the port, with the arguments that make a difference."""

    def __init__(self, real_factory: DriverFactory, model_factory: DriverFactory, reset: Callable[[], None]) -> None:
        super().__init__(real_factory, model_factory, reset)
        self._workers: list[str] = []
        self._claims: list[ClaimedJob] = []

    def begin_work(self) -> None:
        """A worker and a few jobs, so that a short walk meets something."""
        self.a_worker_joins(isolates=False)
        self.jobs_come(queue="a", priorities=[0, 1], retries=1, delay=0.0)

    @rule(
        queue=queue_names,
        priorities=st.lists(st.sampled_from([-100, 0, 1, 100]), min_size=1, max_size=3),
        retries=st.sampled_from([0, 1, 3]),
        delay=st.sampled_from([0.0, 0.0, 10.0, 1000.0]),
    )
    def jobs_come(self, queue: str, priorities: list[int], retries: int, delay: float) -> None:
        batch = [
            new_job(queue, id=self._next_id(), priority=priority, max_retries=retries, delay=delay)
            for priority in priorities
        ]
        self._jobs.extend(batch)
        self._same(lambda store: store.enqueue(batch))

    @rule(place=places)
    @precondition(lambda self: self._jobs)
    def a_job_is_sent_again(self, place: int) -> None:
        job = pick(self._jobs, place)
        self._same(lambda store: store.enqueue([job]))

    @rule(isolates=st.booleans())
    def a_worker_joins(self, isolates: bool) -> None:
        worker = self._next_id()
        self._workers.append(worker)
        self._same(lambda store: join(store, id=worker, isolates=isolates) and None)

    @rule(place=places, has_progress=st.booleans())
    def a_worker_beats(self, place: int, has_progress: bool) -> None:
        worker = self._worker(place)
        progress = {fence_of(pick(self._claims, place)): 0.5} if has_progress and self._claims else {}
        self._same(lambda store: sorted(fence.id for fence in store.heartbeat(worker, progress).cancels))

    @rule(place=places)
    def a_worker_leaves(self, place: int) -> None:
        self._same(lambda store: store.leave(pick(self._workers, place)))

    @rule()
    def lost_jobs_are_taken_back(self) -> None:
        def reclaim(store: Store) -> object:
            round_ = store.reclaim(ALL)
            return sorted(round_.jobs, key=lambda job: job.id), sorted(round_.workers), round_.has_more

        self._same(reclaim)

    @rule(place=places, queues=st.permutations(QUEUES), slots=st.integers(0, 4))
    def a_worker_takes_all(self, place: int, queues: list[str], slots: int) -> None:
        self._claim(self._worker(place), queues, slots, ALL)

    @rule(place=places, queues=st.permutations(QUEUES), limit=st.integers(1, 3))
    def a_worker_takes_some(self, place: int, queues: list[str], limit: int) -> None:
        self.time_passes(2.0)  # no lane may be overlooked for longer
        self._claim(self._worker(place), queues, limit, limit)

    @rule(place=places, queue=queue_names, verbs=st.lists(st.sampled_from(SETTLING), min_size=1, max_size=3))
    def a_worker_runs_a_few(self, place: int, queue: str, verbs: list[Verb]) -> None:
        lent = self._claim(self._worker(place), [queue], len(verbs), ALL)
        self._settle([settlement(claim, verb) for claim, verb in zip(lent, verbs, strict=False)])

    @rule(
        place=places,
        verb=st.sampled_from(SETTLING),
        delay=st.sampled_from([0.0, 10.0]),
        counts=st.booleans(),
    )
    @precondition(lambda self: self._claims)
    def a_claim_is_settled(self, place: int, verb: Verb, delay: float, counts: bool) -> None:
        self._settle([self._say(self._one_claim(place), verb, delay, counts)])

    @rule(verbs=st.lists(st.sampled_from(SETTLING), min_size=1, max_size=4))
    @precondition(lambda self: self._claims)
    def the_latest_claims_are_settled(self, verbs: list[Verb]) -> None:
        self._settle([settlement(claim, verb) for claim, verb in zip(reversed(self._claims), verbs, strict=False)])

    @rule(place=places, verb=st.sampled_from(SETTLING), queue=queue_names)
    @precondition(lambda self: self._claims)
    def a_worker_settles_and_claims(self, place: int, verb: Verb, queue: str) -> None:
        claim = self._one_claim(place)

        def both(store: Store) -> ClaimReply:
            return store.settle_and_claim(claim.reserved_by, [settlement(claim, verb)], [queue], slots=9, limit=ALL)

        real, model = both(self.real), both(self.model)
        assert [(each.status, each.state) for each in real.settled] == [
            (each.status, each.state) for each in model.settled
        ]
        assert (visible_claims(real.claimed), real.lease_lost) == (visible_claims(model.claimed), model.lease_lost)
        self._claims.extend(real.claimed)

    @rule(place=places)
    def a_worker_asks_what_it_holds(self, place: int) -> None:
        worker = pick(self._workers, place)
        self._same(lambda store: sorted(visible_claims(store.held(worker)), key=repr))

    @rule(place=places)
    @precondition(lambda self: self._jobs)
    def a_person_cancels(self, place: int) -> None:
        self._same(lambda store: store.cancel([pick(self._jobs, place).id]))

    @rule(place=places, forgets=st.booleans())
    @precondition(lambda self: self._jobs)
    def a_person_retries_or_forgets_a_failure(self, place: int, forgets: bool) -> None:
        job_id = pick(self._jobs, place).id

        def act(store: Store) -> object:
            rows = [row.id for row in all_failed(store) if row.job_id == job_id]
            return store.forget_failed(rows) if forgets else store.retry_failed(rows)

        self._same(act)

    @rule(queue=queue_names)
    def a_person_clears(self, queue: str) -> None:
        self._same(lambda store: store.clear(queue))

    @rule(queue=queue_names)
    def a_person_pauses(self, queue: str) -> None:
        self._same(lambda store: store.pause(queue))

    @rule(queue=queue_names)
    def a_person_resumes(self, queue: str) -> None:
        self._same(lambda store: store.resume(queue))

    # Somewhat less than the shortest time that passes by a rule: as much real time as possible may pass beside it.
    @rule(age=st.sampled_from([9.5, 500.0]))
    def old_jobs_are_pruned(self, age: float) -> None:
        self._same(lambda store: store.prune(completed_older_than=age, failed_older_than=2 * age))

    @rule(drops=st.booleans())
    def jobs_move_away_and_perhaps_back(self, drops: bool) -> None:
        def transfer(store: Store) -> object:
            jobs, cursor = store.export_jobs("token", limit=ALL)
            dropped = store.drop_exported("token", [job.id for job in jobs]) if drops else 0
            answers = store.import_jobs(jobs)
            return sorted((answer.id, answer.duplicate_of) for answer in answers), cursor, dropped

        self._same(transfer)

    @rule(seconds=st.sampled_from([10.0, LEASE_S + 10.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self._move_on(seconds)

    def _look(self) -> None:
        super()._look()
        self._same(lambda store: [visible(job) for job in all_jobs(store, limit=ALL)])
        self._same(
            lambda store: sorted((row.job_id, row.queue, row.attempts, row.fingerprint) for row in all_failed(store))
        )
        self._same(lambda store: ([visible_queue(queue) for queue in store.queues()], store.stats()))
        self._same(lambda store: [(row.id, row.isolates, row.processing) for row in store.workers()])

    def _claim(self, worker: str, queues: list[str], slots: int, limit: int) -> list[ClaimedJob]:
        lent = [claim_or_none(store, worker, queues, slots, limit) for store in (self.real, self.model)]
        assert (lent[0] is None) is (lent[1] is None), "one says LeaseLost, the other does not"
        assert visible_claims(lent[0] or []) == visible_claims(lent[1] or [])
        self._claims.extend(lent[0] or [])
        return lent[0] or []

    def _worker(self, place: int) -> str:
        """Mostly one whose row stands, so that a walk gets somewhere; at times any that ever was."""
        standing = [worker.id for worker in self.model.workers()]
        if not standing:
            self.a_worker_joins(isolates=place % 2 == 0)
        return pick(standing if standing and place % 5 else self._workers, place)

    def _one_claim(self, place: int) -> ClaimedJob:
        """Mostly one that is current; at times any that ever was."""
        current = [claim for worker in self._workers for claim in self.model.held(worker)]
        return pick(current if current and place % 3 else self._claims, place)

    def _settle(self, said: list[Settlement]) -> None:
        self._same(lambda store: [(answer.id, answer.status, answer.state) for answer in store.settle(said)])

    def _say(self, claim: ClaimedJob, verb: Verb, delay: float, counts: bool) -> Settlement:
        """A settlement with all the fields that its verb may carry."""
        said = settlement(claim, verb)
        match verb:
            case Verb.RELEASE:
                return replace(said, delay=delay, counts_return=counts)
            case Verb.RETRY:
                return replace(said, delay=delay, counts_crash=counts)
            case Verb.FAIL:
                return replace(said, counts_crash=counts, error="Traceback", fingerprint="a" if counts else "")
            case Verb.SNOOZE:
                return replace(said, delay=delay)
            case _:
                return said


def claim_or_none(store: Store, worker: str, queues: list[str], slots: int, limit: int) -> list[ClaimedJob] | None:
    """What was lent; None when the lease is gone."""
    try:
        return store.claim(worker, queues, slots=slots, limit=limit)
    except LeaseLost:
        return None


def visible_claims(claims: Sequence[ClaimedJob]) -> list[ClaimedJob]:
    """The claims without their times, which differ by the microseconds between two calls."""
    return [replace(claim, available_at=NEVER, reserved_at=NEVER) for claim in claims]


def visible_queue(queue: QueueInfo) -> tuple[object, ...]:
    """What must be the same of a queue: of the time that a job has waited, only whether one is due."""
    return queue.name, queue.is_paused, queue.stats, queue.oldest_ready_s is None


def visible(job: JobRecord) -> tuple[object, ...]:
    """What must be the same of a job, times aside: of those only whether they are there."""
    counters = (job.attempts, job.claim_seq, job.crashes, job.returns, job.reclaims, job.reserved_by)
    settings_ = (job.queue, job.job_name, job.data, job.priority, job.max_retries)
    return (job.id, job.status, counters, settings_, job.processed_at is None)
