"""Every change of a clock, in every zone of the time zone database, from 2020 to 2035: what is due around it.

The oracle knows a clock as two offsets and the second between them. It tries every second (or minute) of a window, or
every time on the face of the clock, and shares nothing with the code under test, not even the arithmetic of datetime.
"""

from __future__ import annotations

import zoneinfo
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pytest

from protojobs.timetable.timetable import Timetable

HOUR, DAY = 3600, 86_400
SUNDAY = 3  # days since 1970-01-01, a Thursday, modulo 7
ODD_ZONES = {
    "Africa/Cairo": "at midnight",
    "Africa/Casablanca": "around Ramadan",
    "America/Havana": "from midnight on",
    "America/Nuuk": "in the evening before",
    "America/Santiago": "at midnight",
    "America/Scoresbysund": "to another offset",
    "Antarctica/Troll": "by two hours",
    "Asia/Beirut": "at midnight",
    "Asia/Gaza": "around Ramadan",
    "Atlantic/Azores": "to midnight",
    "Australia/Lord_Howe": "by half an hour",
}


class Jump(NamedTuple):
    """A clock shows UTC + `before` until the second `at`, and UTC + `after` from then on."""

    zone: str
    at: int
    before: int
    after: int

    def offset(self, second: int) -> int:
        return self.before if second < self.at else self.after

    @property
    def around(self) -> tuple[int, int]:
        """What the clock shows that is skipped, or shown twice: from, and up to but without."""
        first, last = sorted((self.at + self.before, self.at + self.after))
        return first, last


class Case(NamedTuple):
    """An expression, the times of day (in seconds) and the weekday it means, and how far around a jump to look."""

    expression: str
    times: frozenset[int]
    span: int = 26 * HOUR
    weekday: int | None = None


def times(hours: Iterable[int], minutes: Iterable[int], seconds: Iterable[int] = (0,)) -> frozenset[int]:
    minutes, seconds = list(minutes), list(seconds)
    return frozenset(hour * HOUR + minute * 60 + second for hour in hours for minute in minutes for second in seconds)


EACH_HOUR, EACH_MINUTE = range(24), range(60)
FIXED = [
    Case("30 2 * * *", times([2], [30])),
    Case("0 0 * * *", times([0], [0])),
    Case("0 2,3 * * *", times([2, 3], [0])),
    Case("0,30 1-2 * * *", times([1, 2], [0, 30])),
    Case("5/30 1 * * *", times([1], [5, 35])),
    Case("15 30 2 * * *", times([2], [30], [15])),
    Case("57-59 59 23 * * *", times([23], [59], [57, 58, 59])),
    Case("30 0 * * SUN", times([0], [30]), weekday=SUNDAY),
    Case("59 23 * * SAT", times([23], [59]), weekday=SUNDAY - 1),
]
ELAPSED = [
    Case("*/15 * * * *", times(EACH_HOUR, range(0, 60, 15)), span=2 * HOUR),
    Case("0 * * * *", times(EACH_HOUR, [0]), span=3 * HOUR),
    Case("*/10 2 * * *", times([2], range(0, 60, 10))),
    Case("*/20 0 * * *", times([0], range(0, 60, 20))),
    Case("30 */2 * * *", times(range(0, 24, 2), [30]), span=3 * HOUR),
    Case("*/30 0,23 * * SUN", times([0, 23], [0, 30]), weekday=SUNDAY),
    Case("* * * * * *", times(EACH_HOUR, EACH_MINUTE, EACH_MINUTE), span=5),
    Case("*/20 * * * * *", times(EACH_HOUR, EACH_MINUTE, [0, 20, 40]), span=60),
]


# -------------------------------------------------------------------------------------------------- what is due: oracle


