"""What each verb makes of one job, said without a store; that stores do the same is for the conformance kit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from protojobs.errors import ContractBroken, OptionInvalid
from protojobs.port import rules
from protojobs.port.lifecycle import RETURNS_FREE, SUSPECT_RECLAIMS, TRANSITIONS, JobState, Verb
from protojobs.port.records import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    CancelAnswer,
    ExportedJob,
    FailedJob,
    Fence,
    JobFilter,
    NewJob,
    RetryAnswer,
    Settlement,
    SettleStatus,
    WorkerInfo,
    WorkerRecord,
)

T0 = datetime(2030, 1, 1, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)
PENDING, PROCESSING, FAILED = JobState.PENDING, JobState.PROCESSING, JobState.FAILED
SETTLING = sorted(rules.SETTLES_TO)


class Row(ExportedJob, frozen=True, kw_only=True):
    """A driver's own row."""

    shelf: str = ""


def pending(**changes: object) -> Row:
    job = rules.new_row(NewJob(id="j", queue="q", job_name="n", job_class="m:C", data="{}", max_retries=2), T0)
    fields = {name: getattr(job, name) for name in job.__struct_fields__}
    return Row(**fields | {"shelf": "left"} | changes)


def lent(**changes: object) -> Row:
    return replace(rules.claim(pending(), "w", T0)[0], **changes)


def failed(**changes: object) -> Row:
    job, _ = rules.settle(lent(), said(Verb.FAIL, error="trace"), T0, failed_id="f")
    assert job is not None
    return replace(job, **changes)


def said(verb: Verb, **more: object) -> Settlement:
    return Settlement(**{"id": "j", "claim_seq": 1, "reserved_by": "w", "verb": verb} | more)


def settled(job: Row, settlement: Settlement) -> Row:
    after, answer = rules.settle(job, settlement, NOW, failed_id="f")
    assert after is not None
    assert answer.status is SettleStatus.APPLIED
    assert (answer.state, answer.available_at) == (after.status, after.available_at)
    return after


def worker(*, isolates: bool = False, worker_id: str = "w") -> WorkerRecord:
    info = WorkerInfo(id=worker_id, host="h", pid=1, queues=("q",), concurrency=1, lease_s=60.0, isolates=isolates)
    return rules.renewed(info, T0)


class TestBatches:
    def test_a_batch_of_the_largest_size_is_handed_on(self) -> None:
        ids = ["x"] * BATCH_JOBS_MAX
        assert rules.check_batch(ids) is ids

    @pytest.mark.parametrize("check", [rules.check_batch, rules.check_jobs, rules.check_settlements])
    def test_a_longer_one_is_refused(self, check: Callable[[list[object]], object]) -> None:
        with pytest.raises(OptionInvalid):
            check([None] * (BATCH_JOBS_MAX + 1))

    def test_payloads_are_counted_in_bytes_and_not_in_characters(self) -> None:
        job = NewJob(id="j", queue="q", job_name="n", job_class="m:C", data="x" * BATCH_BYTES_MAX)
        rules.check_jobs([job])
        with pytest.raises(OptionInvalid):
            rules.check_jobs([replace(job, data="é" + "x" * (BATCH_BYTES_MAX - 1))])

    @pytest.mark.parametrize("verb", Verb)
    def test_only_the_six_verbs_of_a_worker_settle(self, verb: Verb) -> None:
        if verb in (Verb.COMPLETE, Verb.RETRY, Verb.FAIL, Verb.SNOOZE, Verb.RELEASE, Verb.CANCEL):
            rules.check_settlements([said(verb)])
        else:
            with pytest.raises(OptionInvalid):
                rules.check_settlements([said(verb)])


class TestEnqueue:
    @pytest.mark.parametrize(
        ("delay", "moment", "due"),
        [(0.0, None, T0), (5.0, None, T0 + timedelta(seconds=5)), (5.0, NOW, NOW)],
        ids=["at once", "after a delay", "at a moment, which wins"],
    )
    def test_a_new_job_is_pending_untried_and_due(self, delay: float, moment: datetime | None, due: datetime) -> None:
        new = NewJob(
            id="j", queue="q", job_name="n", job_class="m:C", data="{}", meta="{}", delay=delay, available_at=moment
        )
        job = rules.new_row(new, T0)
        assert (job.status, job.created_at, job.available_at, job.reserved_by) == (PENDING, T0, due, "")
        assert [job.attempts, job.crashes, job.returns, job.reclaims, job.claim_seq] == [0] * 5
        told = set(NewJob.__struct_fields__) & set(ExportedJob.__struct_fields__) - {"available_at"}
        assert {name: getattr(job, name) for name in told} == {name: getattr(new, name) for name in told}


