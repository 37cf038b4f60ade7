"""Makes a Schedule, checked, of what a user writes: in a call, on a job (`@job(cron=...)`), or in the configuration."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, time
from typing import cast

from msgspec import convert

from protojobs.config import Settings
from protojobs.errors import ConfigurationError, OptionInvalid, PayloadError, did_you_mean, one_line, shown
from protojobs.jobs.cron_option import CATCH_UP_MAX_S, Cron, ScheduleOptions, ScheduleSetting
from protojobs.jobs.definition import Registry
from protojobs.jobs.job_class import as_bound
from protojobs.names import check_name, check_seconds, check_text_choice, check_zone, parse_when
from protojobs.new_jobs import new_job
from protojobs.port.records import JOB_FIELDS, Capabilities, payload_bytes
from protojobs.port.schedules import SCHEDULE_BYTES_MAX, SCHEDULE_ID_BYTES_MAX, Misfire, Overlap, Schedule
from protojobs.timetable.cron import check_cron
from protojobs.timetable.timetable import interval_spec

__all__ = ["Registering", "clock_fields", "day_field"]

JITTER_MAX_S = 86_400.0
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_log = logging.getLogger("protojobs.scheduler")


class Registering:
    """Makes schedules of the jobs in one registry. Options that are left open are those of the settings."""

    def __init__(self, registry: Registry, settings: Settings, store: Capabilities) -> None:
        self._registry = registry
        self._store = store
        self._settings = settings

    def schedule(self, job: object, spec: str, data: object, options: ScheduleOptions) -> Schedule:
        """The schedule that a user asks for, without history. Raises OptionInvalid or a PayloadError."""
        _check_known(options)
        settings = self._settings
        template = new_job(as_bound(job, data, self._registry), settings, self._store)
        if (size := payload_bytes(template.data)) > SCHEDULE_BYTES_MAX:
            raise OptionInvalid(
                f"The data of a schedule takes {size:,} bytes.", mend=f"At most {SCHEDULE_BYTES_MAX:,} are allowed."
            )
        own_zone = options.get("timezone")
        zone = settings.timezone if own_zone is None else own_zone
        check_zone("timezone", zone)
        start, end = (_moment(name, cast("dict[str, object]", options), zone) for name in ("start", "end"))
        if start is not None and end is not None and end < start:
            raise OptionInvalid(f"end {end.isoformat()} is before start {start.isoformat()}.")
        catch_up = options.get("catch_up")
        when = {
            "id": _checked_id(options.get("id")) or _default_id(template.job_name, spec, zone, template.data),
            "spec": spec,
            "timezone": zone,
            "misfire": Misfire(check_text_choice("misfire", options.get("misfire", "latest"), tuple(Misfire))),
            "overlap": Overlap(check_text_choice("overlap", options.get("overlap", "allow"), tuple(Overlap))),
            "catch_up": settings.catch_up
            if catch_up is None
            else check_seconds("catch_up", catch_up, maximum=CATCH_UP_MAX_S),
            "jitter": check_seconds("jitter", options.get("jitter", 0.0), maximum=JITTER_MAX_S),
            "start_at": start,
            "end_at": end,
        }
        return convert({field: getattr(template, field) for field in JOB_FIELDS} | when, Schedule)

    def declared(self, *, skip_unknown: bool) -> dict[str, Schedule]:
        """What jobs and the configuration declare, by id. Raises OptionInvalid where two of them do not agree."""
        declared: dict[str, tuple[str, Schedule]] = {}
        for where, schedule in self._declarations(skip_unknown=skip_unknown):
            other, before = declared.setdefault(schedule.id, (where, schedule))
            if before != schedule:  # each start would change it back and forth
                raise OptionInvalid(
                    f'schedule "{schedule.id}" is declared twice, and not the same: {other} has {shown(before.spec)} '
                    f"of {before.job_name}, {where} has {shown(schedule.spec)} of {schedule.job_name}.",
                    mend="Give each its own id=.",
                )
        return {schedule_id: schedule for schedule_id, (_, schedule) in declared.items()}

    def _declarations(self, *, skip_unknown: bool) -> Iterator[tuple[str, Schedule]]:
        """Each declared schedule, and where it is declared."""
        for name, cron in self._registry.crons():
            with _named(where := f'the schedule of job "{name}"'):
                options = {field: getattr(cron, field) for field in Cron.__struct_fields__[1:]}
                options["id"] = cron.id or name
                schedule = self.schedule(name, check_cron(cron.expression), None, cast("ScheduleOptions", options))
            yield where, schedule
        for name, setting in self._settings.schedules.items():
            if skip_unknown and self._registry.find(setting.job) is None:
                _log.warning("schedules.%s is not stored from here: no job %s has been imported", name, setting.job)
                continue
            with _named(where := f"schedules.{name}"):
                schedule = self._of_setting(name, setting)
            yield where, schedule

    def _of_setting(self, name: str, setting: ScheduleSetting) -> Schedule:
        fields = ("timezone", "misfire", "overlap", "catch_up", "jitter", "start", "end")
        options = cast("ScheduleOptions", {field: getattr(setting, field) for field in fields} | {"id": name})
        if (setting.cron is None) == (setting.every is None):
            raise OptionInvalid('it has "cron" or "every", one of them.')
        every = setting.every or 0.0
        spec = check_cron(setting.cron) if setting.cron is not None else interval_spec("interval", every)
        return self.schedule(setting.job, spec, setting.data, options)


@contextmanager
def _named(what: str) -> Generator[None]:
    """What is wrong in the block is said of `what`, which the person who reads it wrote."""
    try:
        yield
    except (ConfigurationError, PayloadError) as error:
        raise type(error)(f"{what}: {error.message}", mend=error.mend) from error


def _check_known(options: ScheduleOptions) -> None:
    options_known = ScheduleOptions.__annotations__
    for name in options:
        if name not in options_known:
            mend = did_you_mean(name, options_known) or f"There are {', '.join(options_known)}."
            raise OptionInvalid(f'There is no schedule option "{one_line(name)}".', mend=mend)


def _moment(name: str, options: dict[str, object], zone: str) -> datetime | None:
    value = options.get(name)
    return None if value is None else parse_when(name, value, zone)


def _checked_id(value: object) -> str | None:
    return None if value is None else check_name("schedule id", value, maximum=SCHEDULE_ID_BYTES_MAX)


def _default_id(job_name: str, spec: str, zone: str, data: str) -> str:
    digest = hashlib.blake2b("\x1f".join((spec, zone, data)).encode(), digest_size=5).hexdigest()
    return f"{job_name}-{digest}"


def clock_fields(at: object) -> str:
    """`02:30` as the cron fields `30 2`, `02:30:15` as `15 30 2`."""
    if isinstance(at, str):
        try:
            at = time.fromisoformat(at)
        except ValueError:
            raise OptionInvalid(f"at {shown(at)} is no time of day.", mend='Write it like "02:00".') from None
    if not isinstance(at, time) or at.tzinfo is not None or at.microsecond:
        raise OptionInvalid(f"at {shown(at)} is no time of day.", mend='Write it like "02:00"; the zone is timezone=.')
    return f"{at.second} {at.minute} {at.hour}" if at.second else f"{at.minute} {at.hour}"


def day_field(day: object) -> str:
    """`monday`, `mon` or 1 as the cron field `mon` or `1`."""
    if isinstance(day, str):
        days = [name for name in _DAYS if day.lower() in (name, name[:3])]
        if not days:
            raise OptionInvalid(f"day {shown(day)} is no day of the week.", mend=did_you_mean(day.lower(), _DAYS))
        return days[0][:3]
    if isinstance(day, bool) or not isinstance(day, int) or not 0 <= day <= 7:
        raise OptionInvalid(f"day {shown(day)} is no day of the week.", mend="1 is Monday, 7 (or 0) is Sunday.")
    return str(day)
