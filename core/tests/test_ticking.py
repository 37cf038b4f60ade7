"""Firing: each due time once, whoever ticks, whatever goes wrong on the way; and what is told of it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace

from protojobs import Job, JobQueue, Scheduler, Settings, StopToken, events, job
from protojobs.clock import time_left
from protojobs.errors import ContractBroken, PushRejected, StoreUnavailable
from protojobs.events import Event, JobQueued, JobQueuing, ScheduleFired, ScheduleMissed
from protojobs.hooks import Hooks, hookimpl
from protojobs.jobs.cron_option import ScheduleSetting
from protojobs.port.driver import Store
from protojobs.port.lifecycle import Verb
from protojobs.port.records import BATCH_BYTES_MAX, NewJob, Settlement, WorkerInfo
from protojobs.port.schedules import (
    DueCursor,
    DueSchedules,
    Fired,
    FireStatus,
    Firing,
    Schedule,
    SchedulePage,
    UnreadableSchedule,
)
from protojobs.scheduler import ticking
from protojobs.scheduler.planning import Step, plan
from protojobs.scheduler.ticking import HELD_BACK_S, LOCKED_S, ROUND, STUCK_S, TOLD_MAX
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
Heard = Callable[..., list[Event]]
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class Report(Job):
    queue = "reports"

    def handle(self, data: dict[str, object]) -> None: ...


@pytest.fixture
def queue(make_queue: MakeQueue, clock: ManualClock) -> JobQueue:
    made = make_queue()
    made.clock = clock  # so that a schedule which was held back is let go when the test says so
    return made


@pytest.fixture
def scheduler(queue: JobQueue) -> Scheduler:
    return Scheduler(queue)


def due_times_of(queue: JobQueue) -> list[float]:
    """The times for which jobs were stored, in minutes from noon."""
    found = [json.loads(one.meta or "{}") for one in queue.find(limit=1_000).jobs]
    moments = [datetime.fromisoformat(meta["due_at"]) for meta in found]
    return sorted((moment - NOON).total_seconds() / 60 for moment in moments)


def claim_all(driver: Store) -> None:
    driver.register(WorkerInfo(id="w", host="h", pid=1, queues=("reports",), concurrency=9, lease_s=9_999))
    driver.claim("w", ["reports"], slots=9, limit=9)


def settle_all(driver: Store) -> None:
    claim_all(driver)
    for held in driver.held("w"):
        driver.settle([Settlement(id=held.id, claim_seq=held.claim_seq, reserved_by="w", verb=Verb.COMPLETE)])


class TestWhatFires:
    def test_nothing_before_its_time(self, scheduler: Scheduler, clock: ManualClock) -> None:
        scheduler.hourly(Report)
        clock.advance(3599.9)
        report = scheduler.tick()
        assert (report.fired, report.missed, report.overtaken) == (0, 0, 0)
        assert report.next_due_in == pytest.approx(0.1)

    def test_a_due_time_once_with_the_job_s_settings_and_its_time(
        self, scheduler: Scheduler, clock: ManualClock
    ) -> None:
        scheduler.hourly(Report().retries(9), {"n": 1}, id="r")
        clock.advance(3601)
        assert scheduler.tick().fired == 1
        assert scheduler.tick().fired == 0
        (found,) = scheduler.queue.find().jobs
        due = NOON + timedelta(hours=1)
        assert (found.queue, found.data, found.max_retries, found.available_at) == ("reports", '{"n":1}', 9, due)
        assert json.loads(found.meta or "") == {"schedule": "r", "due_at": due.isoformat()}
        known = scheduler.get("r")
        assert known is not None
        assert (known.last_due_at, known.last_job_id) == (due, found.id)
        assert known.next_due_at == NOON + timedelta(hours=2)

    def test_jitter_moves_the_job_and_not_the_time(self, scheduler: Scheduler, clock: ManualClock) -> None:
        for n in range(20):
            scheduler.hourly(Report, jitter=600, id=f"r{n}")
        clock.advance(3600)
        assert scheduler.tick().fired == 20
        delays = {(one.available_at - NOON).total_seconds() - 3600 for one in scheduler.queue.find().jobs}
        assert len(delays) == 20
        assert all(0 <= delay < 600 for delay in delays)

    def test_more_than_one_round_of_them(self, scheduler: Scheduler, clock: ManualClock) -> None:
        for n in range(2 * ROUND + 30):
            scheduler.hourly(Report, id=f"r{n}")
        clock.advance(3600)
        report = scheduler.tick()
        assert (report.fired, report.next_due_in) == (2 * ROUND + 30, 3600.0)

    @pytest.mark.parametrize(
        ("misfire", "minutes", "missed"),
        [("latest", [50], 49), ("all", list(range(1, 51)), 0), ("skip", [50], 49)],
    )
    def test_after_an_outage(
        self, scheduler: Scheduler, clock: ManualClock, misfire: str, minutes: list[int], missed: int
    ) -> None:
        scheduler.every_minute(Report, misfire=misfire)  # type: ignore[arg-type]
        clock.advance(50 * 60)
        report = scheduler.tick()
        assert due_times_of(scheduler.queue) == minutes
        assert (report.fired, report.missed) == (len(minutes), missed)

    @pytest.mark.parametrize(("misfire", "minutes"), [("latest", []), ("all", []), ("skip", [])])
    def test_what_is_later_than_the_window_is_missed(
        self, scheduler: Scheduler, clock: ManualClock, heard: Heard, misfire: str, minutes: list[int]
    ) -> None:
        told = heard("schedule.missed")
        scheduler.hourly(Report, misfire=misfire, catch_up=600, id="r")  # type: ignore[arg-type]
        clock.advance(3600 + 3600 + 700)
        report = scheduler.tick()
        assert due_times_of(scheduler.queue) == minutes
        assert (report.fired, report.missed) == (0, 2)
        (event,) = told
        assert isinstance(event, ScheduleMissed)
        assert (event.schedule_id, event.count, event.reason) == ("r", 2, "late")
        assert (event.first_due_at, event.due_at) == (NOON + timedelta(hours=1), NOON + timedelta(hours=2))
        known = scheduler.get("r")
        assert known is not None
        assert (known.last_due_at, known.next_due_at) == (NOON + timedelta(hours=2), NOON + timedelta(hours=3))

    def test_all_goes_on_where_a_tick_had_to_end(self, scheduler: Scheduler, clock: ManualClock) -> None:
        scheduler.every(Report, 1, misfire="all")
        clock.advance(350)
        assert scheduler.tick().fired == 350
        assert due_times_of(scheduler.queue) == [n / 60 for n in range(1, 351)]

    def test_the_end_is_the_last_time(self, scheduler: Scheduler, clock: ManualClock) -> None:
        scheduler.every(Report, 60, misfire="all", end=NOON + timedelta(minutes=3), id="r")
        clock.advance(600)
        report = scheduler.tick()
        assert (report.fired, report.next_due_in) == (3, None)
        known = scheduler.get("r")
        assert known is not None
        assert known.next_due_at is None


class TestOverlap:
    @pytest.mark.parametrize(
        ("overlap", "while_pending", "while_processing"), [("allow", 1, 1), ("skip", 0, 0), ("queue_one", 0, 1)]
    )
    def test_while_the_job_before_it_is_not_finished(
        self,
        scheduler: Scheduler,
        clock: ManualClock,
        heard: Heard,
        overlap: str,
        while_pending: int,
        while_processing: int,
    ) -> None:
        told = heard("schedule.missed")
        scheduler.every(Report, 60, overlap=overlap)  # type: ignore[arg-type]
        clock.advance(60)
        assert scheduler.tick().fired == 1
        clock.advance(60)
        assert scheduler.tick().fired == while_pending
        driver = scheduler.queue.driver
        claim_all(driver)
        clock.advance(60)
        assert scheduler.tick().fired == while_processing
        assert {(event.reason, event.count) for event in told if isinstance(event, ScheduleMissed)} <= {("overlap", 1)}
        assert len(told) == 2 - while_pending - while_processing
        settle_all(driver)
        clock.advance(60)
        assert scheduler.tick().fired == 1


class TestManyTickers:
    def test_an_old_plan_fires_nothing(self, clock: ManualClock) -> None:
        """Frozen between looking and firing, for however long: the others have moved the schedule on."""

        class Frozen(MemoryDriver):
            def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
                due = super().due_schedules(limit, cursor=cursor)
                if due.schedules and not self.has_slept:
                    self.has_slept = True
                    clock.advance(60)
                    Scheduler(JobQueue(other)).tick()
                return due

            has_slept = False

        other = MemoryDriver("memory://frozen", clock=clock)
        scheduler = Scheduler(JobQueue(Frozen("memory://frozen", clock=clock), clock=clock))
        scheduler.every(Report, 60, misfire="all")
        clock.advance(60)
        report = scheduler.tick()
        assert (report.fired, report.overtaken) == (0, 1)
        assert due_times_of(scheduler.queue) == [1, 2]

    def test_ten_threads_fire_each_time_once(self, clock: ManualClock) -> None:
        queues = [JobQueue(MemoryDriver("memory://ten", clock=clock)) for _ in range(10)]
        for n in range(30):
            Scheduler(queues[0]).every(Report, 1, misfire="all", id=f"r{n}")
        clock.advance(10)
        barrier = threading.Barrier(10)
        fired: list[int] = []

        def tick(queue: JobQueue) -> None:
            barrier.wait(10)
            fired.append(Scheduler(queue).tick().fired)

        threads = [threading.Thread(target=tick, args=[queue]) for queue in queues]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sum(fired) == 300
        assert queues[0].stats("reports").pending == 300

    def test_an_answer_that_was_lost_fires_nothing_twice(self, clock: ManualClock) -> None:
        class Cut(MemoryDriver):
            is_cut = True

            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                answers = super().fire(firings)
                if self.is_cut:
                    raise StoreUnavailable("the connection was cut behind it.")
                return answers

        driver = Cut(clock=clock)
        scheduler = Scheduler(JobQueue(driver, clock=clock))
        scheduler.every(Report, 60)
        clock.advance(60)
        with pytest.raises(StoreUnavailable):
            scheduler.tick()
        driver.is_cut = False
        assert scheduler.tick().fired == 0
        assert scheduler.queue.stats("reports").pending == 1

    def test_a_clock_set_back_fires_nothing_again(self, scheduler: Scheduler, clock: ManualClock) -> None:
        scheduler.every(Report, 60, misfire="all")
        clock.advance(300)
        assert scheduler.tick().fired == 5
        for _ in range(6):
            clock.set_wall(clock.now() - timedelta(minutes=5))
            assert Scheduler(scheduler.queue).tick().fired == 0
        assert due_times_of(scheduler.queue) == [1, 2, 3, 4, 5]


class Unreadable(MemoryDriver):
    """One schedule cannot be read, as from a store where a newer release, or a foreign hand, has written it."""

    unreadable = ""

    def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
        found = super().due_schedules(limit, cursor=cursor)
        return replace(found, **self._apart(found.schedules))

    def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
        return SchedulePage(**self._apart(super().get_schedules(ids).schedules))

    def _apart(self, found: Sequence[Schedule]) -> dict[str, tuple[Any, ...]]:
        others = tuple(one for one in found if one.id != self.unreadable)
        why = "not a valid Misfire"
        odd = tuple(UnreadableSchedule(id=one.id, why=why) for one in found if one.id == self.unreadable)
        return {"schedules": others, "unreadable": odd}


class TestWhatGoesWrong:
    def test_a_job_that_a_plugin_refuses_stays_due_and_the_others_fire(
        self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Vault:
            is_sealed = True

            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob | None:
                if self.is_sealed and "secret" in job.data:
                    raise PushRejected("the vault is sealed.")
                return None

        vault = Vault()
        scheduler.queue._hooks = Hooks([("vault", vault)])
        scheduler.every(Report, 60, {"secret": 1}, id="sealed")
        scheduler.every(Report, 60, {"open": 1}, id="open")
        clock.advance(60)
        assert scheduler.tick().fired == 1
        assert "schedule sealed cannot be fired here: the vault is sealed." in caplog.text
        vault.is_sealed = False
        assert scheduler.tick().fired == 0  # it is held back for a while
        clock.advance(HELD_BACK_S + 1)
        assert scheduler.tick().fired == 1

    def test_more_of_them_than_a_round_do_not_stop_the_others(self, scheduler: Scheduler, clock: ManualClock) -> None:
        class Refuses:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob | None:
                if "bad" in job.data:
                    raise PushRejected("no.")
                return None

        scheduler.queue._hooks = Hooks([("refuses", Refuses())])
        for n in range(ROUND + 20):
            scheduler.every(Report, 60, {"bad": n}, id=f"a{n}")
        scheduler.every(Report, 60, {"good": 1}, id="z")
        clock.advance(60)
        assert scheduler.tick().fired == 1

    def test_more_of_them_than_one_call_answers_do_not_stop_the_others_and_are_told_in_a_few_lines(
        self,
        scheduler: Scheduler,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(ticking, "ROUND", 5)
        monkeypatch.setattr(ticking, "BATCH_JOBS_MAX", 20)

        class Refuses:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob | None:
                if "bad" in job.data:
                    raise PushRejected("no.")
                return None

        scheduler.queue._hooks = Hooks([("refuses", Refuses())])
        made = scheduler.every(Report, 1, {"bad": 1}, id="a")
        for n in range(50):
            scheduler.queue.driver.save_schedule(replace(made, id=f"a{n:04}"), version=0)
        scheduler.every(Report, 60, {"good": 1}, id="z", misfire="all")
        clock.advance(60)
        fired = [scheduler.tick().fired]
        for _ in range(9):
            clock.advance(60)
            fired.append(scheduler.tick().fired)
        assert fired == [1] * 10
        lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(lines) == TOLD_MAX + 1
        assert lines[0] == "schedule a cannot be fired here: no."
        assert lines[-1].startswith(f"{51 - TOLD_MAX} more schedules cannot be fired here")

    def test_what_cannot_be_fired_is_told_again_after_it_went_well(
        self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Vault:
            is_sealed = True

            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob | None:
                if self.is_sealed:
                    raise PushRejected("the vault is sealed.")
                return None

        vault = Vault()
        scheduler.queue._hooks = Hooks([("vault", vault)])
        scheduler.every(Report, 60, id="r")
        told = []
        for vault.is_sealed in (True, True, False, True, True):
            clock.advance(60)
            scheduler.tick()
            told.append(caplog.text.count("the vault is sealed"))
        assert told == [1, 1, 1, 2, 2]

    @pytest.mark.parametrize("misfire", ["latest", "all"])
    def test_a_job_that_a_plugin_makes_too_large_is_held_against_its_schedule_alone(
        self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture, misfire: str
    ) -> None:
        class Inflates:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob | None:
                return replace(job, data=f'"{"x" * BATCH_BYTES_MAX}"') if "large" in job.data else None

        scheduler.queue._hooks = Hooks([("inflates", Inflates())])
        scheduler.every(Report, 60, {"large": 1}, id="large", misfire=misfire)  # type: ignore[arg-type]
        for n in range(3):
            scheduler.every(Report, 60, {"n": n}, id=f"small{n}", misfire=misfire)  # type: ignore[arg-type]
        clock.advance(120)
        assert scheduler.tick().fired == (6 if misfire == "all" else 3)
        assert "schedule large cannot be fired here" in caplog.text
        assert scheduler.tick().fired == 0

    def test_a_batch_that_the_store_refuses_is_fired_one_by_one(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Choosy(MemoryDriver):
            """A rule of the database, a row that is spoilt: the whole step is undone."""

            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                if any(said.id == "r1" for said in firings):
                    raise ContractBroken("row r1 is spoilt.")
                return super().fire(firings)

        scheduler = Scheduler(JobQueue(Choosy(clock=clock), clock=clock))
        for n in range(4):
            scheduler.every(Report, 60, id=f"r{n}")
        clock.advance(60)
        assert scheduler.tick().fired == 3
        assert caplog.text.count("schedule r1 cannot be fired here: row r1 is spoilt.") == 1

    def test_one_that_cannot_be_read_is_told_once_and_passed(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        driver = Unreadable(clock=clock)
        scheduler = Scheduler(JobQueue(driver, clock=clock))
        scheduler.every(Report, 60, id="odd")
        scheduler.every(Report, 60, id="even")
        driver.unreadable = "odd"
        fired = []
        for _ in range(3):
            clock.advance(60)
            fired.append(scheduler.tick().fired)
        assert fired == [1, 1, 1]
        assert caplog.text.count("schedule odd cannot be read: not a valid Misfire") == 1

    def test_a_declared_one_that_cannot_be_read_is_told_and_the_others_are_declared(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        driver = Unreadable(clock=clock)
        job(name="report")(lambda: None)
        tables = {name: ScheduleSetting(job="report", every=60) for name in ("odd", "other")}
        queue = JobQueue(driver, Settings(schedules=tables), clock=clock)
        Scheduler(queue).every("report", 3600, id="odd")
        driver.unreadable = "odd"
        assert [one.id for one in Scheduler(queue).declare()] == ["other"]
        assert 'schedule "odd" is stored in a form that cannot be read here' in caplog.text
        assert "protojobs schedules remove odd" in caplog.text

    def test_a_schedule_that_means_nothing_here_is_told_and_passed(
        self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = scheduler.every(Report, 60, id="odd")
        scheduler.queue.driver.save_schedule(replace(made, timezone="Mars/Olympus"), version=made.version)
        scheduler.every(Report, 60, id="even")
        clock.advance(60)
        assert scheduler.tick().fired == 1
        assert "schedule odd cannot be fired here" in caplog.text and "Mars/Olympus" in caplog.text

    @pytest.mark.parametrize("wrong", [{"catch_up": 1e300}, {"jitter": 1e300}, {"catch_up": float("nan")}])
    def test_a_number_beyond_all_reason_in_one_row_does_not_stop_the_others(
        self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture, wrong: dict[str, float]
    ) -> None:
        made = scheduler.every(Report, 60, id="odd")
        scheduler.queue.driver.save_schedule(replace(made, **wrong), version=made.version)
        scheduler.every(Report, 60, id="even")
        clock.advance(60)
        assert scheduler.tick().fired == 1
        assert "schedule odd cannot be fired here" in caplog.text

    def test_a_step_that_the_store_never_takes_does_not_turn_for_ever(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Stubborn(MemoryDriver):
            calls = 0

            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                self.calls += 1
                return [Fired(id=said.id, status=FireStatus.LOST) for said in firings]

        driver = Stubborn(clock=clock)
        scheduler = Scheduler(JobQueue(driver, clock=clock))
        scheduler.every(Report, 60, id="r")
        clock.advance(60)
        assert scheduler.tick().fired == 0
        assert driver.calls == 2
        assert "does not move on" not in caplog.text
        clock.advance(STUCK_S)
        assert scheduler.tick().fired == 0
        assert "schedule r does not move on" in caplog.text

    def test_a_schedule_that_another_ticker_has_in_hand_is_looked_at_again_soon(
        self, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A store answers `lost` also while the other one's step has the row locked; that one may die in it."""

        class Locked(MemoryDriver):
            is_locked = True

            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                if self.is_locked:
                    return [Fired(id=said.id, status=FireStatus.LOST) for said in firings]
                return super().fire(firings)

        driver = Locked(clock=clock)
        scheduler = Scheduler(JobQueue(driver, clock=clock))
        scheduler.every(Report, 3600, id="r")
        clock.advance(3600)
        assert scheduler.tick().fired == 0
        driver.is_locked = False
        clock.advance(2 * LOCKED_S)
        assert scheduler.tick().fired == 1
        assert caplog.text == ""

    def test_what_was_lost_once_is_not_remembered_for_ever(self, clock: ManualClock) -> None:
        class Faster(MemoryDriver):
            """Somebody else is always faster, and removes the schedule."""

            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                for said in firings:
                    self.remove_schedule(said.id)
                return [Fired(id=said.id, status=FireStatus.LOST) for said in firings]

        scheduler = Scheduler(JobQueue(Faster(clock=clock), clock=clock))
        for n in range(20):
            scheduler.every(Report, 60, id=f"r{n}")
        clock.advance(60)
        assert scheduler.tick().overtaken == 20
        assert len(scheduler._ticker._lost) == 20
        clock.advance(2 * STUCK_S)
        scheduler.tick()
        assert scheduler._ticker._lost == {}

    def test_a_store_that_is_away_is_told_by_tick(self, scheduler: Scheduler) -> None:
        def away(limit: int, *, cursor: object = None) -> DueSchedules:
            raise StoreUnavailable("it is away.")

        scheduler.queue.driver.due_schedules = away  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            scheduler.tick()


