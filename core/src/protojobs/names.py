"""Checks of what users write: names, counts, seconds, dates and time zones. Each is checked once, where it enters."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from protojobs.errors import OptionInvalid, shown

__all__ = [
    "DELAY_MAX_S",
    "Delay",
    "NAME_BYTES_MAX",
    "QUEUES_MAX",
    "ServedQueue",
    "check_count",
    "check_name",
    "check_seconds",
    "check_served",
    "check_text",
    "check_text_choice",
    "check_zone",
    "is_storable",
    "just_before",
    "parse_seconds",
    "parse_when",
    "served_queue",
]

Delay: TypeAlias = float | timedelta | datetime | str
"""When a job is due: in so many seconds, or at a moment, as `parse_when` reads it."""
NAME_BYTES_MAX = 100  # fits an indexed column of every store, four-byte characters included
QUEUES_MAX = 100  # of one worker: each costs an index probe or two in every claim
WEIGHT_MAX = 1_000  # of a queue beside others
TEXT_CHARS_MAX = 500
DELAY_MAX_S = 100 * 366 * 86400.0  # a century: far beyond use, and no store's calendar overflows
_YEAR_MIN, _YEAR_MAX = 1970, 9999
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_WEIGHTED = re.compile(r"(.+)=(-?\d{1,9})", re.ASCII | re.DOTALL)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)", re.ASCII)


def check_name(what: str, name: object, *, maximum: int = NAME_BYTES_MAX) -> str:
    """`name` itself, if it may name a queue or a job: 1 to 100 bytes of UTF-8 without control
    characters, of which at least one can be seen.

    Names are compared byte by byte on every store: `Emails`, `émails` and `emails` are three queues.
    """
    if not isinstance(name, str):
        raise OptionInvalid(f"{what} must be a string, not {type(name).__name__}.")
    if not name:
        raise OptionInvalid(f"{what} is empty.", mend=f"Give it 1 to {maximum} bytes.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise OptionInvalid(f"{what} {shown(name)} holds half of a surrogate pair, which no store can keep.") from None
    if size > maximum:
        raise OptionInvalid(f"{what} {shown(name, 20)} has {size} bytes.", mend=f"At most {maximum} are allowed.")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        raise OptionInvalid(f"{what} {shown(name)} holds a control character.", mend="Use printable characters.")
    if all(unicodedata.category(c)[0] in "CZ" for c in name):
        raise OptionInvalid(f"{what} {shown(name)} is blank.", mend="Use characters that can be seen.")
    return name


class ServedQueue(NamedTuple):
    """What a worker was told to serve: a queue, or by a `*` all whose names match; and with which weight, if any."""

    name: str
    weight: int | None = None

    @property
    def is_wildcard(self) -> bool:
        """Whether it may stand for other names than its own."""
        return "*" in self.name

    def matches(self, queue: str) -> bool:
        """Whether it stands for that queue. A `*` is any text, empty or not; all else is itself."""
        if self.name == queue or not self.is_wildcard:
            return self.name == queue
        first, *parts, last = self.name.split("*")
        at, end = len(first), len(queue) - len(last)
        if not queue.startswith(first) or not queue.endswith(last):
            return False
        for part in parts:
            if (found := queue.find(part, at, max(at, end))) < 0:
                return False
            at = found + len(part)
        return at <= end


@lru_cache(maxsize=1_024)
def served_queue(text: str) -> ServedQueue:
    """`urgent`, `mail.*` or `urgent=5`. A queue whose own name ends in such a number takes a weight: `a=5=1`."""
    weighted = _WEIGHTED.fullmatch(text)
    return ServedQueue(weighted[1], int(weighted[2])) if weighted else ServedQueue(text)


def check_served(told: Sequence[object]) -> tuple[str, ...]:
    """What a worker is told to serve, if it can be served so."""
    entries = [_checked_served(text) for text in told]
    if not 1 <= len(entries) <= QUEUES_MAX or len({entry.name for entry in entries}) != len(entries):
        raise OptionInvalid(f"A worker serves 1 to {QUEUES_MAX} different queues.", mend=f"These are {len(entries)}.")
    bare = [entry.name for entry in entries if entry.weight is None]
    if bare and len(bare) < len(entries):
        raise OptionInvalid(
            f"Some queues have a weight, and {shown(bare[0])} has none.",
            mend="Give each one a weight, as in urgent=5 bulk=1, or none of them: then the first goes first.",
        )
    return tuple(map(str, told))


def _checked_served(text: object) -> ServedQueue:
    entry = served_queue(check_name("queue", text, maximum=2 * NAME_BYTES_MAX))
    name, sign, weight = check_name("queue", entry.name).rpartition("=")
    if entry.weight is None:
        if sign:
            raise OptionInvalid(
                f"The weight of queue {shown(name)} is {shown(weight)}.",
                mend=f"Write a whole number. A queue whose own name holds = takes a weight too: {entry.name}=1.",
            )
    else:
        check_count(f"the weight of queue {shown(entry.name)}", entry.weight, minimum=1, maximum=WEIGHT_MAX)
    return entry


def is_storable(text: str) -> bool:
    """Whether every store can hold it: neither NUL nor half of a surrogate pair is in it. What is not, no store has."""
    return "\0" not in text and (text.isascii() or text.encode(errors="replace").decode() == text)


def just_before(name: str) -> str:
    """A text behind which, byte by byte, no other name can stand before `name`: with it a list by name begins there."""
    last = ord(name[-1:] or "\0") - 1
    if last < 1:
        return name[:-1]
    last = 0xD7FF if 0xD800 <= last <= 0xDFFF else last
    return name[:-1] + chr(last) + "\U0010ffff" * (NAME_BYTES_MAX // 4)


def check_text(what: str, text: object) -> str:
    """`text`, if it is a line for people: at most 500 characters, none of them a control character."""
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX or any(unicodedata.category(c)[0] == "C" for c in text):
        raise OptionInvalid(f"{what} must be text of one line.", mend=f"At most {TEXT_CHARS_MAX} printable characters.")
    return text


def check_text_choice(what: str, value: object, known: Sequence[str]) -> str:
    """`value`, if it is one of `known`."""
    if isinstance(value, str) and value in known:
        return str(value)
    raise OptionInvalid(f"{what} is {shown(value)}.", mend=f"It is one of {', '.join(known)}.")


def check_seconds(what: str, value: object, *, maximum: float = DELAY_MAX_S) -> float:
    """`value` (a number of seconds, or a timedelta) as seconds, from 0 to `maximum`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionInvalid(f"{what} must be a number of seconds or a timedelta, not {type(value).__name__}.")
    try:
        value = float(value)
    except OverflowError:  # a whole number beyond what a float can hold
        value = math.inf
    if not math.isfinite(value):
        raise OptionInvalid(f"{what} is {shown(value)}.", mend="Give a finite number of seconds.")
    if value < 0:
        raise OptionInvalid(f"{what} is negative ({shown(value)}).", mend="0 means at once.")
    if value > maximum:
        raise OptionInvalid(f"{what} is {value:g} seconds.", mend=f"At most {maximum:g} are allowed.")
    return value


