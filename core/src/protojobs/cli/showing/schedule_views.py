"""Schedules and their times, as text and as JSON: what `protojobs schedules` shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import cast

from protojobs.cli.showing.output import plain_values
from protojobs.cli.showing.tables import Cell
from protojobs.cli.showing.text import iso
from protojobs.inspector import seen_schedule
from protojobs.port.schedules import Misfire, Overlap

__all__ = ["SeenSchedule", "moment_item", "moments", "moments_block"]

_MISFIRE = {
    Misfire.LATEST: "latest: of the times that came while no worker or scheduler ran, the last one fires",
    Misfire.ALL: "all: each time that came while no worker or scheduler ran fires, the oldest first",
    Misfire.SKIP: "skip: a time that is more than two minutes late is missed",
}
_OVERLAP = {
    Overlap.ALLOW: "allow: it fires, also while the job before it waits or runs",
    Overlap.SKIP: "skip: a time is passed over while the job before it waits or runs",
    Overlap.QUEUE_ONE: "queue_one: a time is passed over while the job before it waits: one runs, at most one waits",
}


class SeenSchedule(seen_schedule.SeenSchedule):
    """A schedule as the command line shows it."""

    def item(self) -> dict[str, object]:
        """For JSON: all that is stored, and what is seen here."""
        values = cast("dict[str, object]", plain_values(self.schedule))
        return {**values, "words": self.words, "state": self.state, "problem": self.problem or None}

    def fields(self) -> list[tuple[str, Cell]]:
        """For `show`."""
        schedule = self.schedule
        late = "not used" if schedule.misfire is Misfire.SKIP else f"{schedule.catch_up:g} s: what is later is missed"
        jitter = f"its job is due up to {schedule.jitter:g} s after the time" if schedule.jitter else "none"
        return [
            ("id", schedule.id),
            ("state", self.state),
            ("problem", self.problem or None),
            ("when", self.words),
            ("expression", schedule.spec),
            ("zone", schedule.timezone),
            ("start", schedule.start_at),
            ("end", schedule.end_at),
            ("next due", self.next_due_at),
            ("last due", schedule.last_due_at),
            ("last job", schedule.last_job_id),
            ("misfire", _MISFIRE[schedule.misfire]),
            ("catch up", late),
            ("overlap", _OVERLAP[schedule.overlap]),
            ("jitter", jitter),
            ("job", schedule.job_name),
            ("class", schedule.job_class),
            ("queue", schedule.queue),
            ("priority", schedule.priority),
            ("max retries", schedule.max_retries),
            ("retry delay", f"{schedule.retry_delay:g} s"),
            ("retry policy", schedule.retry_policy),
            ("timeout", f"{schedule.timeout:g} s" if schedule.timeout else "none"),
        ]


def moments(moment: datetime, zone: tzinfo) -> tuple[str, str, str]:
    """A time on the clocks of the zone, on those of this machine, and in UTC."""
    there = moment.astimezone(zone)
    here = moment.astimezone()
    return f"{there:%a} {_shown(there)}", _shown(here), f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def moments_block(times: Iterable[datetime], zone: tzinfo, zone_name: str) -> str:
    """The same for several, one a line below their titles."""
    rows: list[Sequence[str]] = [moments(moment, zone) for moment in times]
    if not rows:
        return "none"
    rows.insert(0, (zone_name, "here", "UTC"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def moment_item(moment: datetime, zone: tzinfo) -> dict[str, object]:
    """The same for JSON."""
    there, here = moment.astimezone(zone), moment.astimezone()
    return {"due_at": iso(moment), "in_zone": there.isoformat(), "here": here.isoformat()}


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds")
