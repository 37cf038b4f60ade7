"""Scheduler: jobs at a time, and again and again. Any number of processes may tick; each due time fires once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from protojobs.entropy import fresh_id, jittered
from protojobs.errors import ConfigurationError, OptionInvalid, PayloadError, ScheduleUnreadable, shown
from protojobs.hooks.dispatcher import Dispatcher
from protojobs.jobs.cron_option import ScheduleOptions
from protojobs.jobs.job_class import as_bound
from protojobs.names import Delay, check_seconds
from protojobs.new_jobs import new_job
from protojobs.port.schedules import Schedule, SchedulePage
from protojobs.queue.coroutines import in_thread
from protojobs.queue.queue import JobQueue, push_made
from protojobs.scheduler.planning import due_times, job_of
from protojobs.scheduler.registering import Registering, clock_fields, day_field
from protojobs.scheduler.stored_schedules import StoredSchedules
from protojobs.scheduler.ticking import Ticker, TickReport
from protojobs.stopping import StopToken, Wakeup
from protojobs.timetable.cron import check_cron
from protojobs.timetable.timetable import interval_spec, timetable_of

if TYPE_CHECKING:
    from typing import Unpack

    from protojobs.jobs.accepted import DataOf, PushedData, ScheduledJob

__all__ = ["Scheduler", "TickReport", "Upcoming"]

LOOK_EVERY_S = 1.0  # at least: others may store a schedule that is due sooner
SPREAD_S = 0.05  # tickers that wait for the same time do not all ask at once
PAUSE_MAX_S = 2.0
OBSERVERS_END_S = 5.0
NEXT_MAX = 1_000
_log = logging.getLogger("protojobs.scheduler")


class Upcoming(Struct, frozen=True):
    """One of the times that lie ahead."""

    due_at: datetime
    schedule: Schedule


class Scheduler:
    """Runs jobs later, and again and again.

    Recurring schedules are stored by the driver: they outlive restarts, and any number of tickers (`run`, `tick`,
    `protojobs scheduler`, every `protojobs worker`) fires each due time exactly once. Thread-safe. Every method that
    waits for the store has a twin with an `a` in front for coroutines.
    """

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.has_declared = False
        self._registering = Registering(queue.registry, queue.settings, queue.driver.capabilities)
        self._stored = StoredSchedules(queue.driver, queue.settings.push_timeout, queue.clock)
        self._ticker = Ticker(queue, lambda event: queue.hooks.notify(event))
        self._turn = threading.RLock()  # a listener may tick

    def in_(
        self, job: ScheduledJob[PushedData], delay: float | timedelta, data: DataOf[PushedData] | None = None
    ) -> str:
        """Run the job once, `delay` (seconds or a timedelta) from now; returns its id. The same as `queue.later`."""
        return self._once(job, check_seconds("delay", delay), data)

    def at(
        self, job: ScheduledJob[PushedData], when: datetime | timedelta | str, data: DataOf[PushedData] | None = None
    ) -> str:
        """Run the job once, at `when`: an aware datetime, text such as "2030-01-31 12:00", or a timedelta from now.

        Text without an offset is read in the configured `timezone`. A time that is over is due at once. Returns the id.
        """
        if not isinstance(when, datetime | timedelta | str):
            raise OptionInvalid(f"at() takes a date, not {shown(when)}.", mend="For seconds from now there is in_().")
        return self._once(job, when, data)

    def every(
        self,
        job: ScheduledJob[PushedData],
        interval: float | timedelta,
        data: DataOf[PushedData] | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Every `interval` (seconds or a timedelta, at least one second), counted from `start`, without drift.

        Without a `start` the first time is one interval after it is registered.
        """
        spec = interval_spec("interval", interval)
        return self._stored.put(self._registering.schedule(job, spec, data, options))

    def every_minute(
        self, job: ScheduledJob[PushedData], data: DataOf[PushedData] | None = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """At the beginning of each minute."""
        return self.cron(job, "* * * * *", data, **options)

    def every_five_minutes(
        self, job: ScheduledJob[PushedData], data: DataOf[PushedData] | None = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """At minute 0, 5, 10 and so on."""
        return self.cron(job, "*/5 * * * *", data, **options)

    def hourly(
        self,
        job: ScheduledJob[PushedData],
        data: DataOf[PushedData] | None = None,
        minute: int = 0,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Each hour, at that minute."""
        return self.cron(job, f"{minute} * * * *", data, **options)

    def daily(
        self,
        job: ScheduledJob[PushedData],
        data: DataOf[PushedData] | None = None,
        at: str | time = "00:00",
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Each day at a time such as "02:00" or "02:00:30", on the clocks of the schedule's zone."""
        return self.cron(job, f"{clock_fields(at)} * * *", data, **options)

    def weekly(
        self,
        job: ScheduledJob[PushedData],
        data: DataOf[PushedData] | None = None,
        day: str | int = "monday",
        at: str | time = "00:00",
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Each week on that day: its English name, its first three letters, or 1 (Monday) to 7 (Sunday; 0 too)."""
        return self.cron(job, f"{clock_fields(at)} * * {day_field(day)}", data, **options)

    def cron(
        self,
        job: ScheduledJob[PushedData],
        expression: str,
        data: DataOf[PushedData] | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """At the times of a cron expression: minute, hour, day of month, month, day of week; with six fields, seconds
        first. Names, ranges, steps, lists, `L`, `LW`, `5L`, `1#2`, and `@hourly` and its kin.

        Every recurring schedule takes the options `id`, `timezone`, `misfire`, `overlap`, `catch_up`, `jitter`, `start`
        and `end`. Registering it again changes nothing, or, under its `id`, what differs: the last call counts, in this
        process or another. Returns it as it is stored.
        Raises OptionInvalid or a PayloadError with nothing stored.
        """
        spec = check_cron(expression)
        return self._stored.put(self._registering.schedule(job, spec, data, options))

    def declare(self, *, skip_unknown: bool = False) -> list[Schedule]:
        """Store what jobs (`@job(cron=...)`) and the configuration (`[schedules.<id>]`) say of their schedules.

        One that is stored in a form that cannot be read here is told and left as it is, and holds up no other.

        Workers, `protojobs scheduler` and the first `tick` do it by themselves. `skip_unknown` passes over those in the
        configuration whose job has not been imported here: another process, which knows it, declares it.
        """
        declared: list[Schedule] = []
        for schedule_id, schedule in self._registering.declared(skip_unknown=skip_unknown).items():
            try:
                declared.append(self._stored.put(schedule))
            except ScheduleUnreadable as error:
                _log.error("%s", error, extra={"schedule": schedule_id})
        self.has_declared = True
        return declared

    def schedules(self) -> list[Schedule]:
        """All stored schedules, by id."""
        return list(self._stored)

    def iterate(self) -> Iterator[Schedule]:
        """The same, read as they are asked for."""
        return iter(self._stored)

    def pages(self) -> Iterator[SchedulePage]:
        """All stored schedules page by page, with those that cannot be read."""
        return self._stored.pages()

    def get(self, schedule_id: str) -> Schedule | None:
        """The schedule of that id. Raises ScheduleUnreadable."""
        return self._stored.find(schedule_id)

    def pause(self, schedule_id: str) -> bool:
        """Let no time fire until `resume`. False: it was paused."""
        return self._stored.change(schedule_id, _paused)

    def resume(self, schedule_id: str) -> bool:
        """Undo `pause`. The times that came meanwhile stay passed over. False: it was not paused."""
        return self._stored.change(schedule_id, _resumed)

    def remove(self, schedule_id: str) -> bool:
        """Forget a schedule; jobs that it has fired stay. False: there was none.

        One that code or configuration declares comes back when the next worker starts: take it out there first.
        """
        return self._stored.remove(schedule_id)

    def run_now(self, schedule_id: str) -> str:
        """Push the schedule's job once, now, beside its times; returns the job's id."""
        return push_made(self.queue, job_of(self._stored.get(schedule_id), fresh_id()))

    def next(self, n: int = 1, *, id: str | None = None) -> list[Upcoming]:
        """The next `n` (up to 1,000) due times of all schedules that are not paused, or of the one named, in order."""
        schedules = [one for one in self._stored if not one.is_paused] if id is None else [self._stored.get(id)]
        count = min(n, NEXT_MAX)
        upcoming = [Upcoming(due, schedule) for schedule in schedules for due in _first_times(schedule, count)]
        return sorted(upcoming, key=lambda one: (one.due_at, one.schedule.id))[:count]

    def tick(self) -> TickReport:
        """Fire everything that is due now, and say what was done. Raises what the driver raises.

        Two threads that call it take turns.
        """
        with self._turn:
            return self._tick(self._ticker, lambda: False)

    def run(self, stop: StopToken | None = None) -> None:
        """Tick whenever something is due, until `stop` is told to. An outage of the store is sat out.

        Raises ConfigurationError or PayloadError at the start, for a declared schedule that is wrong.
        """
        ended = Wakeup()  # `stop` may be told in a signal handler
        unsubscribe = (stop or StopToken()).subscribe(lambda _level: ended.set())
        dispatcher = Dispatcher(self.queue.hooks)
        ticker = Ticker(self.queue, dispatcher.send)  # its own, as others may run or tick at the same time
        pause_s, is_degraded = 0.0, False
        try:
            while not ended.is_set():
                try:
                    wait_s = _until_next(self._tick(ticker, ended.is_set))
                    if is_degraded:
                        _log.warning("the store answers again")
                    pause_s, is_degraded = 0.0, False
                except (ConfigurationError, PayloadError):  # a declaration is wrong, or the store keeps no schedules
                    raise
                except Exception as error:  # noqa: BLE001  (whatever it was, the next times are to fire)
                    if not is_degraded:
                        _log.error("ticking failed; trying again: %s", error, exc_info=error)
                    is_degraded, pause_s = True, min(2 * pause_s + 0.1, PAUSE_MAX_S)
                    wait_s = jittered(pause_s)
                ended.wait(wait_s)
        finally:
            unsubscribe()
            dispatcher.close(OBSERVERS_END_S)

    ain_ = in_thread(in_)
    aat = in_thread(at)
    aevery = in_thread(every)
    aevery_minute = in_thread(every_minute)
    aevery_five_minutes = in_thread(every_five_minutes)
    ahourly = in_thread(hourly)
    adaily = in_thread(daily)
    aweekly = in_thread(weekly)
    acron = in_thread(cron)
    adeclare = in_thread(declare)
    aschedules = in_thread(schedules)
    aget = in_thread(get)
    apause = in_thread(pause)
    aresume = in_thread(resume)
    aremove = in_thread(remove)
    arun_now = in_thread(run_now)
    anext = in_thread(next)
    atick = in_thread(tick)

    def _once(self, job: object, delay: Delay, data: object) -> str:
        bound = as_bound(job, data, self.queue.registry)
        return push_made(self.queue, new_job(bound, self.queue.settings, self.queue.driver.capabilities, delay=delay))

    def _tick(self, ticker: Ticker, is_over: Callable[[], bool]) -> TickReport:
        if not self.has_declared:
            self.declare(skip_unknown=True)
        return ticker.tick(is_over)


def _paused(schedule: Schedule, now: datetime) -> Schedule | None:
    return None if schedule.is_paused else replace(schedule, is_paused=True)


def _resumed(schedule: Schedule, now: datetime) -> Schedule | None:
    if not schedule.is_paused:
        return None
    base = now if schedule.last_due_at is None else max(now, schedule.last_due_at)
    return replace(schedule, is_paused=False, next_due_at=timetable_of(schedule).after(base))


def _first_times(schedule: Schedule, n: int) -> list[datetime]:
    """Of one whose zone means nothing here only the time that it waits for is known."""
    try:
        return list(islice(due_times(schedule), n))
    except OptionInvalid:
        return [schedule.next_due_at] if schedule.next_due_at is not None else []


def _until_next(report: TickReport) -> float:
    """Seconds to wait after a tick."""
    due_in = LOOK_EVERY_S if report.next_due_in is None else min(report.next_due_in, LOOK_EVERY_S)
    return due_in + jittered(SPREAD_S / 2, 1.0)
