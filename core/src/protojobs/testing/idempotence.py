"""`assert_idempotent`: does a job leave the world as one run does, wherever a crash makes it run again?

At least once means that a job may run twice: its worker can die after the work, before the store has heard of it. This
plays each such death on a memory store: claim, run, crash, lease lost, reclaim, claim again, run to the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager

from msgspec import Struct

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid
from protojobs.interrupts import Interrupted
from protojobs.jobs.job_class import as_bound
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobRecord
from protojobs.testing.differences import difference, indented
from protojobs.testing.local_worker import LocalWorker, Ran
from protojobs.testing.queueing import TestQueue
from protojobs.worker.runs.run import Run

__all__ = ["assert_idempotent"]

EFFECTS_MAX = 200  # of one run; each is the place of two deaths
RUNS_MAX = 100  # of the job after a death: its retries and snoozes until it is finished


def assert_idempotent(
    job: object,
    data: object = None,
    *,
    observe: Callable[[], object],
    reset: Callable[[], object],
    effects: Collection[str] | None = None,
) -> None:
    """Pass if `job` leaves the same behind, however a crash makes it run again.

    The job runs once, undisturbed: what `observe()` then returns is how it must always be. It runs again with a crash
    after its last line, and with a crash before and after each effect that it declares (`with context.effect("charge
    the card")`); each time the job is taken back as from a dead worker and run to its end, retries included. `reset()`
    is called before each of these, and must bring the world of the job back to where it began.

    `effects`: the names that the job must declare, no more and no less; None takes what it declares. The job's id is
    the same throughout, so it may serve as a key; `claim_seq` is not, as in production. A crash is a BaseException
    here: `finally` blocks and context managers see it, which a real crash does not grant.

    Raises AssertionError that names the places after which the world is different, and shows how.
    """
    __tracebackhide__ = True
    trial = _Trial(job, data, reset)
    seen = trial.undisturbed()
    wanted = observe()
    _check_effects(trial.name, seen, effects)
    wrong: list[str] = []
    for stop in _stops(seen):
        trial.stopped(stop)
        found = observe()
        if found != wanted:
            wrong.append(f"  {stop}:\n{indented(difference(wanted, found))}")
    if wrong:
        head = (
            f'"{trial.name}" is not idempotent. Run again after a crash, it leaves something else (+) than one run (-):'
        )
        raise AssertionError("\n".join([head, *wrong]))


class _Stop(Struct, frozen=True):
    """Where a run dies. With no effect: after its last line, when the store has not heard of it."""

    effect: str = ""
    occurrence: int = 1
    is_after: bool = True
    is_only_one: bool = True

    def __str__(self) -> str:
        if not self.effect:
            return "crashed after its last line, before the store heard of it"
        number = "" if self.is_only_one else f" (number {self.occurrence})"
        return f'crashed {"after" if self.is_after else "before"} "{self.effect}"{number}'


class _Crash(Interrupted):
    """The death of the worker. No Exception, so that a job which catches everything does not survive it."""


class _Probe:
    """Sees the effects of one run, and ends the run where it is told to."""

    def __init__(self, stop: _Stop | None = None) -> None:
        self.seen: list[str] = []
        self.has_struck = False
        self._stop = stop

    def watch(self, run: Run) -> None:
        """Be there when this run declares an effect."""
        run.context.effect_probe = self.effect

    @contextmanager
    def effect(self, name: str) -> Generator[None]:
        """What `context.effect(name)` is in this run."""
        self.seen.append(name)
        stop = self._stop
        strikes = stop is not None and stop.effect == name and self.seen.count(name) == stop.occurrence
        if strikes and stop is not None and not stop.is_after:
            self._strike()
        yield
        if strikes:
            self._strike()

    def _strike(self) -> None:
        self.has_struck = True
        raise _Crash


class _Trial:
    """One job, run in one disturbed world after the other."""

    def __init__(self, job: object, data: object, reset: Callable[[], object]) -> None:
        self._job = job
        self._data = data
        self._reset = reset
        self._id = fresh_id()  # the same in every world: it may be the key under which the job remembers
        self.name = ""

    def undisturbed(self) -> list[str]:
        """Run it once; answers the effects that it declared in its first run."""
        queue = self._fresh_world()
        probe = _Probe()
        with LocalWorker(queue, probe.watch) as worker:
            ran = self._claim_and_run(queue, worker)
        if ran.trouble is not None:
            raise AssertionError(f'"{self.name}" fails even when nothing disturbs it.') from ran.trouble
        self._to_the_end(queue, "run once")
        return probe.seen

    def stopped(self, stop: _Stop) -> None:
        """Run it until it dies at `stop`, and then again to its end."""
        queue = self._fresh_world()
        probe = _Probe(stop)
        worker = LocalWorker(queue, probe.watch)
        worker.__enter__()  # and never left: it dies; only what it holds of this process is closed
        claimed = worker.claim(None)
        assert claimed is not None
        try:
            outcome = worker.perform(claimed)
        except _Crash:
            worker.close()
        else:
            worker.close()
            if stop.effect and not isinstance(outcome.exception, _Crash):  # async runs hand it over
                why = (
                    "caught the crash: catch Exception, not BaseException" if probe.has_struck else "did not get there"
                )
                raise AssertionError(f'"{self.name}" should have {stop}, and {why}.')
        queue.clock.advance(queue.settings.lease + 1)
        queue.driver.reclaim(10)
        self._to_the_end(queue, str(stop))

    def _fresh_world(self) -> TestQueue:
        self._reset()
        queue = TestQueue()
        queue.push(as_bound(self._job, self._data, queue.registry), id=self._id)
        self.name = queue.pushed()[0].job_name
        return queue

    def _claim_and_run(self, queue: TestQueue, worker: LocalWorker) -> Ran:
        due_in = (self._record(queue).available_at - queue.driver.now()).total_seconds()
        queue.clock.advance(max(due_in, 0.0))
        claimed = worker.claim(None)
        assert claimed is not None
        return worker.run(claimed)

    def _to_the_end(self, queue: TestQueue, story: str) -> None:
        """Run it until it is finished. Raises AssertionError when that means failed."""
        trouble: BaseException | None = None
        with LocalWorker(queue) as worker:
            for _ in range(RUNS_MAX):
                if (state := self._record(queue).status) is not JobState.PENDING:
                    break
                trouble = self._claim_and_run(queue, worker).outcome.exception or trouble
            else:
                raise AssertionError(f'"{self.name}", {story}, is not finished after {RUNS_MAX} more runs.')
        if state is JobState.FAILED:
            raise AssertionError(f'"{self.name}", {story}, fails when it runs again.') from trouble

    def _record(self, queue: TestQueue) -> JobRecord:
        record = queue.get(self._id)
        assert record is not None
        return record


def _stops(seen: list[str]) -> list[_Stop]:
    """Every place to die at: after the last line, and before and after each effect, each time it occurs."""
    stops = [_Stop()]
    totals, counts = Counter(seen), Counter[str]()
    for name in seen:
        counts[name] += 1
        for is_after in (False, True):
            stops.append(_Stop(name, counts[name], is_after, totals[name] == 1))
    return stops


def _check_effects(job_name: str, seen: list[str], effects: Collection[str] | None) -> None:
    if len(seen) > EFFECTS_MAX:
        raise OptionInvalid(f'"{job_name}" declares {len(seen)} effects in one run.', mend="Test it with less data.")
    if effects is not None and set(effects) != set(seen):
        missing, more = sorted(set(effects) - set(seen)), sorted(set(seen) - set(effects))
        raise AssertionError(f'"{job_name}" declares other effects: missing {missing}, unexpected {more}.')
