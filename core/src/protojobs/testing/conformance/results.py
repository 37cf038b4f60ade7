"""Results, and the jobs that come next: stored in the step that completes the job, by the run that counts, once."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    ClaimedJob,
    NewJob,
    Settled,
    Settlement,
    SettleStatus,
)
from protojobs.port.results import ERROR_CHARS_MAX, RESULT_BYTES_MAX, JobResult, Results
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import NOT_CLAIMED, concern
from protojobs.testing.conformance.naming import STRANGE
from protojobs.testing.conformance.steps import (
    LEASE_S,
    SETTLING,
    all_jobs,
    at_once,
    exactly,
    fresh_ids,
    job_of,
    join,
    lend,
    new_job,
    only,
    push,
    settle,
    settlement,
    their_ids,
)
from protojobs.testing.conformance.waiting import rings

__all__ = ["KeepingResults"]

LAPSED_S = LEASE_S + 10
SETTLERS = 10
MINUTE = timedelta(minutes=1)


@concern("results")
class KeepingResults(Fixtures):
    """What a run returns and what it asks for next is stored if and only if that run completes its job."""

    @pytest.fixture
    def result_store(self, driver: Store) -> Results:
        """The driver under test, as one that keeps results."""
        return result_store_of(driver)

    # ------------------------------------------------------------------------------------------------- results

    def test_a_completed_job_shows_the_result_that_came_with_its_completion(
        self, driver: Store, result_store: Results
    ) -> None:
        claim = lent(driver)
        before = driver.now()
        complete(driver, claim, result='{"total":7}')
        shown = only(result_store.get_results([claim.id]))
        assert (shown.id, shown.job_name) == (claim.id, "tests.job")
        assert (shown.state, shown.result) == (JobState.COMPLETED, '{"total":7}')
        assert (shown.error, shown.reason) == ("", None)
        assert shown.ended_at is not None
        assert before <= shown.ended_at <= driver.now()

    def test_a_completion_without_a_result_shows_none(self, driver: Store, result_store: Results) -> None:
        claim = lent(driver)
        settle(driver, claim, Verb.COMPLETE)
        shown = only(result_store.get_results([claim.id]))
        assert (shown.state, shown.result) == (JobState.COMPLETED, None)

    @pytest.mark.parametrize("text", ["null", '""', "0", *STRANGE.values()])
    def test_a_result_is_kept_letter_by_letter(self, driver: Store, result_store: Results, text: str) -> None:
        claim = lent(driver)
        complete(driver, claim, result=text)
        assert only(result_store.get_results([claim.id])).result == text

    def test_the_longest_result_is_kept_and_a_longer_one_is_refused(self, driver: Store, result_store: Results) -> None:
        first, second = exactly(2, lent_many(driver, 2))
        longest = '"' + "ä" * (RESULT_BYTES_MAX // 2 - 1) + '"'
        complete(driver, first, result=longest)
        assert only(result_store.get_results([first.id])).result == longest
        with pytest.raises(OptionInvalid):
            driver.settle([carrying(second, result=longest + " ")])
        assert job_of(driver, second.id).status is JobState.PROCESSING

    def test_jobs_in_every_state_say_how_they_stand(self, driver: Store, result_store: Results) -> None:
        ids = dict(zip((*SETTLING, Verb.CLAIM), fresh_ids(len(SETTLING) + 1), strict=True))
        push(driver, *[new_job(id=job_id) for job_id in ids.values()])
        claims = {claim.id: claim for claim in lend(driver, join(driver))}
        said = "Traceback (most recent call last):\n  File x\nValueError: no such pöst\n\n"
        for verb in SETTLING:
            answer = replace(
                settlement(claims[ids[verb]], verb),
                error=said if verb is Verb.FAIL else "",
                reason="why not" if verb is Verb.CANCEL else "",
                delay=60.0,
            )
            assert only(driver.settle([answer])).status is SettleStatus.APPLIED
        shown = {each.id: each for each in result_store.get_results(list(ids.values()))}
        states = {verb: shown[job_id].state for verb, job_id in ids.items()}
        assert states == {
            Verb.COMPLETE: JobState.COMPLETED,
            Verb.RETRY: JobState.PENDING,
            Verb.FAIL: JobState.FAILED,
            Verb.SNOOZE: JobState.PENDING,
            Verb.RELEASE: JobState.PENDING,
            Verb.CANCEL: JobState.CANCELLED,
            Verb.CLAIM: JobState.PROCESSING,
        }
        ended = {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}
        for verb, job_id in ids.items():
            each = shown[job_id]
            assert each.result is None
            assert each.error == ("ValueError: no such pöst" if verb is Verb.FAIL else "")
            assert each.reason == ("why not" if verb is Verb.CANCEL else None)
            assert each.ended_at == job_of(driver, job_id).processed_at
            assert (each.ended_at is not None) is (each.state in ended)

    def test_the_last_line_of_an_error_has_a_bound(self, driver: Store, result_store: Results) -> None:
        claim = lent(driver)
        line = "ValueError: " + "ä" * 2 * ERROR_CHARS_MAX
        driver.settle([replace(settlement(claim, Verb.FAIL), error=f"Traceback\n{line}")])
        assert only(result_store.get_results([claim.id])).error == line[:ERROR_CHARS_MAX]

    def test_what_is_not_there_is_left_out_and_nothing_comes_twice(self, driver: Store, result_store: Results) -> None:
        claim = lent(driver)
        complete(driver, claim, result="1")
        assert only(result_store.get_results([claim.id, fresh_id(), claim.id, "no id"])).result == "1"
        assert result_store.get_results([]) == []
        assert result_store.get_results(fresh_ids(BATCH_JOBS_MAX)) == []
        with pytest.raises(OptionInvalid):
            result_store.get_results(fresh_ids(BATCH_JOBS_MAX + 1))

    def test_any_driver_may_bring_a_result_and_any_may_show_it(self, driver: Store, handles: Handles) -> None:
        claim = lent(driver)
        complete(handles(), claim, result="[1]")
        assert only(result_store_of(handles()).get_results([claim.id])).result == "[1]"

    def test_a_result_goes_when_its_job_is_cleared(self, driver: Store, result_store: Results) -> None:
        claim = lent(driver)
        complete(driver, claim, result="1")
        driver.clear("q")
        assert result_store.get_results([claim.id]) == []
        again(driver, claim)
        assert only(result_store.get_results([claim.id])).result is None

    def test_a_result_goes_when_its_job_is_pruned(self, driver: Store, later: Later) -> None:
        claim = lent(driver)
        complete(driver, claim, result="1")
        ahead = later(120.0)
        ahead.prune(completed_older_than=60.0)
        assert result_store_of(ahead).get_results([claim.id]) == []
        again(ahead, claim)
        assert only(result_store_of(ahead).get_results([claim.id])).result is None

    def test_a_result_stays_while_its_job_is_kept(self, driver: Store, later: Later) -> None:
        claim = lent(driver)
        complete(driver, claim, result="1")
        ahead = later(120.0)
        ahead.prune(completed_older_than=600.0, failed_older_than=1.0)
        assert only(result_store_of(ahead).get_results([claim.id])).result == "1"

    # ---------------------------------------------------------------------------------------- what comes next

    def test_what_comes_next_is_stored_as_if_it_were_pushed(self, driver: Store) -> None:
        plain, rich = (
            new_job("next"),
            replace(
                new_job("next", priority=7, max_retries=9, data='{"ä":[]}', job_name="tests.other"),
                retry_delay=1.5,
                retry_policy='{"kind":"fixed"}',
                timeout=3.25,
                meta='{"trace":"1"}',
            ),
        )
        push(driver, alike := replace(rich, id=fresh_id()))
        complete(driver, lent(driver), then=(plain, rich))
        stored, model = job_of(driver, rich.id), job_of(driver, alike.id)
        same = dict.fromkeys(("id", "created_at", "available_at"))
        assert replace(stored, **same) == replace(model, **same)
        assert job_of(driver, plain.id).status is JobState.PENDING
        assert driver.stats("next").pending == 3
        claims = lend(driver, join(driver), "next")
        assert set(their_ids(claims)) == {plain.id, rich.id, alike.id}

    def test_what_comes_next_may_be_due_later(self, driver: Store, later: Later) -> None:
        delayed = new_job("next", delay=60.0)
        named = new_job("next", available_at=driver.now().replace(microsecond=0) + 2 * MINUTE)
        before = driver.now()
        complete(driver, lent(driver), then=(delayed, named))
        assert before + MINUTE <= job_of(driver, delayed.id).available_at <= driver.now() + MINUTE
        assert job_of(driver, named.id).available_at == named.available_at
        assert lend(driver, join(driver), "next") == []
        ahead = later(70.0)
        assert their_ids(lend(ahead, join(ahead), "next")) == [delayed.id]

    def test_whoever_waits_is_woken_for_what_comes_next(self, driver: Store, handles: Handles) -> None:
        claim = lent(driver)
        assert rings(driver, partial(complete, handles(), claim, then=(new_job(),)))

    def test_what_comes_next_and_is_known_already_changes_nothing(self, driver: Store) -> None:
        known = new_job("next")
        push(driver, known)
        complete(driver, lent(driver), then=(replace(known, data='{"n":2}', queue="elsewhere"), new_job("next")))
        stored = job_of(driver, known.id)
        assert (stored.queue, stored.data) == ("next", known.data)
        assert (driver.stats("next").pending, driver.stats("elsewhere").total) == (2, 0)

    def test_a_run_may_ask_for_as_many_as_one_enqueue_takes_and_not_for_more(self, driver: Store) -> None:
        first, second = exactly(2, lent_many(driver, 2))
        jobs = tuple(new_job("next", id=job_id) for job_id in fresh_ids(BATCH_JOBS_MAX))
        for too_many in (
            [carrying(first, then=(*jobs, new_job("next")))],
            [carrying(first, then=jobs), carrying(second, then=(new_job("next"),))],
            [carrying(first, then=(new_job("next", data='"' + "x" * BATCH_BYTES_MAX + '"'),))],
        ):
            with pytest.raises(OptionInvalid):
                driver.settle(too_many)
        assert (driver.stats("q").processing, driver.stats("next").total) == (2, 0)
        complete(driver, first, then=jobs)
        assert (driver.stats("q").completed, driver.stats("next").pending) == (1, BATCH_JOBS_MAX)

    # --------------------------------------------------------------------------------------- by the run that counts

    @pytest.mark.parametrize("mark", ["claim_seq", "reserved_by"])
    def test_a_stale_settlement_stores_nothing_of_what_it_carries(
        self, driver: Store, result_store: Results, mark: str
    ) -> None:
        claim = lent(driver)
        wrong = {"claim_seq": claim.claim_seq + 1} if mark == "claim_seq" else {"reserved_by": fresh_id()}
        said = replace(carrying(claim, result='"stale"', then=(new_job("next"),)), **wrong)
        assert only(driver.settle([said])).status is SettleStatus.STALE
        assert only(result_store.get_results([claim.id])) == JobResult(
            id=claim.id, job_name="tests.job", state=JobState.PROCESSING
        )
        complete(driver, claim, result='"current"')
        after = SettleStatus.STALE if mark == "claim_seq" else SettleStatus.REPEATED  # a settled claim has no holder
        assert only(driver.settle([said])).status is after
        assert only(result_store.get_results([claim.id])).result == '"current"'
        assert driver.stats("next").total == 0

    def test_a_lost_claim_stores_nothing_of_what_it_carries(self, driver: Store, later: Later) -> None:
        claim = lent(driver)
        ahead = later(LAPSED_S)
        ahead.reclaim(10)
        said = carrying(claim, result='"lost"', then=(new_job("next"),))
        assert only(ahead.settle([said])).status is SettleStatus.STALE
        second = only(lend(ahead, join(ahead)))
        complete(ahead, second, result='"second"')
        assert only(ahead.settle([said])).status is SettleStatus.STALE
        assert only(result_store_of(ahead).get_results([claim.id])).result == '"second"'
        assert ahead.stats("next").total == 0

    def test_a_missing_job_stores_nothing_of_what_it_carries(self, driver: Store, result_store: Results) -> None:
        claim = replace(lent(driver), id=fresh_id())
        assert only(driver.settle([carrying(claim, result="1", then=(new_job("next"),))])).status is SettleStatus.STALE
        assert (result_store.get_results([claim.id]), driver.stats("next").total) == ([], 0)

    def test_a_repeated_settlement_stores_nothing_again(self, driver: Store, result_store: Results) -> None:
        claim = lent(driver)
        said = carrying(claim, result="1", then=(new_job("next"),))
        assert only(driver.settle([said])).status is SettleStatus.APPLIED
        assert driver.clear("next").pending == 1
        for repeated in (said, replace(said, result="2", then=(new_job("next"),))):
            assert only(driver.settle([repeated])).status is SettleStatus.REPEATED
        assert only(result_store.get_results([claim.id])).result == "1"
        assert driver.stats("next").total == 0

    def test_a_claim_that_was_settled_otherwise_before_stores_nothing(
        self, driver: Store, result_store: Results
    ) -> None:
        claim = lent(driver)
        settle(driver, claim, Verb.RETRY, delay=60.0)
        assert (
            only(driver.settle([carrying(claim, result="1", then=(new_job("next"),))])).status is SettleStatus.REPEATED
        )
        assert only(result_store.get_results([claim.id])) == JobResult(
            id=claim.id, job_name="tests.job", state=JobState.PENDING
        )
        assert driver.stats("next").total == 0

    def test_work_that_was_done_although_a_person_wished_it_cancelled_keeps_all(
        self, driver: Store, result_store: Results
    ) -> None:
        claim = lent(driver)
        driver.cancel([claim.id], reason="not wanted")
        assert complete(driver, claim, result="1", then=(new_job("next"),)).state is JobState.COMPLETED
        shown = only(result_store.get_results([claim.id]))
        assert (shown.result, shown.reason, driver.stats("next").pending) == ("1", "not wanted", 1)

    @pytest.mark.parametrize("verb", [verb for verb in SETTLING if verb is not Verb.COMPLETE])
    def test_only_a_completion_may_carry_something(self, driver: Store, verb: Verb) -> None:
        claim = lent(driver)
        for wrong in (
            replace(settlement(claim, verb), result="1"),
            replace(settlement(claim, verb), then=(new_job(),)),
        ):
            with pytest.raises(OptionInvalid):
                driver.settle([wrong])
        assert job_of(driver, claim.id).status is JobState.PROCESSING
        assert len(all_jobs(driver)) == 1

    def test_of_many_settlements_each_stores_its_own(self, driver: Store, result_store: Results) -> None:
        claims = exactly(8, lent_many(driver, 8))
        verbs = [Verb.COMPLETE, Verb.COMPLETE, Verb.FAIL, Verb.COMPLETE, Verb.RETRY, Verb.COMPLETE, Verb.CANCEL]
        said = [settlement(claim, verb) for claim, verb in zip(claims, verbs, strict=False)]
        said[1] = carrying(claims[1], result='"one"')
        one, two, three = (new_job("next", data=f'{{"n":{number}}}') for number in (1, 2, 3))
        said[3] = carrying(claims[3], result='"three"', then=(one, two))
        said[5] = replace(carrying(claims[5], result='"stale"', then=(new_job("next"),)), claim_seq=9)
        said += [carrying(claims[7], then=(three,)), carrying(claims[1], result='"again"')]
        answers = driver.settle(said)
        expected = [SettleStatus.APPLIED] * 9
        expected[5], expected[8] = SettleStatus.STALE, SettleStatus.REPEATED
        assert [(answer.id, answer.status) for answer in answers] == [
            (each.id, status) for each, status in zip(said, expected, strict=True)
        ]
        shown = {each.id: each.result for each in result_store.get_results([claim.id for claim in claims])}
        assert [shown[claim.id] for claim in claims] == [None, '"one"', None, '"three"', None, None, None, None]
        assert driver.stats("next").pending == 3
        assert [job_of(driver, each.id).data for each in (one, two, three)] == [one.data, two.data, three.data]
        stats = driver.stats("q")
        assert (stats.completed, stats.failed, stats.pending, stats.cancelled, stats.processing) == (4, 1, 1, 1, 1)

    def test_a_turn_settles_and_claims_what_comes_next(self, driver: Store, result_store: Results) -> None:
        worker = join(driver)
        push(driver)
        claim = only(lend(driver, worker))
        following = new_job()
        reply = driver.settle_and_claim(
            worker, [carrying(claim, result="1", then=(following,))], ["q"], slots=10, limit=10
        )
        assert [(answer.id, answer.status) for answer in reply.settled] == [(claim.id, SettleStatus.APPLIED)]
        assert their_ids(reply.claimed) == [following.id]
        assert only(result_store.get_results([claim.id])).result == "1"

    def test_of_many_who_settle_one_claim_at_once_one_stores_what_comes_next(
        self, driver: Store, handles: Handles, result_store: Results
    ) -> None:
        claim = lent(driver)
        said = [carrying(claim, result=str(each), then=(new_job("next"),)) for each in range(SETTLERS)]
        drivers = [handles() for _ in said]
        answers = at_once(*[partial(each.settle, [one]) for each, one in zip(drivers, said, strict=True)])
        statuses = [only(answer).status for answer in answers if isinstance(answer, list)]
        assert sorted(statuses) == [SettleStatus.APPLIED, *[SettleStatus.REPEATED] * (SETTLERS - 1)]
        applied = said[statuses.index(SettleStatus.APPLIED)]
        assert only(result_store.get_results([claim.id])).result == applied.result
        assert job_of(driver, applied.then[0].id).queue == "next"
        assert driver.stats("next").total == 1

    def test_a_release_that_a_retry_by_hand_follows_leaves_no_old_result(
        self, driver: Store, result_store: Results
    ) -> None:
        claim = lent(driver)
        settle(driver, claim, Verb.FAIL)
        driver.retry_failed([only(driver.get_failed([claim.id])).id])
        assert only(result_store.get_results([claim.id])) == JobResult(
            id=claim.id, job_name="tests.job", state=JobState.PENDING
        )
        complete(driver, only(lend(driver, join(driver))), result="1")
        assert only(result_store.get_results([claim.id])).result == "1"


def result_store_of(driver: Store) -> Results:
    """The driver as one that keeps results; the test is left out where it does not say that it does."""
    if not driver.capabilities.results:
        pytest.skip(f"{NOT_CLAIMED}results")
    assert isinstance(driver, Results)
    return driver


def lent(driver: Store) -> ClaimedJob:
    """A job of the queue `q` that is lent to a worker."""
    return only(lent_many(driver, 1))


def lent_many(driver: Store, count: int) -> list[ClaimedJob]:
    """As many jobs of the queue `q`, lent to one worker."""
    result_store_of(driver)
    push(driver, *[new_job() for _ in range(count)])
    return lend(driver, join(driver), slots=count, limit=count)


def carrying(claim: ClaimedJob, *, result: str | None = None, then: tuple[NewJob, ...] = ()) -> Settlement:
    """The completion of a claim that brings these along."""
    return replace(settlement(claim, Verb.COMPLETE), result=result, then=then)


def complete(driver: Store, claim: ClaimedJob, *, result: str | None = None, then: tuple[NewJob, ...] = ()) -> Settled:
    """Settle with it, and expect that it is accepted."""
    answer = only(driver.settle([carrying(claim, result=result, then=then)]))
    assert answer.status is SettleStatus.APPLIED
    return answer


def unended(claim: ClaimedJob, state: JobState) -> JobResult:
    """What is shown of a job that has not ended."""
    return JobResult(id=claim.id, job_name=claim.job_name, state=state)


def again(driver: Store, claim: ClaimedJob) -> None:
    """Push the job anew by its id, and complete it with no result."""
    push(driver, new_job(id=claim.id))
    settle(driver, only(lend(driver, join(driver))), Verb.COMPLETE)
