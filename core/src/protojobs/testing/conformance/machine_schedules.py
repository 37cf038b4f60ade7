"""The part of the random walk that is about schedules: saved, paused, fired, fired again too late, removed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from msgspec.structs import replace

from protojobs.port.driver import Store
from protojobs.port.schedules import Firing, Overlap, Schedule
from protojobs.testing.conformance.beside import QUEUES, Beside, pick
from protojobs.testing.conformance.fixtures import DriverFactory
from protojobs.testing.conformance.plans import all_due, all_schedules, new_schedule
from protojobs.testing.conformance.steps import new_job

__all__ = ["SchedulesBesideModel"]

NAMES = ("s", "S")
# The walk moves time by even seconds. All times here are odd ones away from it, so that none falls between the moments
# at which the two stores are asked.
BEHIND_S, AHEAD_S = -101, 999
STEP = timedelta(seconds=30)


class SchedulesBesideModel(Beside):
    """Two schedules, whose jobs go to the queues that the workers of the walk claim from."""

    def __init__(self, real_factory: DriverFactory, model_factory: DriverFactory, reset: Callable[[], None]) -> None:
        super().__init__(real_factory, model_factory, reset)
        self._firings: list[Firing] = []

    @rule(
        name=st.sampled_from(NAMES),
        due_s=st.sampled_from([BEHIND_S, BEHIND_S, AHEAD_S, None]),
        overlap=st.sampled_from(list(Overlap)),
        forgets=st.booleans(),
        is_outdated=st.integers(0, 5).map(lambda number: number == 0),
    )
    def a_schedule_is_saved(
        self, name: str, due_s: int | None, overlap: Overlap, forgets: bool, is_outdated: bool
    ) -> None:
        due = None if due_s is None else self.model.now() + timedelta(seconds=due_s)
        schedule = new_schedule(name, due=due, overlap=overlap)
        known = self._known(name)
        if known is not None and not forgets:
            schedule = replace(schedule, last_due_at=known.last_due_at, last_job_id=known.last_job_id)
        version = (known.version if known else 0) + is_outdated
        self._same(lambda store: store.save_schedule(schedule, version=version))

    @rule(name=st.sampled_from(NAMES), is_paused=st.booleans())
    def a_person_pauses_or_resumes_a_schedule(self, name: str, is_paused: bool) -> None:
        if (known := self._known(name)) is not None:
            changed = replace(known, is_paused=is_paused)
            self._same(lambda store: store.save_schedule(changed, version=known.version))

    @rule(name=st.sampled_from(NAMES))
    def a_schedule_is_removed(self, name: str) -> None:
        self._same(lambda store: store.remove_schedule(name))

    @rule(
        name=st.sampled_from(NAMES),
        overlap=st.sampled_from(list(Overlap)),
        steps=st.integers(1, 3),
        queue=st.sampled_from(QUEUES),
        what=st.sampled_from(["new", "new", "known", "none"]),
    )
    def all_that_is_due_is_fired(self, name: str, overlap: Overlap, steps: int, queue: str, what: str) -> None:
        self._same(due_ones)
        if not self.model.due_schedules(1).schedules:
            self.a_schedule_is_saved(name, BEHIND_S, overlap, forgets=False, is_outdated=False)
        due = self.model.due_schedules(10).schedules
        said = [self._firing(schedule, step, queue, what) for schedule in due for step in range(steps)]
        self._firings.extend(said)
        self._same(lambda store: store.fire(said))

    @rule(place=st.integers(0, 30))
    @precondition(lambda self: self._firings)
    def a_firing_comes_late_or_again(self, place: int) -> None:
        said = pick(self._firings, place)
        self._same(lambda store: store.fire([said]))

    def _look(self) -> None:
        super()._look()
        self._same(all_schedules)

    def _known(self, name: str) -> Schedule | None:
        return next(iter(self.model.get_schedules([name]).schedules), None)

    def _firing(self, schedule: Schedule, step: int, queue: str, what: str) -> Firing:
        assert schedule.next_due_at is not None
        due = schedule.next_due_at + step * STEP
        job = None if what == "none" else new_job(queue, id=self._next_id(), available_at=due)
        if what == "known" and self._jobs:
            job = pick(self._jobs, step)
        elif job is not None:
            self._jobs.append(job)
        return Firing(id=schedule.id, expected_next=due, due=due, next_due=due + STEP, job=job)


def due_ones(store: Store) -> object:
    """What is due, one by one, and the first time ahead."""
    return all_due(store, limit=1), store.due_schedules(10).next_due_at
