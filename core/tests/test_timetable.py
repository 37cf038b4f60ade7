"""When schedules are due: intervals without drift, the documented table of clock changes, starts, ends and zones."""

from __future__ import annotations

import shutil
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojobs.errors import OptionInvalid
from protojobs.timetable.timetable import MISSED_COUNTED_MAX, Timetable, interval_spec

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SPRING = datetime(2026, 3, 29, tzinfo=UTC)  # Berlin: at 02:00 it becomes 03:00, which is 01:00 UTC
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # Berlin: at 03:00 it becomes 02:00, which is 01:00 UTC
MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  (by timezones)


def due(table: Timetable, after: datetime, count: int = 3) -> list[str]:
    return [f"{one:%m-%d %H:%M:%S}" for one in islice(table.upcoming(after), count)]


# ----------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("seconds", [1, 60, 0.1 * 11, 86_400 / 7, 1.000001])
def test_an_interval_does_not_drift_in_a_million_steps(seconds: float) -> None:
    interval = timedelta(seconds=seconds)
    table = Timetable(interval_spec("interval", seconds), anchor=NEW_YEAR)
    assert table.after(NEW_YEAR + 999_999 * interval) == NEW_YEAR + 1_000_000 * interval
    assert table.after(NEW_YEAR + 1_000_000 * interval - timedelta(microseconds=1)) == NEW_YEAR + 1_000_000 * interval
    moment = NEW_YEAR
    for _ in range(1_000):
        moment = table.after(moment) or NEW_YEAR
    assert moment == NEW_YEAR + 1_000 * interval


@given(st.floats(1, 10**7), MOMENTS, MOMENTS)
def test_an_interval_answers_with_the_next_moment_of_its_grid(seconds: float, anchor: datetime, now: datetime) -> None:
    spec = interval_spec("interval", seconds)
    interval = timedelta(seconds=float(spec.removeprefix("every ")))
    found = Timetable(spec, anchor=anchor).after(now)
    assert found is not None
    assert now < found <= now + interval
    assert (found - anchor) % interval == timedelta(0)


def test_an_interval_knows_no_summer_time() -> None:
    table = Timetable("every 86400", "Europe/Berlin", anchor=SPRING - timedelta(hours=12))
    assert due(table, SPRING - timedelta(hours=13)) == ["03-28 12:00:00", "03-29 12:00:00", "03-30 12:00:00"]


def test_an_interval_is_counted_from_its_start_in_the_past_and_waits_for_one_in_the_future() -> None:
    past = Timetable("every 7200", start=NEW_YEAR - timedelta(minutes=30), anchor=NEW_YEAR)
    assert due(past, NEW_YEAR) == ["01-01 01:30:00", "01-01 03:30:00", "01-01 05:30:00"]
    ahead = Timetable("every 7200", start=NEW_YEAR + timedelta(days=3, microseconds=5), anchor=NEW_YEAR)
    assert ahead.after(NEW_YEAR) == NEW_YEAR + timedelta(days=3, microseconds=5)


