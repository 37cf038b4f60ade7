"""What a due schedule does: which times fire and which are missed, what comes next, and what a change makes of it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protojobs.errors import OptionInvalid
from protojobs.port.schedules import Misfire, Schedule
from protojobs.scheduler.planning import LATE_S, Step, firing_id, job_of, next_after_change, plan
from protojobs.timetable.timetable import Timetable

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOURLY, MINUTELY = "0 * * * *", "every 60"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LIMIT = 100


def schedule(spec: str = HOURLY, **changes: object) -> Schedule:
    known = Schedule(id="s", spec=spec, next_due_at=NOON, queue="q", job_name="j", job_class="J", data="null")
    return replace(known, **changes)


def told(steps: list[Step]) -> list[tuple[str, str, bool, int]]:
    """Due, next, fires, missed."""
    return [
        (f"{step.due:%H:%M}", f"{step.next_due:%H:%M}" if step.next_due else "", step.fires, step.missed)
        for step in steps
    ]


# ------------------------------------------------------------------------------------------------------- what fires


@pytest.mark.parametrize("misfire", list(Misfire))
@pytest.mark.parametrize("late_s", [0, 0.5, LATE_S])
def test_a_time_that_is_met_fires_whatever_the_policy_is(misfire: Misfire, late_s: float) -> None:
    due = schedule(misfire=misfire, catch_up=0.0)
    [step] = plan(due, NOON + timedelta(seconds=late_s), LIMIT)
    assert step == Step(expected_next=NOON, due=NOON, next_due=NOON + HOUR, fires=True, missed=0)


@pytest.mark.parametrize(
    ("misfire", "late", "expected"),
    [
        # all within the window of three hours
        ("latest", 2.5, [("14:00", "15:00", True, 2)]),
        ("all", 2.5, [("12:00", "13:00", True, 0), ("13:00", "14:00", True, 0), ("14:00", "15:00", True, 0)]),
        ("skip", 2.5, [("14:00", "15:00", False, 3)]),
        # on the edge: three hours late is within
        ("all", 3.0, [(f"{hour}:00", f"{hour + 1}:00", True, 0) for hour in (12, 13, 14, 15)]),
        ("all", 4.0, [(f"{hour}:00", f"{hour + 1}:00", True, int(hour == 13)) for hour in (13, 14, 15, 16)]),
        # the first ones lie beyond it
        ("latest", 5.5, [("17:00", "18:00", True, 5)]),
        ("all", 5.5, [("15:00", "16:00", True, 3), ("16:00", "17:00", True, 0), ("17:00", "18:00", True, 0)]),
        ("skip", 5.5, [("17:00", "18:00", False, 6)]),
        # the last one is met, the others are missed
        ("latest", 2.0, [("14:00", "15:00", True, 2)]),
        ("skip", 2.03, [("14:00", "15:00", True, 2)]),
    ],
)
def test_times_that_came_while_nobody_ticked(
    misfire: str, late: float, expected: list[tuple[str, str, bool, int]]
) -> None:
    steps = plan(schedule(misfire=Misfire(misfire), catch_up=3 * 3600.0), NOON + late * HOUR, LIMIT)
    assert told(steps) == expected
    assert steps[0].expected_next == NOON
    assert [step.expected_next for step in steps[1:]] == [step.next_due for step in steps[:-1]]


@pytest.mark.parametrize("misfire", ["latest", "all", "skip"])
@pytest.mark.parametrize("spec", ["0 12 * * *", "every 86400"])
def test_when_all_times_are_older_than_the_window_none_fires(misfire: str, spec: str) -> None:
    steps = plan(schedule(spec, misfire=Misfire(misfire), catch_up=3600.0), NOON + 50 * HOUR, LIMIT)
    assert steps == [Step(expected_next=NOON, due=NOON + 48 * HOUR, next_due=NOON + 72 * HOUR, fires=False, missed=3)]


@pytest.mark.parametrize("misfire", ["latest", "all", "skip"])
def test_the_last_time_before_the_end_fires_and_nothing_follows(misfire: str) -> None:
    ending = schedule(misfire=Misfire(misfire), end_at=NOON + timedelta(minutes=30))
    assert told(plan(ending, NOON + MINUTE, LIMIT)) == [("12:00", "", True, 0)]
    assert told(plan(ending, NOON + 9 * HOUR, LIMIT)) == [("12:00", "", False, 1)]


def test_many_times_go_in_portions_and_the_next_portion_goes_on_where_the_first_one_ended() -> None:
    now = NOON + 25 * MINUTE
    due = schedule(MINUTELY, misfire=Misfire.ALL)
    fired: list[datetime] = []
    while due.next_due_at is not None and due.next_due_at <= now:
        steps = plan(due, now, 10)
        assert len(steps) <= 10
        fired += [step.due for step in steps]
        due = replace(due, next_due_at=steps[-1].next_due, last_due_at=steps[-1].due)
    assert fired == [NOON + number * MINUTE for number in range(26)]


def test_what_is_missed_for_years_is_counted_up_to_a_thousand() -> None:
    [step] = plan(schedule("* * * * * *"), NOON + timedelta(days=3_650), LIMIT)
    assert (step.due, step.fires, step.missed) == (NOON + timedelta(days=3_650), True, 1_000)
    [step] = plan(schedule(MINUTELY, misfire=Misfire.SKIP), NOON + timedelta(days=3_650, seconds=30), LIMIT)
    assert (step.fires, step.missed) == (True, 1_000)


@pytest.mark.parametrize("changes", [{"timezone": "Mars/Base"}, {"spec": "every never"}, {"spec": "61 * * * *"}])
def test_a_row_that_means_nothing_here_is_refused_as_such(changes: dict[str, object]) -> None:
    with pytest.raises(OptionInvalid):
        plan(replace(schedule(), **changes), NOON, LIMIT)


# ---------------------------------------------------------------------------------- whatever the moments of the ticks

SPECS = st.sampled_from(["every 60", "every 7.5", "*/5 * * * *", "30 2 * * *", "*/20 2 * * *", "*/15 * * * * *"])
BERLIN = [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC), NOON]  # an hour before clocks jump


@settings(max_examples=80, deadline=None)
@given(spec=SPECS, begin=st.sampled_from(BERLIN), waits=st.lists(st.floats(0, 1_500), min_size=1, max_size=8))
def test_with_all_each_time_fires_once_and_in_order(spec: str, begin: datetime, waits: list[float]) -> None:
    table = Timetable(spec, "Europe/Berlin", anchor=begin)
    due = schedule(
        spec, timezone="Europe/Berlin", misfire=Misfire.ALL, catch_up=86_400.0, next_due_at=table.after(begin)
    )
    now, fired = begin, list[datetime]()
    for wait in waits:
        now += timedelta(seconds=wait)
        while due.next_due_at is not None and due.next_due_at <= now:
            steps = plan(due, now, 20)
            fired += [step.due for step in steps if step.fires]
            assert [step.missed for step in steps] == [0] * len(steps)
            due = replace(due, next_due_at=steps[-1].next_due, last_due_at=steps[-1].due)
    assert fired == _between(table, begin, now)


@settings(max_examples=80, deadline=None)
@given(
    spec=SPECS,
    begin=st.sampled_from(BERLIN),
    misfire=st.sampled_from([Misfire.LATEST, Misfire.SKIP]),
    waits=st.lists(st.floats(0, 1_500), min_size=1, max_size=8),
)
def test_with_latest_and_skip_no_time_fires_twice_and_each_is_fired_or_missed(
    spec: str, begin: datetime, misfire: Misfire, waits: list[float]
) -> None:
    table = Timetable(spec, "Europe/Berlin", anchor=begin)
    due = schedule(spec, timezone="Europe/Berlin", misfire=misfire, next_due_at=table.after(begin))
    now, fired, missed = begin, list[datetime](), 0
    for wait in waits:
        now += timedelta(seconds=wait)
        if due.next_due_at is None or due.next_due_at > now:
            continue
        [step] = plan(due, now, 20)
        fired += [step.due] if step.fires else []
        missed += step.missed
        assert step.next_due is not None
        assert step.next_due > now
        due = replace(due, next_due_at=step.next_due, last_due_at=step.due)
    assert fired == sorted(set(fired))
    assert len(fired) + missed == len(_between(table, begin, now))


def _between(table: Timetable, begin: datetime, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    for one in table.upcoming(begin):
        if one > until:
            break
        found.append(one)
    return found


# ------------------------------------------------------------------------------------------------------------- changes


def test_a_first_registration_waits_for_the_next_time_and_fires_nothing_that_is_over() -> None:
    assert next_after_change(schedule(next_due_at=None), None, NOON) == NOON + HOUR
    assert next_after_change(schedule("every 90"), None, NOON) == NOON + timedelta(seconds=90)
    past = schedule("every 3600", start_at=NOON - timedelta(days=9, minutes=20))
    assert next_after_change(past, None, NOON) == NOON + 40 * MINUTE
    ahead = schedule(start_at=NOON + timedelta(days=2, minutes=1))
    assert next_after_change(ahead, None, NOON) == NOON + timedelta(days=2, hours=1)
    over = schedule(end_at=NOON + MINUTE)
    assert next_after_change(over, None, NOON) is None


@pytest.mark.parametrize("next_due_at", [NOON - 5 * HOUR, NOON + HOUR, None])
def test_unchanged_times_keep_what_is_waited_for_whatever_else_changes(next_due_at: datetime | None) -> None:
    before = schedule(next_due_at=next_due_at, last_due_at=NOON - 9 * HOUR, version=7)
    assert next_after_change(schedule(data="1", queue="other", misfire=Misfire.ALL), before, NOON) == next_due_at


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": "*/5 * * * *"},
        {"spec": "every 300"},
        {"timezone": "Asia/Kathmandu"},
        {"start_at": NOON - 99 * HOUR},
        {"end_at": NOON + 99 * HOUR},
    ],
)
def test_changed_times_fire_nothing_at_once_though_a_time_was_due(changes: dict[str, object]) -> None:
    before = schedule(next_due_at=NOON - 5 * HOUR, last_due_at=NOON - 6 * HOUR)
    found = next_after_change(replace(before, **changes), before, NOON)
    assert found is not None
    assert NOON < found <= NOON + HOUR


def test_an_interval_keeps_its_grid_unless_it_is_another_interval() -> None:
    grid = NOON + timedelta(minutes=7)
    before = schedule("every 3600", next_due_at=grid)
    assert next_after_change(replace(before, end_at=NOON + 9 * HOUR), before, NOON) == grid
    assert next_after_change(replace(before, end_at=NOON + 9 * HOUR), before, NOON + 2 * HOUR) == grid + 2 * HOUR
    assert next_after_change(replace(before, spec="every 1800"), before, NOON) == NOON + 30 * MINUTE


def test_an_ended_schedule_stays_ended_and_goes_on_when_its_end_is_moved() -> None:
    ended = schedule("every 3600", next_due_at=None, last_due_at=NOON - 90 * MINUTE, end_at=NOON - HOUR)
    assert next_after_change(replace(ended, data="1"), ended, NOON) is None
    assert next_after_change(replace(ended, end_at=NOON + 9 * HOUR), ended, NOON) == NOON + 30 * MINUTE
    never = schedule("every 3600", next_due_at=None, end_at=NOON - HOUR)
    assert next_after_change(replace(never, end_at=None), never, NOON) == NOON + HOUR


@settings(deadline=None)
@given(
    spec=SPECS,
    now=st.integers(-10_000, 10_000),
    last=st.integers(-10_000, 10_000),
    start=st.none() | st.integers(-20_000, 20_000),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_no_change_leads_back_to_a_time_that_is_over_or_fired(
    spec: str, now: int, last: int, start: int | None, zone: str
) -> None:
    """Also where the store's clock was set back behind the last time."""
    moment, fired = (datetime(2026, 10, 25, 1, tzinfo=UTC) + timedelta(seconds=value) for value in (now, last))
    start_at = None if start is None else moment + timedelta(seconds=start)
    before = schedule("0 0 1 1 *", next_due_at=fired + HOUR, last_due_at=fired)
    found = next_after_change(schedule(spec, timezone=zone, start_at=start_at), before, moment)
    assert found is not None
    assert found > max(moment, fired)
    assert start_at is None or found >= start_at


