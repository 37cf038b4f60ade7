"""What the values in a search query mean: each becomes a test of one job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, TypeAlias, cast

import msgspec

from protojobs.errors import OptionInvalid, QueryInvalid, did_you_mean, one_line, shown
from protojobs.names import parse_seconds, parse_when
from protojobs.port.lifecycle import FINISHED, SUSPECT_RECLAIMS, JobState
from protojobs.port.records import FailedJob, JobRecord

__all__ = [
    "ESCAPED",
    "STATES",
    "Seen",
    "Test",
    "duration_test",
    "glob",
    "has_star",
    "is_pattern",
    "literal",
    "number_test",
    "path_test",
    "state_test",
    "time_test",
]

_COMPARISON = re.compile(r"(>=|<=|>|<)(.*)", re.DOTALL)
ESCAPED = re.compile(r'\\[*"\\]')
_STAR_OR_ESCAPED = re.compile(rf"{ESCAPED.pattern}|\*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MEANT = {"done": "completed", "success": "completed", "error": "failed", "due": "ready"}
_LIVE = frozenset({JobState.PENDING, JobState.PROCESSING})

# The words of `state:`, and in which states of the store such jobs are.
STATES: Mapping[str, frozenset[JobState]] = {
    **{state.value: frozenset({state}) for state in JobState},
    "running": frozenset({JobState.PROCESSING}),  # as people call it
    "ready": frozenset({JobState.PENDING}),
    "scheduled": frozenset({JobState.PENDING}),
    "retrying": frozenset({JobState.PENDING}),
    "suspects": _LIVE,
}


class Scalars(NamedTuple):
    """Texts, numbers, true, false and null of one place in JSON: all as texts, each once, and the numbers as such."""

    texts: AbstractSet[str]
    numbers: Sequence[float]


class Seen:
    """One job that a query is held against. Its JSON is read once, and only if a term asks for it; so is each path."""

    def __init__(self, job: JobRecord, failure: FailedJob | None, now: datetime) -> None:
        self.job = job
        self.failure = failure
        self.now = now
        self._at: dict[str, Scalars] = {}

    def at(self, path: str) -> Scalars:
        """What stands at `data.user.id` or `meta.tenant`."""
        if path not in self._at:
            root, *fields = path.split(".")
            self._at[path] = _scalars(self._data if root == "data" else self._meta, fields)
        return self._at[path]

    @cached_property
    def error(self) -> str | None:
        """The failed job's traceback, in one case; None of any other."""
        return None if self.failure is None else self.failure.exception.casefold()

    @cached_property
    def _data(self) -> object:
        return _opened(self.job.data)

    @cached_property
    def _meta(self) -> object:
        return _opened(self.job.meta or "null")

    @property
    def took_s(self) -> float | None:
        """Seconds of the last run, up to now if it goes on; None where there was none."""
        job = self.job
        if job.reserved_at is None or job.status not in (*FINISHED, JobState.PROCESSING):
            return None
        return ((job.processed_at or self.now) - job.reserved_at).total_seconds()

    @property
    def waited_s(self) -> float:
        """Seconds from its due time until it was taken, or until now; negative while it is not due."""
        job = self.job
        until = self.now if job.reserved_at is None or job.status is JobState.PENDING else job.reserved_at
        return (until - job.available_at).total_seconds()


Test: TypeAlias = Callable[[Seen], bool]


def state_test(word: str) -> Test:
    """The test for a word of `state:`. Raises QueryInvalid for an unknown one."""
    if word not in STATES:
        meant = f'Did you mean "{_MEANT[word]}"?' if word in _MEANT else did_you_mean(word, STATES)
        raise QueryInvalid(f'There is no state "{one_line(word, 60)}".', mend=meant or f"Known: {', '.join(STATES)}.")
    states = STATES[word]
    match word:
        case "ready":
            return lambda seen: seen.job.status in states and seen.job.available_at <= seen.now
        case "scheduled":
            return lambda seen: seen.job.status in states and seen.job.available_at > seen.now
        case "retrying":
            return lambda seen: seen.job.status in states and seen.job.attempts > 0
        case "suspects":
            return lambda seen: seen.job.status in states and seen.job.reclaims >= SUSPECT_RECLAIMS
        case _:
            return lambda seen: seen.job.status in states


def number_test(key: str, value: str, read: Callable[[Seen], float]) -> Test:
    """`3`, `>3`, `>=3`, `<3`, `<=3` or `3..5`."""
    within = _bounds(value, lambda text: _number(key, text))
    return lambda seen: within(read(seen))


def duration_test(key: str, value: str, read: Callable[[Seen], float | None]) -> Test:
    """`>30s`, `<=1h` or `10s..1m`. Just `30s` would match nothing, to the microsecond, and is refused."""
    if _COMPARISON.match(value) is None and ".." not in value:
        raise QueryInvalid(f"{key}:{value} asks for that very moment.", mend=f"Write {key}:>{value} or {key}:<{value}.")
    within = _bounds(value, lambda text: parse_seconds(key, text))

    def test(seen: Seen) -> bool:
        seconds = read(seen)
        return seconds is not None and within(seconds)

    return test


def time_test(key: str, value: str, read: Callable[[Seen], datetime | None]) -> Test:
    """`2026-11-01` (that day), `2026-11-01..2026-11-03`, `>2026-11-01T12:00`, or from now on: `>-2h`, `<-1d`. UTC."""
    low, high = _time_bounds(key, value)

    def test(seen: Seen) -> bool:
        moment = read(seen)
        return moment is not None and low(seen.now) <= moment < high(seen.now)

    return test


