"""How a schedule is written down: by `Scheduler`'s methods, on a job (`@job(cron=...)`), or in the configuration."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypedDict

from msgspec import Struct

from protojobs.errors import OptionInvalid, shown
from protojobs.names import check_zone
from protojobs.port.schedules import Misfire, Overlap

__all__ = [
    "CATCH_UP_MAX_S",
    "Cron",
    "MisfireName",
    "OverlapName",
    "ScheduleOptions",
    "ScheduleSetting",
    "check_schedule",
]

CATCH_UP_MAX_S = 31 * 86_400.0

MisfireName = Literal["latest", "all", "skip"]
OverlapName = Literal["allow", "skip", "queue_one"]


class ScheduleOptions(TypedDict, total=False):
    """What every recurring schedule takes beside its job and its times; docs/how-to/schedules.md tells each."""

    id: str | None
    timezone: str | None
    misfire: Misfire | MisfireName
    overlap: Overlap | OverlapName
    catch_up: float | timedelta | None
    jitter: float | timedelta
    start: datetime | str | None
    end: datetime | str | None


class Cron(Struct, frozen=True):
    """A cron expression with options, for a job that carries its own schedule:

        @job(cron=Cron("0 9 * * mon", timezone="Europe/Paris"))

    Its id is the job's name, unless one is given: changing the expression changes that schedule. The options are those
    of `Scheduler.cron`.
    """

    expression: str
    id: str | None = None
    timezone: str | None = None
    misfire: MisfireName = "latest"
    overlap: OverlapName = "allow"
    catch_up: float | None = None
    jitter: float = 0.0
    start: str | None = None
    end: str | None = None


class ScheduleSetting(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule in the configuration file: a table `[schedules.<id>]`."""

    job: str
    """The registered name of the job."""
    cron: str | None = None
    every: float | None = None
    """Seconds. Either this or `cron`."""
    data: object = None
    timezone: str | None = None
    misfire: MisfireName = "latest"
    overlap: OverlapName = "allow"
    catch_up: float | None = None
    jitter: float = 0.0
    start: str | None = None
    end: str | None = None


def check_schedule(given: object) -> Cron | None:
    """What a user wrote for `cron`. Raises OptionInvalid for an expression or a zone that means nothing."""
    if given is None:
        return None
    from protojobs.timetable.cron import check_cron  # jobs without a schedule need not load what computes times

    cron = Cron(given) if isinstance(given, str) else given
    if not isinstance(cron, Cron):
        raise OptionInvalid(f"cron is {shown(given)}.", mend='Write cron="0 9 * * mon", or cron=Cron(...).')
    check_cron(cron.expression)
    check_zone("timezone", cron.timezone or "UTC")
    return cron
