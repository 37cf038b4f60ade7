"""Each rule by which a schedule's times are judged, on a small story that breaks it and one that does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from faults.times import Registered, Times
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobRecord

NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def fired(second: int, *, late_s: float = 0.1, copy: str = "") -> tuple[datetime, JobRecord]:
    due = NOON + second * SECOND
    stored_at = due + timedelta(seconds=late_s)
    record = JobRecord(
        id=f"job-{second}{copy}",
        queue="work",
        job_name="faults.tick",
        job_class="faults.jobs.tick",
        data="{}",
        status=JobState.COMPLETED,
        priority=0,
        attempts=1,
        max_retries=3,
        retry_delay=1,
        retry_policy=None,
        timeout=0,
        created_at=stored_at,
        available_at=due,
        reserved_at=None,
        processed_at=stored_at,
        reserved_by="",
        claim_seq=1,
        crashes=0,
        returns=0,
        reclaims=0,
    )
    return due, record


GOOD = Times(
    Registered("s", NOON, SECOND),
    last_due_at=NOON + 4 * SECOND,
    last_job_id="job-4",
    jobs=[fired(second) for second in range(5)],
    told=[NOON + second * SECOND for second in (0, 1, 2, 4)],  # whoever fired the fourth was killed behind it
)


def test_each_second_once_is_what_was_promised() -> None:
    assert list(GOOD.complaints()) == []
    figures = GOOD.figures()
    assert (figures["s: times"], figures["s: fired"]) == (5, 5)
    assert (figures["s: doubled"], figures["s: missing"]) == (0, 0)


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_time_without_a_job_is_missing_be_it_the_first_or_the_last(gone: int) -> None:
    times = replace(GOOD, jobs=[fired(second) for second in range(5) if second != gone], told=[])
    said = list(times.complaints())
    assert f"s: no job for {NOON + gone * SECOND}" in said
    assert len(said) == (2 if gone == 4 else 1)  # the row knows a later one than there are jobs
    assert times.figures()["s: missing"] == 1


def test_a_second_job_of_one_time_is_found_by_its_time_whatever_its_id() -> None:
    times = replace(GOOD, jobs=[*GOOD.jobs, fired(2, copy="again")])
    assert list(times.complaints()) == [f"s: 2 jobs for {NOON + 2 * SECOND}"]
    assert times.figures()["s: doubled"] == 1


def test_a_job_between_two_times_or_before_the_first_is_none_of_them() -> None:
    between = (NOON + SECOND / 2, fired(1, copy="between")[1])
    early = (NOON - SECOND, fired(0, copy="early")[1])
    assert len(list(replace(GOOD, jobs=[*GOOD.jobs, between]).complaints())) == 1
    assert len(list(replace(GOOD, jobs=[*GOOD.jobs, early]).complaints())) == 1


def test_a_job_that_was_stored_before_its_time_is_told_though_it_waited_for_it() -> None:
    times = replace(GOOD, jobs=[*GOOD.jobs[:3], fired(3, late_s=-0.001), GOOD.jobs[4]])
    assert list(times.complaints()) == [f"s: the job for {NOON + 3 * SECOND} was stored before its time"]


def test_two_tickers_that_have_both_fired_one_time_are_told_though_there_is_one_job() -> None:
    times = replace(GOOD, told=[*GOOD.told, NOON + SECOND])
    assert list(times.complaints()) == [f"s: 2 tickers fired {NOON + SECOND}"]


def test_what_was_fired_and_is_gone_is_told_twice_over() -> None:
    times = replace(GOOD, jobs=GOOD.jobs[1:])
    assert list(times.complaints()) == [f"s: no job for {NOON}", f"s: {NOON} was fired, and has no job"]


@pytest.mark.parametrize(
    "row",
    [
        {"last_due_at": NOON + 3 * SECOND},
        {"last_job_id": "job-3"},
        {"last_due_at": None, "last_job_id": None},
        {"has_caught_up": False},
    ],
)
def test_the_schedules_own_row_must_agree(row: dict[str, object]) -> None:
    assert len(list(replace(GOOD, **row).complaints())) == 1


def test_a_time_that_a_ticker_passed_over_is_told() -> None:
    assert list(replace(GOOD, missed=[NOON]).complaints()) == [f"s: a ticker passed over {NOON}"]


def test_one_that_has_never_fired_is_told() -> None:
    never = Times(Registered("s", NOON, SECOND), last_due_at=None, last_job_id=None, jobs=[], told=[])
    assert "s has never fired" in list(never.complaints())


def test_the_latest_is_the_one_that_was_stored_longest_after_its_time() -> None:
    times = replace(GOOD, jobs=[*GOOD.jobs[:4], fired(4, late_s=7.0)])
    assert (GOOD.latest_s, times.latest_s) == (0.1, 7.0)
    assert times.figures()["s: after more than 2 s"] == 1