class TestWhatIsTold:
    def test_a_firing_is_a_push_and_a_firing(self, scheduler: Scheduler, clock: ManualClock, heard: Heard) -> None:
        told = heard("job.queuing", "job.queued", "schedule.fired")
        scheduler.hourly(Report, id="r")
        clock.advance(3602.5)
        scheduler.tick()
        queuing, queued, fired = told
        assert isinstance(queuing, JobQueuing) and isinstance(queued, JobQueued) and isinstance(fired, ScheduleFired)
        assert queuing.job_id == queued.job_id == fired.job_id == scheduler.queue.find().jobs[0].id
        assert (fired.schedule_id, fired.due_at, fired.late_s) == ("r", NOON + timedelta(hours=1), 2.5)
        assert fired.get("job_class") == Report.definition.job_class

    def test_a_listener_s_trouble_is_its_own(self, scheduler: Scheduler, clock: ManualClock) -> None:
        @events.on("schedule.fired")
        def trouble(event: Event) -> None:
            raise RuntimeError("listener")

        scheduler.hourly(Report)
        clock.advance(3600)
        assert scheduler.tick().fired == 1

    def test_log_lines(self, scheduler: Scheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "protojobs.scheduler")
        scheduler.every_minute(Report, id="r", overlap="skip")
        clock.advance(180)
        scheduler.tick()
        clock.advance(60)
        scheduler.tick()
        lines = [record.getMessage() for record in caplog.records if record.name == "protojobs.scheduler"]
        assert lines == [
            "schedule r: missed 2 time(s) from 2030-01-01 12:01:00Z on (misfire=latest)",
            "schedule r: fired for 2030-01-01 12:03:00Z",
            "schedule r: passed over 2030-01-01 12:04:00Z: the job before it is not finished (overlap=skip)",
        ]


