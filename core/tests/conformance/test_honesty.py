"""The kit cannot be passed by claiming too much, claiming too little, or leaving tests out."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # run by `python3 dev.py test-slow`

ABOUT_CLAIMS = "claimed or overridden or backwards or roll or authors or never_there or frozen"
NO_SILENT_OVERRIDE = "no_test_of_the_kit_is_overridden_without_a_reason"


def failed(found: dict[str, str]) -> set[str]:
    return {name for name, outcome in found.items() if outcome == "failed"}


def test_a_driver_that_claims_what_it_does_passes(outcomes) -> None:
    found = outcomes("TestHonest", "-k", ABOUT_CLAIMS)
    assert failed(found) == set()
    assert found["of_the_authors_own"] == "passed"
    assert found["store_time_does_not_run_backwards"] == "skipped"  # xfail, with its reason
    assert found["a_worker_that_was_frozen_past_its_lease_settles_nothing"] == "skipped"  # not claimed


@pytest.mark.parametrize(
    ("suite", "caught_by"),
    [
        ("TestOverclaims", "transactions_are_claimed_exactly_when_the_verbs_are_there"),
        ("TestUnderclaims", "transactions_are_claimed_exactly_when_the_verbs_are_there"),
        ("TestHalfHearted", "a_job_of_a_transaction_that_rolls_back_was_never_there"),
        ("TestReserved", "what_is_reserved_for_later_is_not_claimed_yet"),
        ("TestCrossProcess", "cross_process_is_claimed_exactly_when_another_process_sees_the_jobs"),
    ],
)
def test_a_lie_is_caught(outcomes, suite: str, caught_by: str) -> None:
    assert caught_by in failed(outcomes(suite, "-k", ABOUT_CLAIMS))


def test_claimed_transactions_that_cannot_be_tried_fail(outcomes) -> None:
    found = outcomes("TestOverclaims", "-k", "never_there")
    assert failed(found) == {"a_job_of_a_transaction_that_rolls_back_was_never_there"}


@pytest.mark.parametrize("suite", ["TestOverrides", "TestDeletes", "TestSkipsWithoutReason"])
def test_a_test_left_out_without_a_reason_is_caught(outcomes, suite: str) -> None:
    assert failed(outcomes(suite, "-k", "overridden or backwards")) == {NO_SILENT_OVERRIDE}


def test_a_class_that_gives_a_replaced_test_back_to_the_kit_leaves_none_out(outcomes) -> None:
    assert failed(outcomes("TestGivesBack", "-k", "overridden or backwards")) == set()


def test_a_class_without_a_driver_fails_and_says_what_to_give(outcomes) -> None:
    found = outcomes("TestGivesNothing", "-k", "backwards or port")
    assert set(found.values()) == {"failed"}
