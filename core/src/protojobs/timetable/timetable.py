"""When a schedule is due: an interval or a cron expression, read in a zone, from a start to an end.

Times are computed by cronsim on the face of a clock that never jumps. Where a real one does, they are mended here, as
Debian's cron does it (cronsim's own way is wrong where a clock jumps by half an hour, or over midnight):

* A fixed time inside the gap of spring is due once, at the end of the gap; one in the hour that autumn repeats is due
  in the first of the two.
* An expression whose second, minute or hour begins with `*` follows elapsed time: nothing extra after the gap, and
  every pass of the repeated hour.

docs/how-to/schedules.md shows this as a table, and the tests hold it at every transition of every zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice

from cronsim import CronSim

from protojobs.clock import EPOCH
from protojobs.errors import OptionInvalid, shown
from protojobs.names import check_seconds, check_zone
from protojobs.port.schedules import Schedule
from protojobs.timetable.cron import check_cron

__all__ = ["INTERVAL_MIN_S", "Timetable", "interval_spec", "timetable_of"]

INTERVAL_MIN_S = 1.0
MISSED_COUNTED_MAX = 1_000

_EVERY = "every "
_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class Timetable:
    """The due times of one schedule, in order and without end, unless `end` is set.

    `anchor` is any moment of an interval's grid.
    """

    def __init__(
        self,
        spec: str,
        zone: str = "UTC",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        anchor: datetime | None = None,
    ) -> None:
        self._zone = check_zone("timezone", zone)
        self._start, self._end = start, end
        self._interval = timedelta(0)
        self._cron = ""
        if spec.startswith(_EVERY):
            self._interval = _interval_of(spec)
            self._anchor = start or anchor or EPOCH
        else:
            self._cron = check_cron(spec)
            self._faces = CronSim(self._cron, datetime(2000, 1, 1))  # noqa: DTZ001  (the face of a clock, no moment)
            self._is_fixed = not any(field.startswith("*") for field in self._cron.split()[:-3])

    def after(self, moment: datetime) -> datetime | None:
        """The first due time later than `moment`; None when there is none (within fifty years)."""
        moment = moment.astimezone(UTC).replace(fold=0)  # in UTC no hour comes twice, whatever somebody says
        if self._start is not None:
            moment = max(moment, self._start - _MICROSECOND)
        due = self._interval_after(moment) if self._interval else self._cron_after(moment)
        return None if due is None or (self._end is not None and due > self._end) else due

    def upcoming(self, moment: datetime) -> Iterator[datetime]:
        """The due times later than `moment`, one after the other."""
        while (due := self.after(moment)) is not None:
            yield due
            moment = due

    def last_of(self, first: datetime, until: datetime) -> datetime:
        """The latest due time up to `until`, given one that is: `first`. In a few steps, however many lie between."""
        high = until
        while (due := self.after(first)) is not None and due <= until:
            middle = due + (high - due) / 2
            probe = self.after(middle)
            if probe is not None and probe <= until:
                first = probe
            else:  # none in the upper half: go on in the lower one
                first, high = due, middle
        return first

    def count(self, first: datetime, below: datetime) -> int:
        """How many due times there are from `first`, which is one, up to but without `below`; 1,000 are counted."""
        times = self.upcoming(first - _MICROSECOND)
        return sum(1 for _ in islice((time for time in _until(times, below)), MISSED_COUNTED_MAX))

    def words(self) -> str:
        """The spec for people: `At 09:00 on Monday`."""
        if self._interval:
            return f"Every {_length(self._interval)}"
        return CronSim(self._cron, datetime(2000, 1, 1, tzinfo=UTC)).explain()

    def _interval_after(self, moment: datetime) -> datetime | None:
        try:
            return self._anchor + ((moment - self._anchor) // self._interval + 1) * self._interval
        except OverflowError:
            return None

    def _cron_after(self, moment: datetime) -> datetime | None:
        try:
            return self._fixed_after(moment) if self._is_fixed else self._elapsed_after(moment)
        except (StopIteration, OverflowError):  # nothing within fifty years, or beyond the calendar
            return None

    def _fixed_after(self, moment: datetime) -> datetime:
        """The first moment after this one that shows a time of the expression, or jumps over it, for the first time."""
        local = moment.astimezone(self._zone)
        face = local.replace(tzinfo=None)
        if local.fold:  # all that the second pass of a repeated hour shows has been shown: go on behind it
            change = _change(moment - _DAY, moment, self._zone)
            face = _face(change, _offset(change - _SECOND, self._zone)) - _SECOND
        return _first_real(self._next_face(face), self._zone)

    def _elapsed_after(self, moment: datetime) -> datetime:
        """The first moment after this one that shows a time of the expression, in whichever pass."""
        offset = _offset(moment, self._zone)
        while True:
            due = self._next_face(_face(moment, offset)).replace(tzinfo=UTC) - offset
            near = min(due, moment + _DAY)
            if _offset(near, self._zone) != offset:  # the clock jumps before: look again from there
                change = _change(moment, near, self._zone)
                moment, offset = change - _SECOND, _offset(change, self._zone)
            elif near == due:
                return due
            else:  # no jump for a day, and none goes over a day: nothing comes before the day that ends in `found`
                moment = due - _DAY
                offset = _offset(moment, self._zone)

    def _next_face(self, face: datetime) -> datetime:
        simulated = copy(self._faces)  # parsed once: that costs more than to find a time
        simulated.dt = face.replace(microsecond=0)
        return next(simulated)


def timetable_of(schedule: Schedule) -> Timetable:
    """The due times of a stored schedule. Raises OptionInvalid when its zone or spec means nothing here."""
    return Timetable(
        schedule.spec,
        schedule.timezone,
        start=schedule.start_at,
        end=schedule.end_at,
        anchor=schedule.next_due_at or schedule.last_due_at,
    )


def interval_spec(what: str, interval: object) -> str:
    """The spec of an interval in seconds (or a timedelta), of at least one second."""
    seconds = check_seconds(what, interval)
    if seconds < INTERVAL_MIN_S:
        raise OptionInvalid(f"{what} is {seconds:g} seconds.", mend=f"At least {INTERVAL_MIN_S:g} is needed.")
    return f"{_EVERY}{round(seconds, 6):.15g}"


def _interval_of(spec: str) -> timedelta:
    try:
        interval = timedelta(seconds=float(spec.removeprefix(_EVERY)))
    except (ValueError, OverflowError):
        interval = timedelta(0)
    if interval < timedelta(seconds=INTERVAL_MIN_S):
        raise OptionInvalid(f"The spec {shown(spec, 30)} is no interval.", mend='Write it like "every 3600".')
    return interval


def _first_real(face: datetime, zone: tzinfo) -> datetime:
    """The first moment at which a clock in the zone shows `face`; where it jumps over that, the moment of the jump."""
    aware = face.replace(tzinfo=zone)
    real = aware.astimezone(UTC)
    if real.astimezone(zone).replace(tzinfo=None) == face:
        return real
    return _change(aware.replace(fold=1).astimezone(UTC), real, zone)  # read as before the jump, and as after it


def _change(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The moment at which the clock of the zone jumps, given that it does so once, after `low` and up to `high`."""
    low, high = low.replace(microsecond=0), high.replace(microsecond=0)  # clocks jump at whole seconds
    before = _offset(low, zone)
    while high - low > _SECOND:
        middle = low + (high - low) // (2 * _SECOND) * _SECOND
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _face(moment: datetime, offset: timedelta) -> datetime:
    """What a clock with that offset shows."""
    return moment.astimezone(UTC).replace(tzinfo=None) + offset


def _until(times: Iterator[datetime], below: datetime) -> Iterator[datetime]:
    for time in times:
        if time >= below:
            return
        yield time


def _length(interval: timedelta) -> str:
    """`1 h 30 min`, `90.5 s`."""
    if interval.microseconds:
        return f"{interval.total_seconds():g} s"
    parts: list[str] = []
    left = interval // timedelta(seconds=1)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts)
