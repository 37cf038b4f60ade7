"""Cron expressions: which are read and as what, and which are refused, with an error that names the field and why."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojobs.errors import OptionInvalid
from protojobs.timetable.cron import CRON_CHARS_MAX, check_cron
from protojobs.timetable.timetable import Timetable

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
SLOW_S = 1.0  # of processor time; the slowest that was found takes some milliseconds


def first(expression: str, count: int = 3) -> list[str]:
    return [f"{due:%m-%d %H:%M}" for due in islice(Timetable(expression).upcoming(NEW_YEAR), count)]


@pytest.mark.parametrize(
    ("said", "stored", "due"),
    [
        ("30 2 * * *", "30 2 * * *", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("  30\t2 *  * *\n", "30 2 * * *", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("0 30 2 * * *", "0 30 2 * * *", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("0 9 * jan,Feb mon-FRI", "0 9 * JAN,FEB MON-FRI", ["01-01 09:00", "01-02 09:00", "01-05 09:00"]),
        ("0 0 1 MAR-may *", "0 0 1 MAR-MAY *", ["03-01 00:00", "04-01 00:00", "05-01 00:00"]),
        ("5-7 4 1 1 *", "5-7 4 1 1 *", ["01-01 04:05", "01-01 04:06", "01-01 04:07"]),
        ("*/25 0 * * *", "*/25 0 * * *", ["01-01 00:25", "01-01 00:50", "01-02 00:00"]),
        ("10-40/15 0 * * *", "10-40/15 0 * * *", ["01-01 00:10", "01-01 00:25", "01-01 00:40"]),
        ("50/5 0 * * *", "50/5 0 * * *", ["01-01 00:50", "01-01 00:55", "01-02 00:50"]),
        ("1,3-4,3 0 * * *", "1,3-4,3 0 * * *", ["01-01 00:01", "01-01 00:03", "01-01 00:04"]),
        ("0 0 l * *", "0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 lw * *", "0 0 LW * *", ["01-30 00:00", "02-27 00:00", "03-31 00:00"]),
        ("0 0 15,L * *", "0 0 15,L * *", ["01-15 00:00", "01-31 00:00", "02-15 00:00"]),
        ("0 0 * * 5L", "0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * friL", "0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * 7L", "0 0 * * 7L", ["01-25 00:00", "02-22 00:00", "03-29 00:00"]),
        ("0 0 * * 1#2", "0 0 * * 1#2", ["01-12 00:00", "02-09 00:00", "03-09 00:00"]),
        ("0 0 * * mon#2,monL", "0 0 * * MON#2,1L", ["01-12 00:00", "01-26 00:00", "02-09 00:00"]),
        ("0 0 * * 7", "0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 0", "0 0 * * 0", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 13 * 5", "0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),  # both told: either will do
        ("0 0 */6 * 5", "0 0 */6 * 5", ["02-13 00:00", "03-13 00:00", "05-01 00:00"]),  # one begins with *: both must
        ("0 0 30 2 mon", "0 0 30 2 MON", ["02-02 00:00", "02-09 00:00", "02-16 00:00"]),
        ("@hourly", "0 * * * *", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("@Daily", "0 0 * * *", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("@MIDNIGHT", "0 0 * * *", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        (" @weekly ", "0 0 * * 0", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("@monthly", "0 0 1 * *", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
    ],
)
def test_what_is_read_and_as_which_times(said: str, stored: str, due: list[str]) -> None:
    assert check_cron(said) == check_cron(stored) == stored
    assert first(said) == due


def test_yearly_and_annually_are_the_first_of_january_and_leap_days_wait_for_their_year() -> None:
    assert check_cron("@yearly") == check_cron("@Annually") == "0 0 1 1 *"
    assert Timetable("0 0 29 2 *").after(NEW_YEAR) == datetime(2028, 2, 29, tzinfo=UTC)
    assert Timetable("0 0 * 2 MON#5").after(NEW_YEAR) == datetime(2044, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ("61 * * * *", ["minute '61'", "61 is not between 0 and 59"]),
        ("60 0 0 * * *", ["second '60'", "60 is not between 0 and 59"]),
        ("0 24 * * *", ["hour '24'", "24 is not between 0 and 23"]),
        ("0 0 0 * *", ["day of month '0'", "0 is not between 1 and 31"]),
        ("0 0 32 * *", ["day of month '32'", "between 1 and 31"]),
        ("0 0 * 13 *", ["month '13'", "between 1 and 12"]),
        ("0 0 * * 8", ["day of week '8'", "between 0 and 7"]),
        ("0 0 * * 8L", ["day of week '8L'", "8 is not between 0 and 7"]),
        ("0 0 * * 1#6", ["day of week '1#6'", "#6 is not between 1 and 5"]),
        ("0 0 * * 1#0", ["day of week '1#0'", "#0 is not between 1 and 5"]),
        ("0 0 * * monday", ["day of week 'MONDAY'", "'MONDAY' is no number and no name (SUN to SAT)"]),
        ("0 0 * foo *", ["month 'FOO'", "'FOO' is no number and no name (JAN to DEC)"]),
        ("0 mon * * *", ["hour 'MON'", "'MON' is no number"]),
        ("5-1 * * * *", ["minute '5-1'", "the range '5-1' runs backwards"]),
        ("0 0 * * sat-sun", ["day of week 'SAT-SUN'", "runs backwards"]),
        ("0 0-24 * * *", ["hour '0-24'", "24 is not between 0 and 23"]),
        ("*/0 * * * *", ["minute '*/0'", "the step 0 is not between 1 and 59"]),
        ("*/90 * * * *", ["minute '*/90'", "the step 90 is not between 1 and 59"]),
        (f"*/{10**99} * * * *", ["minute", "the step 1000", "is not between 1 and 59"]),
        ("1,,2 * * * *", ["minute '1,,2'", "a term of the list is empty"]),
        ("1, * * * *", ["minute '1,'", "a term of the list is empty"]),
        ("1-2-3 * * * *", ["minute '1-2-3'", "cannot be read"]),
        ("*-5 * * * *", ["minute '*-5'", "cannot be read"]),
        ("-5 * * * *", ["minute '-5'", "cannot be read"]),
        ("+5 * * * *", ["minute '+5'", "cannot be read"]),
        ("1.5 * * * *", ["minute '1.5'", "cannot be read"]),
        ("1/2/3 * * * *", ["minute '1/2/3'", "cannot be read"]),
        ("** * * * *", ["minute '**'", "cannot be read"]),
        ("0 0 ? * *", ["day of month '?'", "* stands for any"]),
        ("0 0 L-3 * *", ["day of month 'L-3'", "'L' is no number"]),
        ("0 0 15W * *", ["day of month '15W'", "'15W' is no number"]),
        ("0 L * * *", ["hour 'L'", "'L' is no number"]),
        ("१ * * * *", ["minute '१'", "cannot be read"]),
        ("0 0 * * ſun", ["day of week", "cannot be read"]),
        ("0\0 * * * *", ["minute '0\\x00'", "cannot be read"]),
        ("", ["has 0 fields", "minute, hour, day of month, month, day of week"]),
        ("*", ["has 1 field."]),
        ("0 0 * *", ["has 4 fields", "for seconds one more in front"]),
        ("0 0 0 * * * 2026", ["has 7 fields"]),
        ("every 60", ["has 2 fields"]),
        ("@reboot", ["'@reboot' is not known", "@hourly"]),
        ("@every 5m", ["'@every 5m' is an interval", "every()"]),
        ("@" + "y" * 10_000, ["too long", f"{CRON_CHARS_MAX} at most"]),
        ("*" * 10_000, ["too long"]),
        (",".join(["1"] * 5_000) + " * * * *", ["too long"]),
        ("0 0 30 2 *", ["day of month, month", "never meet", "L for the last day"]),
        ("0 0 31 4,6 *", ["never meet"]),
        ("0 0 0 30,31 2 *", ["never meet"]),
        ("0 0 */30 * 1#3", ["day of week", "never meet"]),
    ],
)
def test_what_is_refused_and_why(said: str, parts: list[str]) -> None:
    began = time.process_time()
    with pytest.raises(OptionInvalid) as refused:
        check_cron(said)
    assert time.process_time() - began < SLOW_S
    assert [part for part in parts if part not in str(refused.value)] == []
    assert len(str(refused.value)) < 3 * CRON_CHARS_MAX


@pytest.mark.parametrize("said", [None, 5, b"* * * * *", ["*"] * 5, True])
def test_what_is_no_text_is_refused(said: object) -> None:
    with pytest.raises(OptionInvalid, match="A cron expression is text, not "):
        check_cron(said)


LIKELY = st.text(alphabet="0123456789*/-,#LW@?JANMONFRIsunfeb \t\0१ſ", max_size=40)
TERMS = st.one_of(
    st.integers(0, 62).map(str),
    st.sampled_from(["*", "L", "LW", "5L", "friL", "mon#5", "0#1", "JAN", "sun", "1-3", "fri-sat", "29-31", "55-59"]),
    st.builds("{}/{}".format, st.sampled_from(["*", "0", "3-30", "1-7"]), st.integers(0, 60)),
)
FIELDS = st.lists(TERMS, min_size=1, max_size=3).map(",".join)
SHAPED = st.lists(FIELDS, min_size=5, max_size=6).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(LIKELY, SHAPED, st.text()), st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
def test_any_text_is_refused_or_gives_times_and_soon(said: str, zone: str) -> None:
    began = time.process_time()
    try:
        stored = check_cron(said)
    except OptionInvalid:
        assert time.process_time() - began < SLOW_S
        return
    assert check_cron(stored) == stored
    table = Timetable(stored, zone)
    due = list(islice(table.upcoming(NEW_YEAR), 3))
    assert len(due) == 3
    assert NEW_YEAR < due[0] < due[1] < due[2]
    assert table.words()
    assert time.process_time() - began < SLOW_S


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    term = st.one_of(st.just("*"), number.map(str), ranges, ranges.map(lambda text: f"{text}/{high - low}"))
    return st.lists(term, min_size=1, max_size=3).map(",".join)


def test_a_moment_in_utc_that_says_it_comes_the_second_time_is_that_moment() -> None:
    midnight = datetime(2020, 1, 1, tzinfo=UTC, fold=1)
    assert Timetable("0 0 * * *").after(midnight) == datetime(2020, 1, 2, tzinfo=UTC)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join),
    st.datetimes(datetime(2020, 1, 1), datetime(2050, 1, 1)),  # noqa: DTZ001  (made aware below)
)
def test_an_expression_in_the_documented_shape_gives_a_time_later_than_any_moment(said: str, naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    due = Timetable(said).after(moment)
    assert due is not None
    assert due > moment
    assert due.second == due.microsecond == 0
    assert Timetable(said).after(due - timedelta(microseconds=1)) == due


@pytest.mark.parametrize(
    "said",
    ["* * * * * *", "59 59 23 29 2 *", "0 0 */14 2 SUN#5", "* * * 2 MON#5", "58,59 58,59 22,23 LW 2 *", "0 0 1 1 1#1"],
)
@pytest.mark.parametrize("zone", ["UTC", "Africa/Casablanca", "Antarctica/Troll"])
def test_no_expression_takes_long(said: str, zone: str) -> None:
    table = Timetable(said, zone)
    began = time.process_time()
    for month in range(1, 13):
        assert table.after(datetime(2026, month, 28, 1, 30, tzinfo=UTC)) is not None
    assert (time.process_time() - began) / 12 < 0.1
