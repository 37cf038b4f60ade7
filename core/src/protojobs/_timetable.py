"""When a schedule is due: an interval or a cron expression, read in a zone, from a start to an end.

Times are computed from wall-clock fields by cronsim, and mended here where the clock jumps, as Debian's cron does it:

* A fixed time inside the gap of spring is due once, at the end of the gap; one in the hour that autumn repeats is due
  in the first of the two.
* An expression whose second, minute or hour begins with `*` follows elapsed time: nothing extra after the gap, and
  every pass of the repeated hour.

docs/how-to/schedules.md shows this as a table, and the tests hold it at every transition of every zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice

from cronsim import CronSim, CronSimError

from protojobs.errors import OptionInvalid
from protojobs.names import check_seconds, check_zone
from protojobs.schedules import Schedule

__all__ = ["INTERVAL_MIN_S", "Timetable", "check_cron", "interval_spec", "timetable_of"]

INTERVAL_MIN_S = 1.0
CRON_CHARS_MAX = 200
MISSED_COUNTED_MAX = 1_000

_EVERY = "every "
_MICROSECOND = timedelta(microseconds=1)
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
_NAMES = {
    "month": "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(),
    "day of week": "SUN MON TUE WED THU FRI SAT".split(),
}
_TERM = re.compile(r"(?P<low>\*|\d{1,9}|[A-Z]{3})(?:-(?P<high>\d{1,9}|[A-Z]{3}))?(?:/(?P<step>\d{1,9}))?")
_LAST_BY_NAME = re.compile(r"\b([A-Z]{3})L\b")  # FRIL is 5L: cronsim reads the number only
_NTH = re.compile(r"(?P<day>\d|[A-Z]{3})(?:#(?P<nth>\d+)|L)")


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
            self._interval = timedelta(seconds=float(spec.removeprefix(_EVERY)))
            self._anchor = start or anchor or datetime(1970, 1, 1, tzinfo=UTC)
        else:
            self._cron = check_cron(spec)
            fields = self._cron.split()[-5:]
            has_seconds = self._cron.count(" ") == 5
            self._is_fixed = not any(
                field.startswith("*") for field in (*fields[:2], self._cron if has_seconds else "0")
            )

    def after(self, moment: datetime) -> datetime | None:
        """The first due time later than `moment`; None when there is none (within fifty years)."""
        if self._start is not None:
            moment = max(moment, self._start - _MICROSECOND)
        found = self._interval_after(moment) if self._interval else self._cron_after(moment)
        return None if found is None or (self._end is not None and found > self._end) else found

    def upcoming(self, moment: datetime) -> Iterator[datetime]:
        """The due times later than `moment`, one after the other."""
        while (found := self.after(moment)) is not None:
            yield found
            moment = found

    def last_of(self, first: datetime, until: datetime) -> datetime:
        """The latest due time up to `until`, given one that is: `first`. In a few steps, however many lie between."""
        high = until
        while (found := self.after(first)) is not None and found <= until:
            middle = found + (high - found) / 2
            probe = self.after(middle)
            if probe is not None and probe <= until:
                first = probe
            else:  # none in the upper half: go on in the lower one
                first, high = found, middle
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
        local = moment.astimezone(self._zone)
        # Fixed times are looked for on the clock's face, without its jumps; others along elapsed time.
        simulated = CronSim(self._cron, local.replace(tzinfo=None) if self._is_fixed else local)
        try:
            for found in simulated:
                real = _first_real(found, self._zone) if self._is_fixed else found.astimezone(UTC)
                if real > moment:  # else it belongs to the first pass of a repeated hour, or to a gap that is over
                    return real
        except OverflowError:  # beyond the calendar
            pass
        return None


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


def check_cron(expression: object) -> str:
    """The expression as it is stored: five or six fields in capitals, single blanks, nicknames spelt out.

    Raises OptionInvalid that names the field, the term in it, and what is wrong with it.
    """
    if not isinstance(expression, str):
        raise OptionInvalid(f"A cron expression is text, not {type(expression).__name__}.")
    said = expression.strip()
    if said.startswith("@"):
        said = _nickname(said)
    if len(said) > CRON_CHARS_MAX:
        raise OptionInvalid(f"The cron expression {said[:30]!r}... is too long.", mend=f"{CRON_CHARS_MAX} at most.")
    parts = said.upper().split()
    if len(parts) not in (5, 6):
        raise OptionInvalid(
            f"cron {said!r} has {len(parts)} fields.",
            mend="Write minute, hour, day of month, month, day of week; for seconds one more in front.",
        )
    for (name, low, high), text in zip(_FIELDS[-len(parts) :], parts, strict=True):
        for term in text.split(","):
            if why := _fault(name, low, high, term):
                raise OptionInvalid(f"cron {said!r}: the {name} {text!r} does not work: {why}.")
    parts[-1] = _LAST_BY_NAME.sub(lambda found: f"{_number('day of week', found[1])}L", parts[-1])
    checked = " ".join(parts)
    _must_come(said, checked)
    return checked


def _must_come(said: str, checked: str) -> None:
    """Raise OptionInvalid for a date that no calendar has."""
    try:
        next(CronSim(checked, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        if "day-of-month" not in str(error):
            raise OptionInvalid(f"cron {said!r} does not work: {error}.") from None
        raise _never(said) from None
    except StopIteration:
        raise _never(said) from None


def _nickname(said: str) -> str:
    if (known := _NICKNAMES.get(said.lower())) is None:
        raise OptionInvalid(f"cron {said!r} is not known.", mend=f"Known: {', '.join(_NICKNAMES)}.")
    return known


def _never(said: str) -> OptionInvalid:
    return OptionInvalid(
        f"cron {said!r}: the day of month and the month never meet, so it would never be due.",
        mend="Write L for the last day of the month.",
    )


def _fault(name: str, low: int, high: int, term: str) -> str:
    """What is wrong with one term of a list; empty when nothing is."""
    if name == "day of month" and term in ("L", "LW"):
        return ""
    if name == "day of week" and (nth := _NTH.fullmatch(term)):
        day = _number(name, nth["day"])
        if not 0 <= day <= 7:
            return f"{nth['day']} is no day of the week, 0 (Sunday) to 7 or SUN to SAT"
        return "" if nth["nth"] is None or 1 <= int(nth["nth"]) <= 5 else f"#{nth['nth']} is not between 1 and 5"
    found = _TERM.fullmatch(term)
    if found is None:
        return f"{term!r} cannot be read" if term else "a term of the list is empty"
    bounds = [_number(name, text) for text in (found["low"], found["high"]) if text not in (None, "*")]
    for text, value in zip((found["low"], found["high"]), bounds, strict=False):
        if not low <= value <= high:
            return f"{text} is not between {low} and {high}"
    if found["high"] is not None and (len(bounds) < 2 or bounds[1] < bounds[0]):
        return f"the range {term!r} runs backwards" if len(bounds) == 2 else f"{term!r} cannot be read"
    if found["step"] is not None and not 1 <= int(found["step"]) <= high - low:
        return f"the step {found['step']} is not between 1 and {high - low}"
    return ""


def _number(name: str, text: str) -> int:
    """A number or a name of this field; -1 for what is neither."""
    if text.isdigit():
        return int(text)
    names = _NAMES.get(name, [])
    return names.index(text) + (name == "month") if text in names else -1


def _first_real(wall: datetime, zone: tzinfo) -> datetime:
    """The first moment at which a clock in the zone shows `wall`; where it jumps over that, the moment of the jump."""
    aware = wall.replace(tzinfo=zone)
    real = aware.astimezone(UTC)
    if real.astimezone(zone).replace(tzinfo=None) == wall:
        return real
    wall = wall.replace(second=0)
    while real.astimezone(zone).replace(tzinfo=None) != wall:  # clocks jump by whole minutes, by an hour or half of it
        wall += timedelta(minutes=1)
        real = wall.replace(tzinfo=zone).astimezone(UTC)
    return real


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