def test_what_lies_beyond_the_calendar_never_comes() -> None:
    century = interval_spec("interval", timedelta(days=36_600))
    late = datetime(9990, 1, 1, tzinfo=UTC)
    assert Timetable(century, anchor=late).after(late) is None
    assert Timetable("every 1e12", anchor=late).after(late) is None
    end = datetime.max.replace(tzinfo=UTC)
    for zone in ("UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
        assert Timetable("0 0 1 1 *", zone).after(end) is None
        assert Timetable("*/5 * * * *", zone).after(end) is None
    assert Timetable("every 60").after(end) is None


@pytest.mark.parametrize("spec", ["every 0", "every -5", "every nan", "every inf", "every 1e300", "every x", "every "])
def test_a_stored_spec_that_is_no_interval_is_told_as_such(spec: str) -> None:
    with pytest.raises(OptionInvalid, match="is no interval"):
        Timetable(spec)


@pytest.mark.parametrize("seconds", [0, 0.5, -1, timedelta(milliseconds=999)])
def test_an_interval_is_at_least_a_second(seconds: float | timedelta) -> None:
    with pytest.raises(OptionInvalid, match="interval is"):
        interval_spec("interval", seconds)


@pytest.mark.parametrize(("seconds", "spec"), [(1, "every 1"), (1.5, "every 1.5"), (timedelta(days=1), "every 86400")])
def test_an_interval_is_written_in_one_way_only(seconds: float | timedelta, spec: str) -> None:
    assert interval_spec("interval", seconds) == spec


# ------------------------------------------------------------------------- what happens at a clock change, in Berlin


@pytest.mark.parametrize(
    ("spec", "spring", "autumn"),
    [
        (
            "30 2 * * *",
            ["03-29 01:00:00", "03-30 00:30:00", "03-31 00:30:00"],
            ["10-25 00:30:00", "10-26 01:30:00", "10-27 01:30:00"],
        ),
        (
            "15 30 2 * * *",
            ["03-29 01:00:00", "03-30 00:30:15", "03-31 00:30:15"],
            ["10-25 00:30:15", "10-26 01:30:15", "10-27 01:30:15"],
        ),
        (
            "0 2,3 * * *",
            ["03-29 01:00:00", "03-30 00:00:00", "03-30 01:00:00"],
            ["10-25 00:00:00", "10-25 02:00:00", "10-26 01:00:00"],
        ),
        (
            "*/20 2 * * *",
            ["03-30 00:00:00", "03-30 00:20:00", "03-30 00:40:00"],
            ["10-25 00:00:00", "10-25 00:20:00", "10-25 00:40:00", "10-25 01:00:00", "10-25 01:20:00"],
        ),
        (
            "0 * * * *",
            ["03-29 01:00:00", "03-29 02:00:00", "03-29 03:00:00"],
            ["10-25 00:00:00", "10-25 01:00:00", "10-25 02:00:00"],
        ),
        (
            "30 */2 * * *",
            ["03-29 02:30:00", "03-29 04:30:00", "03-29 06:30:00"],
            ["10-25 00:30:00", "10-25 01:30:00", "10-25 03:30:00"],
        ),
        (
            "every 3600",
            ["03-29 01:00:00", "03-29 02:00:00", "03-29 03:00:00"],
            ["10-25 00:00:00", "10-25 01:00:00", "10-25 02:00:00"],
        ),
    ],
)
def test_the_table_of_clock_changes(spec: str, spring: list[str], autumn: list[str]) -> None:
    table = Timetable(spec, "Europe/Berlin")
    assert due(table, SPRING + timedelta(minutes=59), len(spring)) == spring
    assert due(table, AUTUMN - timedelta(minutes=1), len(autumn)) == autumn


def test_a_wildcard_that_waits_over_several_clock_changes_begins_with_the_first_pass() -> None:
    table = Timetable("*/20 2 25 10 *", "Europe/Berlin")
    assert due(table, datetime(2025, 12, 1, tzinfo=UTC), 4) == [
        "10-25 00:00:00",
        "10-25 00:20:00",
        "10-25 00:40:00",
        "10-25 01:00:00",
    ]


# ------------------------------------------------------------------------------------------------- start, end, counting


def test_nothing_is_due_before_the_start_or_after_the_end_and_both_are_moments_that_count() -> None:
    noon = NEW_YEAR.replace(hour=12)
    table = Timetable("0 12 * * *", start=noon, end=noon + timedelta(days=1))
    assert list(table.upcoming(NEW_YEAR - timedelta(days=99))) == [noon, noon + timedelta(days=1)]
    assert Timetable("0 12 * * *", start=noon + timedelta(microseconds=1)).after(NEW_YEAR) == noon + timedelta(days=1)


@pytest.mark.parametrize(
    ("spec", "longest_s"),
    [
        ("every 7", 3_000),
        ("*/7 * * * *", 100_000),
        ("0 3 * * *", 10**7),
        ("30 2 * * *", 10**7),
        ("0 0 L * *", 10**8),
        ("7,8 9 * * MON#1", 10**8),
    ],
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_last_time_up_to_a_moment_is_the_one_that_walking_finds(
    spec: str, longest_s: int, data: st.DataObject
) -> None:
    table = Timetable(spec, "Europe/Berlin", anchor=NEW_YEAR)
    first = table.after(SPRING - timedelta(hours=data.draw(st.integers(0, 500))))
    assert first is not None
    until = first + timedelta(seconds=data.draw(st.integers(0, longest_s)))
    walked = [first]
    while (following := table.after(walked[-1])) is not None and following <= until:
        walked.append(following)
    assert table.last_of(first, until) == walked[-1]
    assert table.count(first, until) == len([one for one in walked if one < until])


def test_the_last_time_is_found_in_a_few_steps_and_counting_ends_at_a_thousand() -> None:
    calls = 0

    class Counted(Timetable):
        def after(self, moment: datetime) -> datetime | None:
            nonlocal calls
            calls += 1
            return super().after(moment)

    table = Counted("* * * * * *", "Europe/Berlin")
    decade = NEW_YEAR + timedelta(days=3_650)
    assert table.last_of(NEW_YEAR, decade) == decade
    assert calls < 100
    assert table.count(NEW_YEAR, decade) == MISSED_COUNTED_MAX == 1_000
    assert calls < 1_200


@pytest.mark.parametrize(
    ("spec", "words"),
    [("every 5400", "Every 1 h 30 min"), ("every 90.5", "Every 90.5 s"), ("0 9 * * 1", "At 09:00 on Monday")],
)
def test_a_spec_is_told_in_words(spec: str, words: str) -> None:
    assert Timetable(spec).words() == words


# --------------------------------------------------------------------------------------------- the time zone database


@pytest.fixture
def no_system_zones() -> Iterator[None]:
    """As on a machine that brings no time zone database."""
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    yield
    sys.modules.pop("tzdata", None)
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


def test_without_any_database_zones_are_refused_by_name_and_utc_works(
    no_system_zones: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tzdata", None)
    with pytest.raises(OptionInvalid, match="timezone 'Europe/Berlin' is no time zone known here"):
        Timetable("0 0 * * *", "Europe/Berlin")
    assert Timetable("0 0 * * *", "UTC").after(NEW_YEAR) == NEW_YEAR + timedelta(days=1)


def test_without_a_database_of_the_system_the_package_tzdata_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    source = next(path for folder in zoneinfo.TZPATH if (path := Path(folder, "Europe", "Berlin")).exists())
    target = tmp_path / "tzdata" / "zoneinfo" / "Europe"
    target.mkdir(parents=True)
    for folder in (target, target.parent, target.parent.parent):
        (folder / "__init__.py").touch()
    shutil.copy(source, target / "Berlin")
    request.getfixturevalue("no_system_zones")
    for module in [name for name in sys.modules if name.split(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert due(Timetable("30 2 * * *", "Europe/Berlin"), SPRING, 2) == ["03-29 01:00:00", "03-30 00:30:00"]