def parse_seconds(what: str, text: str) -> float:
    """Seconds, from a number or numbers with units: `90`, `30s`, `10m`, `1h30m`, `7d`."""
    try:
        seconds = float(text)
    except ValueError:
        if not text.strip() or _PART.sub("", text).strip():
            raise OptionInvalid(
                f"{what} {shown(text)} is no length of time.", mend="Write it like 30s, 10m, 2h, 7d or 1h30m."
            ) from None
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    return check_seconds(what, seconds)


def check_count(what: str, value: object, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
    """`value` as an int from `minimum` to `maximum`; a bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionInvalid(f"{what} must be a whole number, not {type(value).__name__}.")
    if not minimum <= value <= maximum:
        raise OptionInvalid(f"{what} is {shown(value)}.", mend=f"It goes from {minimum} to {maximum}.")
    return value


def check_zone(what: str, zone: str) -> tzinfo:
    """The IANA zone of that name."""
    if zone == "UTC":  # known without any zone file
        return UTC
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise OptionInvalid(
            f"{what} {shown(zone)} is no time zone known here.", mend='Write it like "Europe/Paris".'
        ) from None


def parse_when(what: str, value: object, zone: str = "UTC") -> datetime:
    """An aware datetime, or text such as `2030-01-01 12:00:00`, as UTC. Text without an offset is read in `zone`."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise OptionInvalid(
                f"{what} {shown(value)} is not a date.", mend='Write it like "2030-01-31 12:00:00".'
            ) from None
        value = parsed if parsed.tzinfo else parsed.replace(tzinfo=check_zone("zone", zone))
    if not isinstance(value, datetime):
        raise OptionInvalid(f"{what} must be an aware datetime or a string, not {type(value).__name__}.")
    if value.tzinfo is None or value.utcoffset() is None:
        raise OptionInvalid(
            f"{what} {value.isoformat()} has no time zone, so its moment is a guess.",
            mend="Use datetime.now(timezone.utc) or give tzinfo=.",
        )
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise OptionInvalid(f"{what} {value.isoformat()} is outside the calendar.") from None
    if not _YEAR_MIN <= moment.year <= _YEAR_MAX:
        raise OptionInvalid(f"{what} {moment.isoformat()}: years go from {_YEAR_MIN} to {_YEAR_MAX}.")
    return moment