# ------------------------------------------------------------------------------------------------------------ the job


def test_the_job_of_a_time_says_so_and_jitter_moves_it_by_the_same_for_everybody() -> None:
    plain = job_of(schedule(), "x", NOON)
    assert (plain.id, plain.available_at) == ("x", NOON)
    assert plain.meta == '{"schedule":"s","due_at":"2026-03-02T12:00:00+00:00"}'
    assert job_of(schedule(jitter=60.0), "x").available_at is None  # asked for by a person
    spread = [job_of(schedule(jitter=60.0, id=f"s{number}"), "x", NOON).available_at for number in range(200)]
    assert spread == [job_of(schedule(jitter=60.0, id=f"s{number}"), "y", NOON).available_at for number in range(200)]
    late = [(at - NOON).total_seconds() for at in spread if at is not None]
    assert len(late) == len(set(late)) == 200
    assert 0 <= min(late) < 10 < 50 < max(late) <= 60


IDS = st.text(min_size=1, max_size=20)
DUES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  (by timezones)


@given(IDS, DUES, IDS, DUES)
def test_the_id_of_a_firing_is_its_schedule_and_time_and_sorts_by_time(
    one: str, due: datetime, other: str, later: datetime
) -> None:
    made = firing_id(one, due)
    assert str(uuid.UUID(made)) == made == firing_id(one, due)
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert uuid.UUID(made).version == 7
    assert (made == firing_id(other, later)) is ((one, due) == (other, later))
    if abs(due - later) >= timedelta(milliseconds=1):
        assert (made < firing_id(other, later)) is (due < later)


def test_the_id_of_a_firing_never_changes_between_releases() -> None:
    assert firing_id("report", NOON) == "019cae6b-6600-72a2-8147-6d364cc881b4"
    assert firing_id("report", NOON.astimezone(ZoneInfo("Europe/Berlin"))) == firing_id("report", NOON)