def fixed_times(case: Case, jump: Jump) -> list[int]:
    """Each time of each date once: when it is shown first, or the end of the gap that skipped it."""
    first_day, last_day = ((jump.at + side * (case.span + DAY)) // DAY for side in (-1, 1))
    found: set[int] = set()
    for day in range(first_day, last_day + 1):
        if case.weekday in (None, day % 7):
            for time in case.times:
                face = day * DAY + time
                shown = [face - offset for offset in (jump.before, jump.after)]
                found.add(min((moment for moment in shown if moment + jump.offset(moment) == face), default=jump.at))
    return sorted(moment for moment in found if abs(moment - jump.at) <= case.span)


def elapsed_times(case: Case, jump: Jump) -> list[int]:
    """Every second or minute of the window at which the clock shows a time of the expression."""
    step = 1 if case.expression.count(" ") == 5 and case.span < HOUR else 60
    found: list[int] = []
    for begin, end, offset in (
        (jump.at - case.span, jump.at, jump.before),
        (jump.at, jump.at + case.span + 1, jump.after),
    ):
        assert begin % step == 0
        found += [second for second in range(begin, end, step) if (second + offset) % DAY in case.times]
    if case.weekday is not None:
        found = [second for second in found if (second + jump.offset(second)) // DAY % 7 == case.weekday]
    return found


# ---------------------------------------------------------------------------------------------------- where clocks jump


@cache
def rules() -> dict[str, list[Jump]]:
    """By zone. Names for the same rules count once."""
    found: dict[tuple[tuple[int, int, int], ...], str] = {}
    for name in sorted(zoneinfo.available_timezones()):
        changes = jumps_of(zoneinfo.ZoneInfo(name))
        if changes not in found or name in ODD_ZONES:
            found[changes] = name
    return {name: [Jump(name, *change) for change in changes] for changes, name in found.items()}


@cache
def jumps() -> list[Jump]:
    """All of them. Zones that jump at the same second between the same offsets show the same, so one of them does."""
    every = [jump for zone in rules().values() for jump in zone]
    return list({jump[1:]: jump for jump in every}.values())


def jumps_of(zone: tzinfo) -> tuple[tuple[int, int, int], ...]:
    def offset(second: int) -> int:
        return round((datetime.fromtimestamp(second, zone).utcoffset() or timedelta(0)).total_seconds())

    found: list[tuple[int, int, int]] = []
    looks = range(round(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), 66 * 366 * DAY, 13 * DAY)
    offsets = [offset(second) for second in looks]
    for (low, before), (high, after) in pairwise(zip(looks, offsets, strict=True)):
        if before != after:
            at = bisect_left(range(low, high), True, key=lambda second: offset(second) != before) + low
            found.append((at, before, after))
    return tuple(found)


def moment(second: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


@cache
def table(expression: str, zone: str) -> Timetable:
    return Timetable(expression, zone)


# ---------------------------------------------------------------------------------------------------------------- tests


def test_all_changes_of_all_clocks_are_looked_at() -> None:
    assert set(ODD_ZONES) <= set(rules())
    assert len(rules()) > 40
    assert len(jumps()) > 900
    assert {abs(jump.after - jump.before) for jump in jumps()} >= {HOUR // 2, HOUR, 2 * HOUR}
    assert all(jump.at % 60 == jump.before % 60 == jump.after % 60 == 0 for jump in jumps())  # the oracle's steps
    gaps = [later.at - jump.at for zone in rules().values() for jump, later in pairwise(zone)]
    assert min(gaps) > 20 * DAY  # the oracle knows one at a time


@pytest.mark.parametrize("case", FIXED, ids=lambda case: case.expression)
def test_a_fixed_time_is_due_once_a_day_whatever_the_clock_does(case: Case) -> None:
    assert_answers(lambda jump: [case], fixed_times)


def test_a_fixed_time_in_the_gap_or_the_repeated_hour_is_due_once() -> None:
    assert_answers(fixed_inside, fixed_times)


@pytest.mark.parametrize("case", ELAPSED, ids=lambda case: case.expression)
def test_a_wildcard_follows_elapsed_time_whatever_the_clock_does(case: Case) -> None:
    assert_answers(lambda jump: [case], elapsed_times)


def test_a_wildcard_in_the_gap_or_the_repeated_hour_follows_elapsed_time() -> None:
    assert_answers(elapsed_inside, elapsed_times)


def fixed_inside(jump: Jump) -> list[Case]:
    """The first, a middle and the last minute that are skipped or shown twice."""
    first, last = jump.around
    found: list[Case] = []
    for face in (first, (first + last) // 120 * 60, last - 60):
        hour, minute = face % DAY // HOUR, face % HOUR // 60
        found.append(Case(f"{minute} {hour} * * *", times([hour], [minute])))
    hour, minute = first % DAY // HOUR, first % HOUR // 60
    return [*found, Case(f"7,59 {minute} {hour} * * *", times([hour], [minute], [7, 59]))]


def elapsed_inside(jump: Jump) -> list[Case]:
    first, last = jump.around
    hour, minute = first % DAY // HOUR, (first + last) // 2 % HOUR // 60
    return [
        Case(f"*/15 {hour} * * *", times([hour], range(0, 60, 15))),
        Case(f"{minute} * * * *", times(EACH_HOUR, [minute]), span=3 * HOUR),
        Case(f"{minute} */{hour or 5} * * *", times(range(0, 24, hour or 5), [minute]), span=6 * HOUR),
    ]


def assert_answers(cases: Callable[[Jump], list[Case]], due: Callable[[Case, Jump], list[int]]) -> None:
    answers = sum(assert_next(case, jump, due(case, jump)) for jump in jumps() for case in cases(jump))
    assert answers > 2 * len(jumps())


def assert_next(case: Case, jump: Jump, expected: Sequence[int]) -> int:
    """From any moment on the next time is the oracle's, so that none is told twice and none left out."""
    turn = jump.at // DAY + len(case.expression)  # other moments at other jumps: each is tried hundreds of times
    near = [jump.at + shift for shift in (-1800, -1, -0.5, 0, 600, 1800) if abs(shift) < case.span]
    starts: list[float] = [near[turn % len(near)], *expected[:1]]
    starts += [due for due in expected if abs(due - jump.at) < 4 * HOUR]
    if expected:
        starts.append(expected[turn % len(expected)] + (-1e-6, 0.25, 1)[turn % 3])
    known = table(case.expression, jump.zone)
    for start in starts:
        index = bisect_right(expected, start)
        found = known.after(moment(start))
        if index < len(expected):
            assert found == moment(expected[index]), (case.expression, jump, moment(start))
        else:
            assert found is not None
            assert found > moment(jump.at + case.span), (case.expression, jump, moment(start))
    return len(starts)


@pytest.mark.parametrize(
    ("case", "due"),
    [(FIXED[3], fixed_times), (ELAPSED[0], elapsed_times)],
    ids=["fixed", "elapsed"],
)
def test_the_last_time_and_the_count_are_those_of_brute_force(
    case: Case, due: Callable[[Case, Jump], list[int]]
) -> None:
    for jump in jumps():
        until = jump.at + HOUR
        passed = [second for second in due(case, jump) if second <= until][-5:]
        known = table(case.expression, jump.zone)
        assert known.last_of(moment(passed[0]), moment(until)) == moment(passed[-1]), jump
        assert known.count(moment(passed[0]), moment(passed[-1])) == len(passed) - 1, jump
