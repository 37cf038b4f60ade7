"""Stored rows that no driver wrote: read as far as they can be, and told."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from msgspec import convert
from msgspec.structs import asdict

from protojobs.port import rules
from protojobs.port.lifecycle import STORED, JobState, Verb
from protojobs.port.records import ClaimedJob, FailedJob, Fence, JobRecord, NewJob
from protojobs.port.unreadable_rows import UNREADABLE, read, set_aside, why_unreadable

T0 = datetime(2030, 1, 1, tzinfo=UTC)
NEW = NewJob(id="j", queue="q", job_name="n", job_class="m:C", data="{}")
ROW = {name: value for name, value in asdict(rules.new_row(NEW, T0)).items() if name != "failed"}
FAILURE = {"id": "f", "job_id": "j", "queue": "q", "job_class": "m:C", "job_name": "n", "data": "{}", "attempts": 1}
FAILURE |= {"exception": "ValueError: x", "failed_at": T0, "fingerprint": "abc"}
SPOILT = [
    *[(name, b"\xff") for name in ("id", "queue", "job_name", "job_class", "data", "retry_policy", "meta", "reason")],
    *[(name, "soon") for name in ("attempts", "max_retries", "claim_seq", "crashes", "returns", "reclaims")],
    *[("attempts", -1), ("attempts", 2**31), ("attempts", 1.5), ("attempts", True), ("priority", "high")],
    *[("timeout", value) for value in ("soon", None, math.nan, math.inf, -1.0, 1e300, b"60")],
    ("retry_delay", "later"),
    *[(f"{name}_at", "soon") for name in ("created", "available", "reserved", "processed", "cancel_requested")],
    *[("available_at", None), ("available_at", 2**62), ("progress", "half"), ("progress", 7.0), ("reserved_by", 5)],
    *[("status", "sleeping"), ("status", 3), ("status", "unreadable"), ("status", None)],
]


@pytest.mark.parametrize(("column", "value"), SPOILT, ids=[f"{column}-{value!r}" for column, value in SPOILT])
def test_a_row_with_one_spoilt_column_is_read_and_says_which_and_why(column: str, value: object) -> None:
    job = read(JobRecord, ROW | {column: value})
    assert job.reason is not None
    assert job.reason.startswith(f"The stored row cannot be read: {column} is {value!r}, not ")
    assert job.reason.startswith(why_unreadable(ROW | {column: value}))
    expected, good = asdict(job), asdict(read(JobRecord, ROW))
    changed = {name for name in good if expected[name] != good[name]}
    assert changed <= {column, "reason"}
    assert type(expected[column]) is type(good[column]) or expected[column] is None or column in ("status", "reason")


def test_a_sound_row_is_read_as_it_is() -> None:
    assert read(JobRecord, ROW) == convert(ROW, JobRecord)
    assert why_unreadable(ROW) == ""


@pytest.mark.parametrize("state", STORED)
def test_every_state_is_read_from_its_text(state: JobState) -> None:
    assert read(JobRecord, ROW | {"status": state.value}).status is state


def test_an_unknown_state_is_shown_as_unreadable() -> None:
    assert read(JobRecord, ROW | {"status": "sleeping"}).status is JobState.UNREADABLE


def test_bytes_that_are_text_are_text_and_others_are_shown() -> None:
    assert read(JobRecord, ROW | {"data": '{"ä": 1}'.encode()}) == convert(ROW | {"data": '{"ä": 1}'}, JobRecord)
    assert read(JobRecord, ROW | {"data": b'{"a": "\xff"}'}).data == '{"a": "\\xff"}'


def test_all_that_is_spoilt_is_told_and_the_reason_that_was_there_is_kept() -> None:
    job = read(JobRecord, ROW | {"timeout": "soon", "attempts": -1, "reason": "by hand"})
    assert job.reason is not None
    first, last = job.reason.splitlines()
    assert "timeout is 'soon', not a number of seconds" in first
    assert "attempts is -1" in first
    assert last == "by hand"


def test_a_long_value_is_cut() -> None:
    assert len(why_unreadable(ROW | {"timeout": "x" * 100_000})) < 200


def test_a_failed_row_says_it_before_its_traceback() -> None:
    row = read(FailedJob, FAILURE | {"failed_at": "soon"})
    assert row.exception == "The stored row cannot be read: failed_at is 'soon', not a time.\nValueError: x"
    assert read(FailedJob, FAILURE) == convert(FAILURE, FailedJob)


def test_a_claim_sets_a_job_aside_by_its_fence() -> None:
    claim = Fence(id="j", claim_seq=3, reserved_by="w")
    said = set_aside(claim, why_unreadable({"timeout": "soon"}))
    assert (said.id, said.claim_seq, said.reserved_by, said.verb) == ("j", 3, "w", Verb.FAIL)
    assert said.error.startswith("The stored row cannot be read: timeout is 'soon', not a number of seconds. ")
    assert "retry" in said.error
    assert said.fingerprint == UNREADABLE


def test_every_field_of_a_job_is_known() -> None:
    fields = {*JobRecord.__struct_fields__, *FailedJob.__struct_fields__, *ClaimedJob.__struct_fields__}
    assert why_unreadable(dict.fromkeys(fields - {"is_cancel_requested"}, object()))