class TestManyThatAreLate:
    """After a long outage a schedule may take half a second to plan, and there may be hundreds."""

    def test_what_was_planned_within_a_second_fires_before_the_rest_is_planned(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fired: list[int] = []

        class Counting(MemoryDriver):
            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                fired.append(len(firings))
                return super().fire(firings)

        def slowly(schedule: Schedule, now: datetime, limit: int) -> list[Step]:
            clock.advance(0.4)
            return plan(schedule, now, limit)

        monkeypatch.setattr(ticking, "plan", slowly)
        scheduler = Scheduler(JobQueue(Counting(clock=clock), clock=clock))
        for n in range(8):
            scheduler.every(Report, 60, {"n": n})
        clock.advance(60)
        assert scheduler.tick().fired == 8
        assert fired == [3, 3, 2]

    def test_only_calls_of_the_store_have_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        left: list[float] = []
        stop = StopToken()

        class Limited(MemoryDriver):
            def fire(self, firings: Sequence[Firing]) -> list[Fired]:
                left.append(time_left(99.0))
                stop.stop()
                return super().fire(firings)

        def noted(schedule: Schedule, now: datetime, limit: int) -> list[Step]:
            left.append(time_left(99.0))
            return plan(schedule, now, limit)

        monkeypatch.setattr(ticking, "plan", noted)
        scheduler = Scheduler(JobQueue(Limited()))
        scheduler.every(Report, 1)
        scheduler.run(stop)
        assert left[0] == 99.0
        assert 0.0 < left[1] <= 10.0

    def test_one_that_is_told_to_stop_does_so_after_the_round(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop = StopToken()

        def slowly(schedule: Schedule, now: datetime, limit: int) -> list[Step]:
            stop.stop()
            clock.advance(2)
            return plan(schedule, now, limit)

        monkeypatch.setattr(ticking, "plan", slowly)
        queue = JobQueue(MemoryDriver(clock=clock), clock=clock)
        scheduler = Scheduler(queue)
        for n in range(3):
            scheduler.every(Report, 60, {"n": n})
        clock.advance(60)
        scheduler.run(stop)
        assert queue.stats("reports").pending == 1


class TestRun:
    def test_it_fires_until_it_is_told_to_stop(self, eventually: Callable[[Callable[[], object]], None]) -> None:
        queue = JobQueue(MemoryDriver())
        scheduler, stop = Scheduler(queue), StopToken()
        told: list[Event] = []
        events.on("schedule.fired", told.append)
        scheduler.every(Report, 1, misfire="all")
        thread = threading.Thread(target=scheduler.run, args=[stop])
        thread.start()
        eventually(lambda: len(told) >= 2)
        stop.stop()
        thread.join(10)
        assert not thread.is_alive()
        assert queue.stats("reports").pending == len(told)

    def test_an_outage_is_sat_out_and_told_once(
        self, eventually: Callable[[Callable[[], object]], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Away(MemoryDriver):
            left = 3

            def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
                if self.left:
                    self.left -= 1
                    raise StoreUnavailable("it is away.") if self.left else ContractBroken("it stammers.")
                return super().due_schedules(limit, cursor=cursor)

        queue = JobQueue(Away(), Settings())
        scheduler, stop = Scheduler(queue), StopToken()
        scheduler.every(Report, 1)
        thread = threading.Thread(target=scheduler.run, args=[stop])
        thread.start()
        eventually(lambda: queue.stats("reports").pending)
        stop.stop()
        thread.join(10)
        assert [record.levelname for record in caplog.records if record.name == "protojobs.scheduler"] == [
            "ERROR",
            "WARNING",
        ]

    def test_one_that_was_told_before_ends_at_once(self, scheduler: Scheduler) -> None:
        stop = StopToken()
        stop.stop()
        scheduler.run(stop)
        assert scheduler.schedules() == []


class TestManyThreads:
    def test_a_stop_in_a_signal_handler_ends_a_run_wherever_it_strikes(self, make_queue: MakeQueue) -> None:
        """A handler runs in the thread that it interrupts, and so does a profiler: here at the heart of each wait."""
        stop = StopToken()

        def strike(frame: FrameType, event: str, argument: object) -> None:
            name = frame.f_code.co_qualname if event == "call" else getattr(argument, "__qualname__", "")
            if name in ("Condition.wait", "SimpleQueue.get"):
                struck.append(name)
                stop.stop()

        def run() -> None:
            sys.setprofile(strike)
            try:
                Scheduler(make_queue()).run(stop)
            finally:
                sys.setprofile(None)

        struck: list[str] = []
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
        assert struck
        assert not thread.is_alive()

    def test_runs_that_end_in_any_order_leave_ticks_as_they_were(
        self, clock: ManualClock, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        class Watched(MemoryDriver):
            def due_schedules(self, limit: int, *, cursor: DueCursor | None = None) -> DueSchedules:
                looked.add(threading.current_thread())
                return super().due_schedules(limit, cursor=cursor)

        looked: set[threading.Thread] = set()
        heard_on: list[str] = []
        events.on("schedule.fired", lambda _event: heard_on.append(threading.current_thread().name))
        scheduler = Scheduler(JobQueue(Watched(clock=clock), clock=clock))
        stops = [StopToken(), StopToken()]
        threads = [threading.Thread(target=scheduler.run, args=[stop]) for stop in stops]
        for thread in threads:
            thread.start()
            eventually(partial(looked.__contains__, thread))
        for thread, stop in zip(threads, stops, strict=True):  # the first that began ends first
            stop.stop()
            thread.join(10)
            assert not thread.is_alive()
        before = set(threading.enumerate())
        scheduler.every(Report, 60)
        clock.advance(60)
        assert scheduler.tick().fired == 1
        assert heard_on == [threading.current_thread().name]
        assert set(threading.enumerate()) <= before

    def test_threads_that_register_one_id_while_the_store_is_away_hear_so(self, clock: ManualClock) -> None:
        class Away(MemoryDriver):
            def get_schedules(self, ids: Sequence[str]) -> SchedulePage:
                both.wait(10)
                raise StoreUnavailable("it is away.")

        both = threading.Barrier(2)
        scheduler = Scheduler(JobQueue(Away(clock=clock), Settings(push_timeout=0.01)))
        raised: list[type[BaseException]] = []

        def register() -> None:
            try:
                scheduler.every(Report, 60, id="x")
            except BaseException as error:
                raised.append(type(error))

        threads = [threading.Thread(target=register) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert raised == [StoreUnavailable] * 2