class TestClaim:
    def test_it_counts_the_attempt_and_the_claim_and_names_the_holder(self) -> None:
        job, claimed = rules.claim(pending(attempts=1, claim_seq=4, progress=0.5), "w", NOW)
        assert (job.status, job.reserved_by, job.reserved_at) == (PROCESSING, "w", NOW)
        assert (job.attempts, job.claim_seq, job.progress) == (2, 5, None)
        assert claimed == rules.as_claimed(job)
        assert (claimed.id, claimed.attempts, claimed.is_cancel_requested) == ("j", 2, False)

    def test_a_drivers_own_fields_stay(self) -> None:
        assert rules.claim(pending(shelf="right"), "w", NOW)[0].shelf == "right"

    def test_one_who_holds_a_marked_job_sees_the_mark(self) -> None:
        assert rules.as_claimed(lent(cancel_requested_at=NOW)).is_cancel_requested


class TestWhatOneClaimLends:
    def test_up_to_the_limit_in_the_order_in_which_they_come(self) -> None:
        due = [pending(id=name) for name in "cab"]
        assert [job.id for job in rules.lendable(due, slots=9, limit=2)] == ["c", "a"]

    def test_beyond_the_slots_a_last_attempt_is_passed_over(self) -> None:
        due = [pending(id="a"), pending(id="last", attempts=2), pending(id="b", attempts=1)]
        assert [job.id for job in rules.lendable(due, slots=1, limit=9)] == ["a", "b"]
        assert [job.id for job in rules.lendable(due, slots=2, limit=9)] == ["a", "last", "b"]

    def test_no_more_than_a_thousand_are_passed_over(self) -> None:
        seen = 0

        def due() -> Iterator[Row]:
            nonlocal seen
            for _ in range(10 * rules.PASSED_OVER_MAX):
                seen += 1
                yield pending(attempts=2)

        assert rules.lendable(due(), slots=0, limit=5) == []
        assert seen <= rules.PASSED_OVER_MAX + 1

    def test_the_payloads_are_bounded_but_the_first_is_always_lent(self) -> None:
        big, small = "é" * (BATCH_BYTES_MAX // 2), "x"
        due = [pending(data=big + "x"), pending(data=small)]
        assert rules.lendable(due, slots=9, limit=9) == due[:1]
        fits = [pending(data=big[1:]), pending(data=small), pending(data=small), pending(data=small)]
        assert rules.lendable(fits, slots=9, limit=9) == fits[:3]


class TestTheFence:
    @pytest.mark.parametrize("changes", [{"id": "k"}, {"claim_seq": 2}, {"reserved_by": "v"}])
    def test_all_three_must_match(self, changes: dict[str, object]) -> None:
        fence = Fence(id="j", claim_seq=1, reserved_by="w")
        assert rules.is_current(lent(), fence)
        assert not rules.is_current(lent(), replace(fence, **changes))

    def test_nobody_is_no_holder(self) -> None:
        assert not rules.is_current(pending(claim_seq=1), Fence(id="j", claim_seq=1, reserved_by=""))

    @pytest.mark.parametrize("verb", SETTLING)
    def test_what_was_said_before_is_repeated_and_changes_nothing(self, verb: Verb) -> None:
        job = settled(lent(), said(verb))
        again, answer = rules.settle(job, said(verb), NOW, failed_id="g")
        assert again is job
        assert (answer.status, answer.state) == (SettleStatus.REPEATED, job.status)

    def test_a_lost_claim_is_stale_and_changes_nothing(self) -> None:
        taken, _ = rules.reclaim(lent(), None, NOW)
        for job in (taken, rules.claim(taken, "w", NOW)[0], lent(reserved_by="v")):
            after, answer = rules.settle(job, said(Verb.COMPLETE), NOW, failed_id="f")
            assert after is job
            assert (answer.status, answer.state) == (SettleStatus.STALE, job.status)

    def test_a_job_that_is_gone_has_no_state(self) -> None:
        after, answer = rules.settle(None, said(Verb.COMPLETE), NOW, failed_id="f")
        assert after is None
        assert (answer.status, answer.state, answer.available_at) == (SettleStatus.STALE, None, None)


class TestSettle:
    @pytest.mark.parametrize("verb", SETTLING)
    def test_each_empties_the_holder_and_leaves_the_claims_number(self, verb: Verb) -> None:
        job = settled(lent(), said(verb))
        assert (job.status, job.reserved_by, job.claim_seq) == (rules.SETTLES_TO[verb], "", 1)
        assert job.processed_at == (None if job.status is PENDING else NOW)
        assert job.reserved_at == (None if job.status is PENDING else T0)

    @pytest.mark.parametrize(("verb", "attempts"), [(Verb.RETRY, 1), (Verb.SNOOZE, 0), (Verb.RELEASE, 0)])
    def test_a_retry_spends_the_attempt_and_the_others_give_it_back(self, verb: Verb, attempts: int) -> None:
        job = settled(lent(), said(verb, delay=5.0))
        assert (job.attempts, job.available_at) == (attempts, NOW + timedelta(seconds=5))

    def test_a_named_moment_wins_over_the_delay(self) -> None:
        assert settled(lent(), said(Verb.RELEASE, delay=5.0, available_at=T0)).available_at == T0

    @pytest.mark.parametrize(("returns", "attempts"), [(RETURNS_FREE - 1, 0), (RETURNS_FREE, 1)])
    def test_a_counted_release_spends_the_attempt_once_the_free_ones_are_used(
        self, returns: int, attempts: int
    ) -> None:
        job = settled(lent(returns=returns), said(Verb.RELEASE, counts_return=True))
        assert (job.returns, job.attempts) == (returns + 1, attempts)
        uncounted = settled(lent(returns=RETURNS_FREE), said(Verb.RELEASE))
        assert (uncounted.returns, uncounted.attempts) == (RETURNS_FREE, 0)
        other = settled(lent(returns=RETURNS_FREE), said(Verb.SNOOZE, counts_return=True))
        assert (other.returns, other.attempts) == (RETURNS_FREE, 0)

    def test_a_crash_is_counted_where_the_worker_says_so(self) -> None:
        assert settled(lent(crashes=1), said(Verb.RETRY, counts_crash=True)).crashes == 2

    def test_a_failure_comes_with_its_row(self) -> None:
        job = settled(lent(attempts=3), said(Verb.FAIL, error="trace"))
        assert job.failed == FailedJob(
            id="f", job_id="j", queue="q", job_class="m:C", job_name="n", data="{}",
            attempts=3, exception="trace", failed_at=NOW,
        )  # fmt: skip

    @pytest.mark.parametrize("verb", SETTLING)
    def test_a_persons_cancel_outlives_the_run_unless_the_work_was_done(self, verb: Verb) -> None:
        job = settled(lent(cancel_requested_at=NOW, reason="hers"), said(verb, reason="its own", error="trace"))
        assert job.status is (JobState.COMPLETED if verb is Verb.COMPLETE else JobState.CANCELLED)
        assert (job.failed, job.reason, job.processed_at) == (None, "hers", NOW)

    def test_a_reason_is_kept_until_there_is_another(self) -> None:
        assert settled(lent(reason="old"), said(Verb.RELEASE)).reason == "old"
        assert settled(lent(reason="old"), said(Verb.RELEASE, reason="new")).reason == "new"


class TestLeases:
    def test_a_new_worker_starts_now_and_a_known_one_goes_on(self) -> None:
        first = worker()
        again = rules.renewed(first, NOW)
        assert (first.started_at, first.lease_ends_at) == (T0, T0 + timedelta(seconds=60))
        assert (again.started_at, again.heartbeat_at, again.lease_ends_at) == (T0, NOW, NOW + timedelta(seconds=60))

    def test_the_first_lease_to_end_one_worker_left_out(self) -> None:
        early, late = worker(worker_id="a"), rules.renewed(worker(worker_id="b"), NOW)
        assert rules.first_end([late, early], NOW) == 60.0 - 3600.0
        assert rules.first_end([late, early], NOW, apart_from="a") == 60.0
        assert rules.first_end([early], NOW, apart_from="a") is None

    def test_a_reclaimed_job_has_its_old_place_in_the_line_and_another_number(self) -> None:
        held = lent()
        job, lost = rules.reclaim(held, worker(), NOW + timedelta(seconds=9))
        assert (job.status, job.reserved_by, job.claim_seq, job.available_at) == (PENDING, "", 2, held.available_at)
        assert (job.attempts, job.returns, job.reclaims, job.crashes) == (0, 1, 1, 0)
        assert (lost.id, lost.reserved_by, lost.state, lost.attempts) == ("j", "w", PENDING, 0)

    @pytest.mark.parametrize(("returns", "attempts"), [(RETURNS_FREE - 1, 0), (RETURNS_FREE, 1)])
    def test_the_attempt_is_given_back_while_returns_are_free(self, returns: int, attempts: int) -> None:
        assert rules.reclaim(lent(returns=returns), worker(), NOW)[0].attempts == attempts

    @pytest.mark.parametrize(
        ("reclaims", "holder", "is_crash"),
        [
            (SUSPECT_RECLAIMS, worker(), True),
            (SUSPECT_RECLAIMS - 1, worker(), False),
            (SUSPECT_RECLAIMS, worker(isolates=True), False),
            (SUSPECT_RECLAIMS, None, False),
        ],
        ids=["a suspect", "not yet a suspect", "isolated", "an orphan"],
    )
    def test_a_suspect_that_took_its_worker_along_counts_a_crash_and_spends_the_attempt(
        self, reclaims: int, holder: WorkerRecord | None, is_crash: bool
    ) -> None:
        job, _ = rules.reclaim(lent(reclaims=reclaims), holder, NOW)
        assert (job.crashes, job.attempts) == ((1, 1) if is_crash else (0, 0))

    def test_a_marked_job_is_cancelled(self) -> None:
        job, lost = rules.reclaim(lent(cancel_requested_at=T0), worker(), NOW)
        assert (job.status, lost.state, job.processed_at) == (JobState.CANCELLED, JobState.CANCELLED, NOW)


class TestPeople:
    def test_a_pending_job_is_cancelled_at_once(self) -> None:
        job, answer = rules.cancel(pending(), "why", NOW)
        assert job is not None
        assert (answer, job.status, job.reason, job.processed_at) == ("cancelled", JobState.CANCELLED, "why", NOW)

    def test_a_running_one_is_marked_once(self) -> None:
        first, answer = rules.cancel(lent(), "why", T0)
        again, _ = rules.cancel(first, "", NOW)
        assert again is not None
        assert answer is CancelAnswer.REQUESTED
        assert (again.status, again.reserved_by, again.cancel_requested_at) == (PROCESSING, "w", T0)
        assert again.reason == "why"

    def test_what_has_ended_moves_or_is_missing_stays_as_it_is(self) -> None:
        for job in (failed(), settled(lent(), said(Verb.COMPLETE)), rules.export(pending())):
            assert rules.cancel(job, "why", NOW) == (job, CancelAnswer.FINISHED)
        assert rules.cancel(None, "why", NOW) == (None, CancelAnswer.MISSING)

    def test_a_retry_by_hand_begins_afresh_without_its_row(self) -> None:
        job, answer = rules.retry_failed(failed(crashes=1, returns=2, reclaims=3), NOW)
        assert job is not None
        assert (answer, job.status, job.available_at) == (RetryAnswer.REQUEUED, PENDING, NOW)
        assert [job.attempts, job.crashes, job.returns, job.reclaims, job.claim_seq] == [0, 0, 0, 0, 2]
        assert (job.failed, job.processed_at, job.max_retries) == (None, None, 2)

    def test_only_a_failed_job_can_be_retried(self) -> None:
        moving = rules.export(failed())
        assert rules.retry_failed(moving, NOW) == (moving, RetryAnswer.CONFLICT)
        assert rules.retry_failed(None, NOW) == (None, RetryAnswer.MISSING)

    def test_an_exported_job_keeps_all_but_its_claim(self) -> None:
        job = failed()
        assert rules.export(job) == replace(job, status=JobState.MOVING, claim_seq=2)

    def test_find_shows_what_matches_in_every_field_that_is_set(self) -> None:
        assert rules.is_wanted(pending(), JobFilter())
        assert rules.is_wanted(pending(), JobFilter(states=(FAILED, PENDING), queue="q", job_name="n"))
        for other in (JobFilter(states=(FAILED,)), JobFilter(queue="r"), JobFilter(job_name="o")):
            assert not rules.is_wanted(pending(), other)


MOVES: dict[Verb, Callable[[Row], object]] = {
    Verb.CLAIM: lambda job: rules.claim(job, "w", NOW),
    Verb.RECLAIM: lambda job: rules.reclaim(job, None, NOW),
    Verb.EXPORT: rules.export,
}


class TestTheTableIsTheLaw:
    @pytest.mark.parametrize("state", JobState)
    @pytest.mark.parametrize("verb", MOVES)
    def test_a_move_that_it_does_not_have_is_refused(self, verb: Verb, state: JobState) -> None:
        job = pending(status=state)
        if (state, verb) in TRANSITIONS:
            assert MOVES[verb](job)
        else:
            with pytest.raises(ContractBroken, match=verb):
                MOVES[verb](job)

    @pytest.mark.parametrize("state", JobState)
    @pytest.mark.parametrize("verb", Verb)
    def test_a_verb_deletes_what_the_table_lets_it(self, verb: Verb, state: JobState) -> None:
        may_delete = TRANSITIONS.get((state, verb)) == (None,)
        assert rules.is_removable(pending(status=state), verb) is may_delete

    def test_every_settling_verb_leads_where_the_table_says_first(self) -> None:
        assert {verb: TRANSITIONS[PROCESSING, verb][0] for verb in SETTLING} == rules.SETTLES_TO
