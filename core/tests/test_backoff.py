"""How long a failed job waits: the formula, its cap, its jitter, and policies of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protojobs import Backoff
from protojobs.errors import OptionInvalid
from protojobs.jobs.backoff import CAP_S, DEFAULT_BACKOFF, as_backoff, from_policy, to_policy
from protojobs.names import DELAY_MAX_S

WITHOUT_JITTER = Backoff(jitter=0)
MADE: Callable[..., Backoff] = Backoff


def test_each_wait_is_twice_the_one_before() -> None:
    assert [WITHOUT_JITTER.delay(attempt, 60, "id") for attempt in (1, 2, 3, 4)] == [60, 120, 240, 480]


def test_no_wait_is_longer_than_six_hours() -> None:
    assert WITHOUT_JITTER.delay(10, 60, "id") == CAP_S == 6 * 3600


def test_a_retry_delay_above_the_cap_is_kept_and_does_not_grow() -> None:
    assert [WITHOUT_JITTER.delay(attempt, 100_000, "id") for attempt in (1, 2, 50)] == [100_000] * 3


@given(st.integers(1, 10**9), st.floats(0, DELAY_MAX_S), st.text())
def test_any_attempt_gives_a_finite_wait_within_the_jitter(attempt: int, retry_delay: float, job_id: str) -> None:
    base = min(max(CAP_S, retry_delay), retry_delay * 2.0 ** min(attempt - 1, 60))
    wait = DEFAULT_BACKOFF.delay(attempt, retry_delay, job_id)
    assert base <= wait <= max(base * 1.25, base) or wait == DELAY_MAX_S
    assert wait <= DELAY_MAX_S


def test_the_jitter_can_be_told_in_advance_and_spreads_a_population() -> None:
    waits = [DEFAULT_BACKOFF.delay(1, 60, f"job-{number}") for number in range(1000)]

    assert waits == [DEFAULT_BACKOFF.delay(1, 60, f"job-{number}") for number in range(1000)]
    assert min(waits) < 61
    assert max(waits) > 74
    assert len(set(waits)) == 1000
    assert DEFAULT_BACKOFF.delay(1, 60, "job-1") / 60 != DEFAULT_BACKOFF.delay(2, 60, "job-1") / 120


def test_a_list_gives_the_nth_delay_and_then_the_last_one_again_and_again() -> None:
    policy = as_backoff([1, timedelta(seconds=10), 60])
    assert policy is not None
    policy = Backoff(delays=policy.delays, jitter=0)
    assert [policy.delay(attempt, 999, "id") for attempt in (1, 2, 3, 4, 99)] == [1, 10, 60, 60, 60]


@pytest.mark.parametrize("value", [[], list(range(101)), "10", 5, [-1], [math.nan], ["a"], {1, 2}])
def test_a_list_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(OptionInvalid):
        as_backoff(value)  # type: ignore[arg-type]  # what an unchecked caller may write


@pytest.mark.parametrize(
    "policy",
    [{"factor": 0.5}, {"factor": math.nan}, {"factor": 1e9}, {"jitter": -1}, {"jitter": 2}, {"jitter": math.nan},
     {"cap": -1}, {"cap": math.inf}, {"delays": (-1.0,)}, {"delays": (math.inf,)}],
)  # fmt: skip
def test_a_policy_that_would_give_nonsense_is_refused_where_it_is_made(policy: dict[str, object]) -> None:
    with pytest.raises(OptionInvalid):
        MADE(**policy)


@pytest.mark.parametrize(
    "policy", [Backoff(delays=(1.0, 2.0)), Backoff(factor=3, cap=10, jitter=0), Backoff(jitter=1.0)]
)
def test_a_policy_survives_its_travel_through_the_store(policy: Backoff) -> None:
    assert from_policy(to_policy(policy)) == policy


def test_the_default_policy_takes_no_room_in_the_store() -> None:
    assert to_policy(None) is None
    assert to_policy(Backoff()) is None
    assert from_policy(None) == DEFAULT_BACKOFF


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '{"later":1}', '{"factor":"x"}', '{"factor":1e308}', '{"jitter":-9}', "\ud800"]
)
def test_a_corrupt_policy_is_the_default_one(text: str) -> None:
    assert from_policy(text) == DEFAULT_BACKOFF
