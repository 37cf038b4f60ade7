"""Cron expressions: what is wrong with one, field by field and term by term, and the form in which one is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError
from msgspec import Struct

from protojobs.errors import OptionInvalid, shown

__all__ = ["CRON_CHARS_MAX", "check_cron"]

CRON_CHARS_MAX = 200
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_TERM = re.compile(r"(?P<low>\*|[0-9A-Z]+)(?:-(?P<high>[0-9A-Z]+))?(?:/(?P<step>[0-9]+))?")
_SMALL = re.compile(r"[a-z]+")  # str.upper() would also turn letters of other scripts into ours
_LAST_BY_NAME = re.compile(r"\b([A-Z]{3})L\b")  # FRIL is 5L: cronsim reads the number only
_NTH = re.compile(r"(?P<day>[0-9]|[A-Z]{3})(?:#(?P<nth>[0-9]+)|L)")


class _Field(Struct, frozen=True):
    """One field of a cron expression; `names` stand for `low` and what follows it."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int | None:
        """What a number or a name means here."""
        if text.isdigit():
            return int(text)
        return self.low + self.names.index(text) if text in self.names else None

    def fault(self, term: str) -> str:
        """What is wrong with one term of a list; empty when nothing is."""
        if not term:
            return "a term of the list is empty"
        if self.name == "day of month" and term in ("L", "LW"):
            return ""
        if self.name == "day of week" and (nth := _NTH.fullmatch(term)):
            outside = nth["nth"] is not None and not 1 <= int(nth["nth"]) <= 5
            return self._outside(nth["day"]) or (f"#{nth['nth']} is not between 1 and 5" if outside else "")
        match = _TERM.fullmatch(term)
        if match is None or (match["low"] == "*" and match["high"] is not None):
            return f"{term!r} cannot be read" + ("; * stands for any" if term == "?" else "")
        return self._range_fault(term, match["low"], match["high"]) or self._step_fault(match["step"])

    def _outside(self, text: str) -> str:
        value = self.number(text)
        if value is None:
            return f"{text!r} is no number" + (
                f" and no name ({self.names[0]} to {self.names[-1]})" if self.names else ""
            )
        return "" if self.low <= value <= self.high else f"{text} is not between {self.low} and {self.high}"

    def _range_fault(self, term: str, low: str, high: str | None) -> str:
        if low == "*":
            return ""
        if high is None:
            return self._outside(low)
        backwards = (self.number(low) or 0) > (self.number(high) or 0)
        return self._outside(low) or self._outside(high) or (f"the range {term!r} runs backwards" if backwards else "")

    def _step_fault(self, step: str | None) -> str:
        longest = self.high - self.low
        return "" if step is None or 1 <= int(step) <= longest else f"the step {step} is not between 1 and {longest}"


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, tuple("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split())),
    _Field("day of week", 0, 7, tuple("SUN MON TUE WED THU FRI SAT".split())),
)


def check_cron(expression: object) -> str:
    """The expression as it is stored: five or six fields in capitals, single blanks, nicknames spelt out.

    Raises OptionInvalid that names the field, the term in it, and what is wrong with it.
    """
    if not isinstance(expression, str):
        raise OptionInvalid(
            f"A cron expression is text, not {type(expression).__name__}.", mend='Write it like "0 7 * * mon-fri".'
        )
    written = expression.strip()
    if len(written) > CRON_CHARS_MAX:
        raise OptionInvalid(f"The cron expression {shown(written, 30)} is too long.", mend=f"{CRON_CHARS_MAX} at most.")
    if written.startswith("@"):
        written = _nickname(written)
    parts = _SMALL.sub(lambda match: match[0].upper(), written).split()
    if len(parts) not in (5, 6):
        raise OptionInvalid(
            f"cron {shown(written)} has {len(parts)} field{'s' * (len(parts) != 1)}.",
            mend="Write minute, hour, day of month, month, day of week; for seconds one more in front.",
        )
    for field, text in zip(_FIELDS[-len(parts) :], parts, strict=True):
        for term in text.split(","):
            if why := field.fault(term):
                raise OptionInvalid(f"cron {shown(written)}: the {field.name} {shown(text)} does not work: {why}.")
    parts[-1] = _LAST_BY_NAME.sub(lambda match: f"{_FIELDS[-1].number(match[1])}L", parts[-1])
    checked = " ".join(parts)
    _must_come(written, checked)
    return checked


def _must_come(written: str, checked: str) -> None:
    """Raise OptionInvalid for a date that no calendar has."""
    try:
        next(CronSim(checked, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        if "day-of-month" not in str(error):
            raise OptionInvalid(f"cron {shown(written)} does not work: {error}.") from None
        raise _never(written) from None
    except StopIteration:
        raise _never(written) from None


def _nickname(written: str) -> str:
    if written.lower().startswith("@every"):
        raise OptionInvalid(f"cron {shown(written)} is an interval.", mend="For intervals there is every().")
    if (fields := _NICKNAMES.get(written.lower())) is None:
        raise OptionInvalid(f"cron {shown(written)} is not known.", mend=f"Known: {', '.join(_NICKNAMES)}.")
    return fields


def _never(written: str) -> OptionInvalid:
    return OptionInvalid(
        f"cron {shown(written)}: its day of month, month and day of week never meet, so it would never be due.",
        mend="Write L for the last day of the month.",
    )