def literal(value: str) -> str:
    """The text that is meant by a value as it is written."""
    return ESCAPED.sub(lambda match: match.group()[1], value)


def has_star(value: str) -> bool:
    """Whether a `*` in the value stands for any characters."""
    return "*" in ESCAPED.sub("", value)


def glob(pattern: str, *, is_part: bool = False) -> Callable[[str], bool]:
    """A test of whole texts (or with `is_part`, of whether a part of them fits) in which `*` stands for any characters,
    or none. Takes no longer than a search.
    """
    head, *rest = ["", *_between_stars(pattern), ""] if is_part else _between_stars(pattern)
    if not rest:
        return lambda text: text == head
    *middle, tail = rest

    def test(text: str) -> bool:
        if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
            return False
        place, end = len(head), len(text) - len(tail)
        for part in middle:
            found = text.find(part, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return True

    return test


def _between_stars(pattern: str) -> list[str]:
    parts, place = [""], 0
    for match in _STAR_OR_ESCAPED.finditer(pattern):
        parts[-1] += pattern[place : match.start()]
        place = match.end()
        if match.group() == "*":
            parts.append("")
        else:
            parts[-1] += literal(match.group())
    parts[-1] += pattern[place:]
    return parts


def is_pattern(value: str) -> bool:
    """Whether each thing that is found must be held against this value; any number of others are one look-up."""
    return has_star(value) or ".." in value or _COMPARISON.match(value) is not None


def path_test(path: str, values: Sequence[str]) -> Test:
    """Whether any of the values stands at a path of JSON: a text or glob, a number, `true`, `null`; `>5` and `2..5`
    compare numbers.

    Each element of a list is looked at.
    """
    exact = frozenset(map(literal, values))
    globs = [glob(value) for value in values if has_star(value)]
    ranges: list[Callable[[float], bool]] = []
    for value in values:
        if _COMPARISON.match(value) or ".." in value:
            with suppress(QueryInvalid):  # a text that looks like a comparison
                ranges.append(_bounds(value, lambda text: _number(path, text)))

    def test(seen: Seen) -> bool:
        scalars = seen.at(path)
        return (
            not exact.isdisjoint(scalars.texts)
            or any(is_met(text) for is_met in globs for text in scalars.texts)
            or any(within(number) for within in ranges for number in scalars.numbers)
        )

    return test


def _scalars(value: object, path: Sequence[str]) -> Scalars:
    """Those at the path, through lists. Without recursion: in deep lists each would be handed up level by level."""
    texts, numbers = set[str](), list[float]()
    left: list[tuple[object, int]] = [(value, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, list):
            left.extend((item, depth) for item in cast("list[object]", value))
        elif isinstance(value, dict):
            if depth < len(path) and path[depth] in value:
                left.append((cast("dict[str, object]", value)[path[depth]], depth + 1))
        elif depth == len(path):
            texts.add(_as_text(value))
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers.append(value)
    return Scalars(texts, numbers)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _opened(text: str) -> object:
    try:
        return cast("object", msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _bounds(value: str, number: Callable[[str], float]) -> Callable[[float], bool]:
    if comparison := _COMPARISON.fullmatch(value):
        bound = number(comparison[2])
        match comparison[1]:
            case ">=":
                return lambda given: given >= bound
            case "<=":
                return lambda given: given <= bound
            case ">":
                return lambda given: given > bound
            case _:
                return lambda given: given < bound
    low, separator, high = value.partition("..")
    if separator:
        least = number(low) if low else float("-inf")
        most = number(high) if high else float("inf")
        return lambda given: least <= given <= most
    exactly = number(value)
    return lambda given: given == exactly


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise QueryInvalid(
            f"{key}: {shown(text)} is no number.", mend=f"Write it like {key}:3, {key}:>3 or {key}:3..5."
        ) from None


_Moment: TypeAlias = Callable[[datetime], datetime]  # now -> the moment that is meant
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_TICK, _DAY = timedelta(microseconds=1), timedelta(days=1)


def _time_bounds(key: str, value: str) -> tuple[_Moment, _Moment]:
    """From the first moment that matches to the first behind that does not."""
    if comparison := _COMPARISON.fullmatch(value):
        start, end = _span(key, comparison[2])
        match comparison[1]:
            case ">=":
                return start, _always(_LAST)
            case "<=":
                return _always(_FIRST), end
            case ">":
                return end, _always(_LAST)
            case _:
                return _always(_FIRST), start
    low, separator, high = value.partition("..")
    if separator:
        start = _span(key, low)[0] if low else _always(_FIRST)
        end = _span(key, high)[1] if high else _always(_LAST)
        return start, end
    return _span(key, value)


def _span(key: str, text: str) -> tuple[_Moment, _Moment]:
    """What one written time covers: a whole day, or one moment."""
    if text[:1] in ("-", "+"):
        away = timedelta(seconds=parse_seconds(key, text[1:]) * (-1 if text[0] == "-" else 1))
        return (lambda now: now + away), (lambda now: now + away + _TICK)
    try:
        moment = parse_when(key, text)
    except OptionInvalid as error:
        mend = f"Write it like {key}:>-2h, {key}:2026-11-01, {key}:2026-11-01..2026-11-03 or {key}:>2026-11-01T12:00."
        raise QueryInvalid(f"{key}: {shown(text)} is no time.", mend=mend) from error
    end = min(moment, _LAST - _DAY) + (_DAY if _DATE.fullmatch(text) else _TICK)
    return _always(moment), _always(end)


def _always(moment: datetime) -> _Moment:
    return lambda _now: moment
