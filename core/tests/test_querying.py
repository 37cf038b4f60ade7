"""The search language: what each kind of term means, and what is said of one that means nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protojobs.clock import cpu_s
from protojobs.errors import QueryInvalid
from protojobs.port.lifecycle import JobState
from protojobs.port.records import FailedJob, JobRecord
from protojobs.querying import QUERY_CHARS_MAX, Query, parse, quoted

ODD_NAMES = ["*", "a*", "**", '"', 'a"b', "\\", "\\*", 'a\\"', '" "', "a\\ b"]
NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
JOB = JobRecord(
    id="01890000-0000-7000-8000-00000000000a", queue="emails", job_name="SendWelcome", job_class="shop.SendWelcome",
    data='{"user": {"id": 42, "name": "Jo, the first"}, "tags": ["vip", "new"], "paid": true, "rate": 1.5}',
    status=JobState.COMPLETED, priority=5, attempts=2, max_retries=3, retry_delay=60.0, retry_policy=None, timeout=60.0,
    created_at=NOW - timedelta(hours=3), available_at=NOW - timedelta(hours=2),
    reserved_at=NOW - timedelta(minutes=110),
    processed_at=NOW - timedelta(minutes=109), reserved_by="", claim_seq=2, crashes=0, returns=0, reclaims=0,
    meta='{"tenant":"acme"}',
)  # fmt: skip
FAILURE = FailedJob(
    id="01890000-0000-7000-8000-00000000000b", job_id=JOB.id, queue="emails", job_class="shop.SendWelcome",
    job_name="SendWelcome", data="{}", attempts=2, exception="Traceback\nConnectionError: Connection refused by db",
    failed_at=NOW, fingerprint="3fa1c2d4e5f60718",
)  # fmt: skip


def matches(text: str, failure: FailedJob | None = None, **changes: object) -> bool:
    return parse(text, now=NOW).matches(replace(JOB, **changes), failure)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "queue:emails",
        "queue:e*",
        "queue:*mail*",
        "queue:tests,emails",
        "-queue:tests",
        "job:Send*",
        "job:S*nd*W*e",
        f"id:{JOB.id}",
        JOB.id,
        "state:completed",
        "state:failed,completed",
        "-state:failed",
        "attempt:2",
        "attempt:>=2",
        "attempt:1..2",
        "attempt:..2",
        "attempt:1,2,3",
        "prio:>4",
        "-prio:<=0",
        "took:>30s",
        "took:<=1m",
        "took:50s..1m10s",
        "waited:>9m",
        "waited:<1h",
        "created:>-4h",
        "created:<-2h",
        "created:2026-11-03",
        "created:2026-11-01..2026-11-03",
        "created:2026-11-01..",
        "created:<=2026-11-03",
        "created:>2026-11-02",
        "created:>2026-11-03T08:59:59",
        "finished:>-2h",
        "taken:>-2h",
        "due:<-1h",
        "data.user.id:42",
        "data.user.id:>41",
        "data.user.id:40..42",
        "data.tags:vip",
        "data.tags:n*",
        "data.paid:true",
        "data.rate:1.5",
        'data.user.name:"Jo, the first"',
        "data.user.name:Jo*",
        "meta.tenant:acme,other",
        "-data.user.missing:1",
        'queue:emails job:Send*   state:completed -data.tags:"old"',
    ],
)
def test_it_matches(text: str) -> None:
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        "queue:email",
        "queue:Emails",
        "-queue:emails",
        "queue:emails -job:Send*",
        "job:*x*",
        "state:failed",
        "state:ready",
        "attempt:<2",
        "prio:>5",
        "took:>1m",
        "waited:<1m",
        "created:>-1h",
        "created:2026-11-02",
        "created:<2026-11-03",
        "data.user.id:421",
        "data.user.id:>42",
        "data.user:42",
        "data.missing:*",
        "data.paid:1",
        "meta.tenant:ac",
        "worker:*x",
        "error:refused",
        "state:completed,failed state:failed",
    ],
)
def test_it_does_not_match(text: str) -> None:
    assert not matches(text)


PENDING = {"status": JobState.PENDING, "reserved_at": None, "processed_at": None}


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("ready", {**PENDING, "available_at": NOW}),
        ("scheduled", {**PENDING, "available_at": NOW + timedelta(seconds=1)}),
        ("retrying", {**PENDING, "attempts": 1}),
        ("suspects", {**PENDING, "reclaims": 2}),
        ("processing", {"status": JobState.PROCESSING}),
    ],
)
def test_words_of_state(word: str, changes: dict[str, object]) -> None:
    assert matches(f"state:{word}", **changes)
    assert not matches(f"state:{word}")
    assert not matches(f"-state:{word}", **changes)


def test_a_run_that_goes_on_took_its_time_so_far() -> None:
    running = {"status": JobState.PROCESSING, "reserved_at": NOW - timedelta(minutes=5), "processed_at": None}
    assert matches("took:>4m", **running)
    assert not matches("took:>6m", **running)
    assert not matches("took:>0s", **PENDING)
    assert matches("waited:>1h", **PENDING)


@pytest.mark.parametrize(
    "text", ['error:"connection refused"', "error:REFUSED", "error:conn*by", "fp:3fa1", "fp:3FA1C2"]
)
def test_error_and_fingerprint_speak_of_the_failure(text: str) -> None:
    assert matches(text, FAILURE, status=JobState.FAILED)
    assert not matches(text, None, status=JobState.FAILED)
    assert parse(text).needs_failure
    assert parse(text).which.states == (JobState.FAILED,)


def test_what_the_store_is_asked_for() -> None:
    which = parse("state:failed,completed -state:failed queue:emails job:SendWelcome took:>1s").which
    assert (which.states, which.queue, which.job_name) == ((JobState.COMPLETED,), "emails", "SendWelcome")
    which = parse("state:ready,retrying queue:a,b job:S*").which
    assert (which.states, which.queue, which.job_name) == ((JobState.PENDING,), None, None)
    assert parse("-queue:emails").which.queue is None
    assert parse("").which.states == ()


@pytest.mark.parametrize(
    ("text", "is_decided"),
    [
        ("", True),
        ("state:failed,pending queue:a job:b", True),
        ("state:ready", False),
        ("queue:a*", False),
        ("queue:a,b", False),
        ("-queue:a", False),
        ("queue:a queue:b", False),
        ("queue:a took:>1s", False),
    ],
)
def test_whether_the_store_decides_alone(text: str, is_decided: bool) -> None:
    assert parse(text).is_decided_by_store is is_decided


def test_states_that_exclude_each_other_are_void() -> None:
    query = parse("state:failed state:pending")
    assert query.is_void
    assert not query.matches(JOB)


def test_narrowed_to_states() -> None:
    failed = frozenset({JobState.FAILED})
    assert parse("queue:emails").narrowed(failed).which.states == (JobState.FAILED,)
    assert parse("state:failed,pending").narrowed(failed).which.states == (JobState.FAILED,)
    assert parse("state:ready").narrowed(failed).is_void
    assert parse("-state:failed").narrowed(failed).is_void


def test_a_relative_time_moves_with_now() -> None:
    query = parse("created:>-4h", now=NOW)
    assert query.matches(JOB)
    assert not query.at(NOW + timedelta(hours=2)).matches(JOB)


def test_ids_and_the_fingerprint_that_it_names() -> None:
    assert parse("id:a,b state:failed").ids == ("a", "b")
    assert parse("id:a*").ids is None
    assert parse("-id:a").ids is None
    assert parse("fp:3fa1 queue:x").fingerprint == "3fa1"
    assert parse("fp:3fa1,3fa2").fingerprint is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queu:x", 'Did you mean "queue"?'),
        ("statee:failed", 'Did you mean "state"?'),
        ("args.user:1", 'Did you mean "data."?'),
        ("datum.user:1", 'Did you mean "data."?'),
        ("state:runing", 'There is no state "runing"'),
        ("state:success", 'Did you mean "completed"?'),
        ("refused", "error:refused"),
        ("queue:", "is followed by nothing"),
        ("took:30s", "took:>30s"),
        ("took:>soon", "is no length of time"),
        ("attempt:many", "is no number"),
        ("created:yesterday", "created:>-2h"),
        ("created:>-x", "is no length of time"),
        ("fp:xyz", "is no fingerprint"),
        ("data.:x", "is no path"),
        ("data..a:x", "is no path"),
        (f"data.{'a.' * 30}b:x", "is no path"),
        (":x", "There is no key"),
        ("-:x", "There is no key"),
        ("x" * (QUERY_CHARS_MAX + 1), "At most 2,000"),
        ("a:b " * 51, "There is no key"),
        ('error:"connection refused', 'error:"connection refused"'),
        ('queue:"a" error:"gone state:failed', "before 'gone state:failed'"),
        ("queue:b " * 51, "At most 50"),
        ("queue:" + ",".join(map(str, range(201))), "At most 200"),
        ("data.a:" + ",".join(f"{n}*" for n in range(26)) + " meta.b:>1" * 25, "51 patterns"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(QueryInvalid) as caught:
        parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["emails", "two words", "a,b", "x:y", "-x", "é", *ODD_NAMES])
def test_a_name_that_is_quoted_is_found_and_no_other(name: str) -> None:
    asked = parse(f"queue:{quoted(name)} state:completed", now=NOW)
    assert asked.which.queue == name
    assert asked.is_decided_by_store
    assert asked.matches(replace(JOB, queue=name))
    for other in {"emails", "ab", "a b", "\\", *ODD_NAMES} - {name}:
        assert not asked.matches(replace(JOB, queue=other))
    assert quoted("") == '""'


@given(st.text('ab*"\\ ,:-', min_size=1, max_size=6), st.text('ab*"\\ ,:-', max_size=6))
def test_whatever_a_text_holds_quoted_finds_it_and_nothing_else(text: str, other: str) -> None:
    asked = parse(f"-queue:nowhere queue:{quoted(text)} job:{quoted(other)}", now=NOW)
    assert (asked.which.queue, asked.which.job_name) == (text, other)
    assert asked.matches(replace(JOB, queue=text, job_name=other))
    assert asked.matches(replace(JOB, queue=other, job_name=other)) == (text == other)


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        (r"queue:a\*", ["a*"], ["ab", "a", r"a\*"]),
        (r"queue:a\**", ["a*", "a*b"], ["ab", "a"]),
        (r"queue:a\\*", ["a\\", "a\\b"], ["a*", "ab"]),
        (r"queue:a\b", ["a\\b"], ["ab"]),
        (r'queue:"a\" b"', ['a" b'], ["a b"]),
        (r"queue:a\*,a*", ["a*", "ab"], ["b"]),
        (r'data.user.name:"Jo\*"', [], ["emails"]),
    ],
)
def test_a_backslash_takes_a_star_a_quote_or_a_backslash_literally(
    text: str, found: list[str], not_found: list[str]
) -> None:
    assert all(matches(text, queue=name) for name in found)
    assert not any(matches(text, queue=name) for name in not_found)


def test_a_part_of_a_traceback_may_end_with_a_backslash() -> None:
    failure = replace(FAILURE, exception="no such file: C:\\jobs\\a")
    assert matches("error:C:\\", failure, status=JobState.FAILED)
    assert matches(r"error:jobs\\\\a", failure, status=JobState.FAILED) is False
    assert matches(r"error:jobs\\a", failure, status=JobState.FAILED)


def test_a_text_in_odd_quotes_is_still_a_query() -> None:
    assert matches('queue:e"mail"s')
    assert matches('data.user.name:Jo", the first"')
    assert isinstance(parse('error:"" x:'.split()[0]), Query)


def test_hostile_data_is_looked_at_in_bounded_time_and_breaks_nothing() -> None:
    assert not matches("data.a:" + "a*" * 200 + "b", data='{"a": "' + "a" * 50_000 + '"}')
    assert not matches("data.a.b:1", data="[" * 200_000)
    assert not matches("data.a:1", data="no json")
    assert not matches("meta.a:1", meta=None)
    assert matches("data.a:>1", data='{"a": 1e300}')


def test_values_by_the_hundred_cost_no_more_than_one() -> None:
    began = cpu_s()
    values = ",".join(chr(0x4E00 + n) for n in range(199))
    assert matches(" ".join(f"-data.a:{values}" for _ in range(4)), data=f'{{"a": [{"1," * 30_000}2]}}')
    assert not matches(f"error:{values}", replace(FAILURE, exception="é" * 65_536), status=JobState.FAILED)
    assert cpu_s() - began < 5, "it was half a minute"


def test_lists_in_lists_are_looked_at_to_the_bottom() -> None:
    deep = "[" * 900 + '{"b": "x"}' + "]" * 900
    assert matches("data.a.b:x", data=f'{{"a": [{deep}, 1, {{"c": 2}}, [{{"b": [3, "y"]}}]]}}')
    assert matches("data.a.b:y", data=f'{{"a": [{deep}, 1, {{"c": 2}}, [{{"b": [3, "y"]}}]]}}')
    assert not matches("data.a.b:1,2", data=f'{{"a": [{deep}, 1, {{"c": 2}}, [{{"b": [3, "y"]}}]]}}')
