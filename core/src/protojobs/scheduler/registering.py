"""Registering schedules, and looking after them. Every change is read, decide, and save if nobody was in between."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from protojobs.clock import within
from protojobs.entropy import fresh_id
from protojobs.errors import (
    ConfigurationError,
    ContractBroken,
    OptionInvalid,
    PayloadError,
    ScheduleUnknown,
    ScheduleUnreadable,
    did_you_mean,
    one_line,
    shown,
)
from protojobs.jobs.cron_option import CATCH_UP_MAX_S, Cron, ScheduleOptions, ScheduleSetting
from protojobs.jobs.job_class import as_bound
from protojobs.names import check_name, check_seconds, check_text_choice, check_zone, parse_when
from protojobs.port.schedules import (
    SCHEDULE_BYTES_MAX,
    SCHEDULE_ID_BYTES_MAX,
    Misfire,
    Overlap,
    Schedule,
    SchedulePage,
    only,
)
from protojobs.queue.pushing import new_job, until_answered
from protojobs.queue.queue import push_made
from protojobs.scheduler.planning import job_of, next_after_change
from protojobs.timetable.cron import check_cron
from protojobs.timetable.timetable import interval_spec, timetable_of

if TYPE_CHECKING:
    from typing import Unpack

    from protojobs.queue.queue import JobQueue

__all__ = ["Scheduling", "Upcoming"]

JITTER_MAX_S = 86_400.0
TRIES = 100  # to save a schedule that others change at the same moment
PAGE = 100
NEXT_MAX = 1_000
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_UNTOUCHED = {"is_paused": False, "next_due_at": None, "last_due_at": None, "last_job_id": None, "version": 0}

T = TypeVar("T")
_log = logging.getLogger("protojobs.scheduler")


class Upcoming(Struct, frozen=True):
    """One of the times that lie ahead."""

    due_at: datetime
    schedule: Schedule


class Scheduling:
    """What `Scheduler` does to the stored schedules."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.has_declared = False

    def in_(self, job: object, delay: float | timedelta, data: object = None) -> str:
        """Run the job once, `delay` (seconds or a timedelta) from now; returns its id. The same as `queue.later`."""
        return self.queue.later(check_seconds("delay", delay), job, data)

    def at(self, job: object, when: datetime | timedelta | str, data: object = None) -> str:
        """Run the job once, at `when`: an aware datetime, text such as "2030-01-31 12:00", or a timedelta from now.

        Text without an offset is read in the configured `timezone`. A time that is over is due at once. Returns the id.
        """
        if not isinstance(when, datetime | timedelta | str):
            raise OptionInvalid(f"at() takes a date, not {shown(when)}.", mend="For seconds from now there is in_().")
        return self.queue.later(when, job, data)

    def every(
        self, job: object, interval: float | timedelta, data: object = None, **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Every `interval` (seconds or a timedelta, at least one second), counted from `start`, without drift.

        Without a `start` the first time is one interval after it is registered.
        """
        return self._put(self._wanted(job, interval_spec("interval", interval), data, options))

    def every_minute(self, job: object, data: object = None, **options: Unpack[ScheduleOptions]) -> Schedule:
        """At the beginning of each minute."""
        return self.cron(job, "* * * * *", data, **options)

    def every_five_minutes(self, job: object, data: object = None, **options: Unpack[ScheduleOptions]) -> Schedule:
        """At minute 0, 5, 10 and so on."""
        return self.cron(job, "*/5 * * * *", data, **options)

    def hourly(self, job: object, data: object = None, minute: int = 0, **options: Unpack[ScheduleOptions]) -> Schedule:
        """Each hour, at that minute."""
        return self.cron(job, f"{minute} * * * *", data, **options)

    def daily(
        self, job: object, data: object = None, at: str | time = "00:00", **options: Unpack[ScheduleOptions]
    ) -> Schedule:
        """Each day at a time such as "02:00" or "02:00:30", on the clocks of the schedule's zone."""
        return self.cron(job, f"{_clock_fields(at)} * * *", data, **options)

    def weekly(
        self,
        job: object,
        data: object = None,
        day: str | int = "monday",
        at: str | time = "00:00",
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Each week on that day: its English name, its first three letters, or 1 (Monday) to 7 (Sunday; 0 too)."""
        return self.cron(job, f"{_clock_fields(at)} * * {_day(day)}", data, **options)

    def cron(self, job: object, expression: str, data: object = None, **options: Unpack[ScheduleOptions]) -> Schedule:
        """At the times of a cron expression: minute, hour, day of month, month, day of week; with six fields, seconds
        first. Names, ranges, steps, lists, `L`, `LW`, `5L`, `1#2`, and `@hourly` and its kin.

        Every recurring schedule takes the options `id`, `timezone`, `misfire`, `overlap`, `catch_up`, `jitter`, `start`
        and `end`. Registering it again changes nothing, or, under its `id`, what differs: the last call counts, in this
        process or another. Returns it as it is stored.
        Raises OptionInvalid or a PayloadError with nothing stored.
        """
        return self._put(self._wanted(job, check_cron(expression), data, options))

    def declare(self, *, skip_unknown: bool = False) -> list[Schedule]:
        """Store what jobs (`@job(cron=...)`) and the configuration (`[schedules.<id>]`) say of their schedules.

        One that is stored in a form that cannot be read here is told and left as it is, and holds up no other.

        Workers, `protojobs scheduler` and the first `tick` do it by themselves. `skip_unknown` passes over those in the
        configuration whose job has not been imported here: another process, which knows it, declares it.
        """
        wanted: dict[str, tuple[str, Schedule]] = {}
        for where, said in self._declarations(skip_unknown=skip_unknown):
            other, before = wanted.setdefault(said.id, (where, said))
            if before != said:  # each start would change it back and forth
                raise OptionInvalid(
                    f'schedule "{said.id}" is declared twice, and not the same: {other} has {shown(before.spec)} of '
                    f"{before.job_name}, {where} has {shown(said.spec)} of {said.job_name}.",
                    mend="Give each its own id=.",
                )
        declared: list[Schedule] = []
        for _, said in wanted.values():
            try:
                declared.append(self._put(said))
            except ScheduleUnreadable as error:
                _log.error("%s", error, extra={"schedule": said.id})
        self.has_declared = True
        return declared

    def _declarations(self, *, skip_unknown: bool) -> Iterator[tuple[str, Schedule]]:
        """Each declared schedule, checked, and where it is declared."""
        for name, cron in self.queue.registry.crons():
            with _named(where := f'the schedule of job "{name}"'):
                options = {field: getattr(cron, field) for field in Cron.__struct_fields__[1:]}
                options["id"] = cron.id or name
                wanted = self._wanted(name, check_cron(cron.expression), None, cast("ScheduleOptions", options))
            yield where, wanted
        for name, said in self.queue.settings.schedules.items():
            if skip_unknown and self.queue.registry.find(said.job) is None:
                _log.warning("schedules.%s is not stored from here: no job %s has been imported", name, said.job)
                continue
            with _named(where := f"schedules.{name}"):
                wanted = self._said_by_setting(name, said)
            yield where, wanted

    def _said_by_setting(self, name: str, said: ScheduleSetting) -> Schedule:
        fields = ("timezone", "misfire", "overlap", "catch_up", "jitter", "start", "end")
        options = cast("ScheduleOptions", {field: getattr(said, field) for field in fields} | {"id": name})
        if (said.cron is None) == (said.every is None):
            raise OptionInvalid('it has "cron" or "every", one of them.')
        spec = check_cron(said.cron) if said.cron is not None else interval_spec("interval", said.every or 0.0)
        return self._wanted(said.job, spec, said.data, options)

    def schedules(self) -> list[Schedule]:
        """All stored schedules, by id."""
        return list(self.iterate())

    def iterate(self) -> Iterator[Schedule]:
        """The same, read as they are asked for."""
        for page in self.pages():
            yield from page.schedules

    def pages(self) -> Iterator[SchedulePage]:
        """All stored schedules page by page, with those that cannot be read."""
        cursor: str | None = None
        while True:
            page = self.queue.driver.list_schedules(limit=PAGE, cursor=cursor)
            yield page
            if (cursor := page.cursor) is None:
                return

    def get(self, schedule_id: str) -> Schedule | None:
        """The schedule of that id. Raises ScheduleUnreadable."""
        return only(self.queue.driver.get_schedules([schedule_id]))

    def pause(self, schedule_id: str) -> bool:
        """Let no time fire until `resume`. False: it was paused."""
        return self._change(schedule_id, lambda known, now: None if known.is_paused else replace(known, is_paused=True))

    def resume(self, schedule_id: str) -> bool:
        """Undo `pause`. The times that came meanwhile stay passed over. False: it was not paused."""

        def resumed(known: Schedule, now: datetime) -> Schedule | None:
            if not known.is_paused:
                return None
            base = now if known.last_due_at is None else max(now, known.last_due_at)
            return replace(known, is_paused=False, next_due_at=timetable_of(known).after(base))

        return self._change(schedule_id, resumed)

    def remove(self, schedule_id: str) -> bool:
        """Forget a schedule; jobs that it has fired stay. False: there was none.

        One that code or configuration declares comes back when the next worker starts: take it out there first.
        """
        return self._answered(lambda: self.queue.driver.remove_schedule(schedule_id))

    def run_now(self, schedule_id: str) -> str:
        """Push the schedule's job once, now, beside its times; returns the job's id."""
        known = self.get(schedule_id)
        if known is None:
            raise self._unknown(schedule_id)
        return push_made(self.queue, job_of(known, fresh_id()))

    def next(self, n: int = 1, *, id: str | None = None) -> list[Upcoming]:
        """The next `n` (up to 1,000) due times of all schedules that are not paused, or of the one named, in order."""
        if id is None:
            known: list[Schedule] = [one for one in self.iterate() if not one.is_paused]
        elif (one := self.get(id)) is None:
            raise self._unknown(id)
        else:
            known = [one]
        upcoming = [Upcoming(due, schedule) for schedule in known for due in _first_times(schedule, min(n, NEXT_MAX))]
        return sorted(upcoming, key=lambda one: (one.due_at, one.schedule.id))[: min(n, NEXT_MAX)]

    def _put(self, wanted: Schedule) -> Schedule:
        return self._answered(lambda: self._saved(wanted))

    def _wanted(self, job: object, spec: str, data: object, options: ScheduleOptions) -> Schedule:
        """The schedule that the user asks for, checked, without history."""
        _check_known(options)
        settings = self.queue.settings
        made = new_job(as_bound(job, data, self.queue.registry), settings)
        if (size := len(made.data.encode())) > SCHEDULE_BYTES_MAX:
            raise OptionInvalid(
                f"The data of a schedule takes {size:,} bytes.", mend=f"At most {SCHEDULE_BYTES_MAX:,} are allowed."
            )
        given_zone = options.get("timezone")
        zone = settings.timezone if given_zone is None else given_zone
        check_zone("timezone", zone)
        start, end = (_moment(name, cast("dict[str, object]", options), zone) for name in ("start", "end"))
        if start is not None and end is not None and end < start:
            raise OptionInvalid(f"end {end.isoformat()} is before start {start.isoformat()}.")
        given = options.get("catch_up")
        return Schedule(
            id=_checked_id(options.get("id")) or _default_id(made.job_name, spec, zone, made.data),
            spec=spec,
            timezone=zone,
            misfire=Misfire(check_text_choice("misfire", options.get("misfire", "latest"), tuple(Misfire))),
            overlap=Overlap(check_text_choice("overlap", options.get("overlap", "allow"), tuple(Overlap))),
            catch_up=settings.catch_up if given is None else check_seconds("catch_up", given, maximum=CATCH_UP_MAX_S),
            jitter=check_seconds("jitter", options.get("jitter", 0.0), maximum=JITTER_MAX_S),
            start_at=start,
            end_at=end,
            queue=made.queue,
            job_name=made.job_name,
            job_class=made.job_class,
            data=made.data,
            priority=made.priority,
            max_retries=made.max_retries,
            retry_delay=made.retry_delay,
            retry_policy=made.retry_policy,
            timeout=made.timeout,
        )

    def _saved(self, wanted: Schedule) -> Schedule:
        """Stored now, or found as it should be."""
        for _ in range(TRIES):
            stored = self.get(wanted.id)
            if stored is not None and replace(stored, **_UNTOUCHED) == wanted:
                return stored
            now, version = self.queue.driver.now(), 0
            new = replace(wanted, next_due_at=next_after_change(wanted, stored, now))
            if stored is not None:
                version = stored.version
                history = {"is_paused": stored.is_paused, "last_due_at": stored.last_due_at}
                new = replace(new, **history, last_job_id=stored.last_job_id)
            if self.queue.driver.save_schedule(new, version=version):
                return replace(new, version=version + 1)
        raise _too_busy(wanted.id)

    def _change(self, schedule_id: str, change: Callable[[Schedule, datetime], Schedule | None]) -> bool:
        """Save what `change` makes of the schedule; False when it makes nothing of it."""

        def changed() -> bool:
            for _ in range(TRIES):
                known = self.get(schedule_id)
                if known is None:
                    raise self._unknown(schedule_id)
                new = change(known, self.queue.driver.now())
                if new is None:
                    return False
                if self.queue.driver.save_schedule(new, version=known.version):
                    return True
            raise _too_busy(schedule_id)

        return self._answered(changed)

    def _answered(self, call: Callable[[], T]) -> T:
        """`call()`, with the patience of a push."""
        limit = self.queue.settings.push_timeout
        with within(limit):
            return until_answered(call, limit, self.queue.clock)

    def _unknown(self, schedule_id: str) -> ScheduleUnknown:
        known = [one.id for one in islice(self.iterate(), 1_000)]
        meant = did_you_mean(schedule_id, known)
        return ScheduleUnknown(
            f'There is no schedule "{one_line(schedule_id)}".', mend=meant or "protojobs schedules list"
        )


def due_times(schedule: Schedule) -> Iterator[datetime]:
    """The times that a stored schedule waits for, from its next one on."""
    if schedule.next_due_at is not None:
        yield schedule.next_due_at
        yield from timetable_of(schedule).upcoming(schedule.next_due_at)


def _first_times(schedule: Schedule, n: int) -> list[datetime]:
    """Of one whose zone means nothing here only the time that it waits for is known."""
    try:
        return list(islice(due_times(schedule), n))
    except OptionInvalid:
        return [schedule.next_due_at] if schedule.next_due_at is not None else []


@contextmanager
def _named(what: str) -> Generator[None]:
    """What is wrong in the block is said of `what`, which the person who reads it wrote."""
    try:
        yield
    except (ConfigurationError, PayloadError) as error:
        raise type(error)(f"{what}: {error.message}", mend=error.mend) from error


def _too_busy(schedule_id: str) -> ContractBroken:
    return ContractBroken(f'schedule "{schedule_id}" changed {TRIES} times while it was to be saved.')


def _check_known(options: ScheduleOptions) -> None:
    known = ScheduleOptions.__annotations__
    for name in options:
        if name not in known:
            mend = did_you_mean(name, known) or f"There are {', '.join(known)}."
            raise OptionInvalid(f'There is no schedule option "{one_line(name)}".', mend=mend)


def _moment(name: str, options: dict[str, object], zone: str) -> datetime | None:
    given = options.get(name)
    return None if given is None else parse_when(name, given, zone)


def _checked_id(given: object) -> str | None:
    return None if given is None else check_name("schedule id", given, maximum=SCHEDULE_ID_BYTES_MAX)


def _default_id(job_name: str, spec: str, zone: str, data: str) -> str:
    digest = hashlib.blake2b("\x1f".join((spec, zone, data)).encode(), digest_size=5).hexdigest()
    return f"{job_name}-{digest}"


def _clock_fields(at: object) -> str:
    """`02:30` as the cron fields `30 2`, `02:30:15` as `15 30 2`."""
    if isinstance(at, str):
        try:
            at = time.fromisoformat(at)
        except ValueError:
            raise OptionInvalid(f"at {shown(at)} is no time of day.", mend='Write it like "02:00".') from None
    if not isinstance(at, time) or at.tzinfo is not None or at.microsecond:
        raise OptionInvalid(f"at {shown(at)} is no time of day.", mend='Write it like "02:00"; the zone is timezone=.')
    return f"{at.second} {at.minute} {at.hour}" if at.second else f"{at.minute} {at.hour}"


def _day(day: object) -> str:
    if isinstance(day, str):
        found = [name for name in _DAYS if day.lower() in (name, name[:3])]
        if not found:
            raise OptionInvalid(f"day {shown(day)} is no day of the week.", mend=did_you_mean(day.lower(), _DAYS))
        return found[0][:3]
    if isinstance(day, bool) or not isinstance(day, int) or not 0 <= day <= 7:
        raise OptionInvalid(f"day {shown(day)} is no day of the week.", mend="1 is Monday, 7 (or 0) is Sunday.")
    return str(day)
