"""How far a worker works ahead, by what runs and claims have told."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import structs

from protojobs.port.records import ClaimedJob
from protojobs.worker.prefetch import BATCH_MAX, LAST_TRY_S, LEAD_RUN_S, LEAD_S, PREFETCH_MAX, PREFETCH_RUN_S, Prefetch

AT = datetime(2030, 1, 1, tzinfo=UTC)


def lent(name: str, reclaims: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id="x", claim_seq=1, reserved_by="w", queue="q", job_name=name, job_class="j", data="{}", priority=0,
        attempts=1, max_retries=3, retry_delay=1, retry_policy=None, timeout=0, available_at=AT, reserved_at=AT,
        crashes=0, returns=0, reclaims=reclaims,
    )  # fmt: skip


def known(duration_s: float, *, concurrency: int = 2, may_lead: bool = True) -> Prefetch:
    pace = Prefetch(concurrency, lambda _name: may_lead)
    pace.ran("j", duration_s)
    return pace


class TestLead:
    def test_jobs_of_which_nothing_is_known_do_not_lead(self) -> None:
        pace = known(0.0001)
        assert pace.lead("j") > 0
        assert pace.lead("another") == 0

    def test_no_more_than_are_run_within_10_ms_and_never_more_than_one_claim_fetches_ahead(self) -> None:
        assert known(0.0005).lead("j") == round(LEAD_S * 2 / 0.0005) == 40
        assert known(0.0005, concurrency=1).lead("j") == 20
        assert known(0.0).lead("j") == known(0.000001, concurrency=50).lead("j") == BATCH_MAX

    def test_jobs_of_a_millisecond_or_more_do_not_lead(self) -> None:
        assert known(LEAD_RUN_S).lead("j") == 0
        assert known(LEAD_RUN_S * 0.99).lead("j") > 0

    def test_jobs_that_do_not_run_in_threads_never_lead(self) -> None:
        assert known(0.0, may_lead=False).lead("j") == 0

    def test_a_name_that_was_short_and_is_slow_now_leads_no_more_after_a_few_runs(self) -> None:
        pace, runs = known(0.0001), 0
        while pace.lead("j"):
            pace.ran("j", 60.0)
            runs += 1
            assert runs <= 10
        assert runs > 1  # a single one may have waited for the interpreter's lock

    def test_and_may_lead_again_once_it_is_short_again(self) -> None:
        pace, runs = known(0.01), 0
        while not pace.lead("j"):
            pace.ran("j", 0.0001)
            runs += 1
            assert runs <= 30

    def test_names_do_not_lend_each_other_their_times(self) -> None:
        pace = known(0.0001)
        for _ in range(10):
            pace.ran("slow", 5.0)
        assert (pace.lead("j") > 0, pace.lead("slow")) == (True, 0)

    def test_names_that_run_nowhere_here_are_not_remembered(self) -> None:
        """Anybody may push any name."""
        pace = known(0.0001, may_lead=False)
        for number in range(1_000):
            job = lent(f"name-{number}")
            pace.begins([job])
            pace.ended((job.id, 1))
            assert pace.lead(job.job_name) == 0
        assert (len(pace._mean_of), pace._in_threads, pace._elsewhere) == (1, set(), set())

    def test_none_leads_beside_one_that_needs_no_thread_or_whose_worker_died(self) -> None:
        pace = Prefetch(2, lambda name: name == "j")
        pace.ran("j", 0.0001)
        other = structs.replace(lent("j"), id="other")
        for job in (lent("elsewhere"), lent("j", reclaims=1)):
            pace.begins([other])
            assert pace.lead("j") > 0
            pace.begins([job])
            assert pace.lead("j") == 0
            pace.ended(("other", 1))
            assert pace.lead("j") == 0
            pace.ended((job.id, 1))
            assert pace.lead("j") > 0


class TestAhead:
    def test_nothing_is_fetched_ahead_before_the_first_run_has_told_anything(self) -> None:
        pace = Prefetch(2, lambda _name: True)
        for _ in range(10):
            pace.claimed(0.0, 8, 8, 1)
        assert pace.ahead(0.0) == 0

    def test_doubled_by_full_batches_halved_by_meagre_ones_and_bounded(self) -> None:
        pace, seen = known(0.0001), []
        for _ in range(10):
            pace.claimed(0.0, 8, 8, 1)
            seen.append(pace.ahead(0.0))
        assert seen[:3] == [2, 4, 8]
        assert seen[-1] == PREFETCH_MAX
        pace.claimed(0.0, 8, 2, 1)
        assert pace.ahead(0.0) == PREFETCH_MAX
        pace.claimed(0.0, 8, 1, 1)
        assert pace.ahead(0.0) == PREFETCH_MAX // 2

    def test_none_of_long_jobs_and_no_more_than_are_run_within_a_tenth_of_a_second(self) -> None:
        for duration_s, ahead in ((0.01, 20), (0.1, 2), (PREFETCH_RUN_S * 1.01, 0)):
            pace = known(duration_s)
            for _ in range(10):
                pace.claimed(0.0, 8, 8, 1)
            assert pace.ahead(0.0) == ahead

    def test_a_claim_takes_one_batch_while_another_is_run(self) -> None:
        pace = known(0.0001)
        for _ in range(10):
            pace.claimed(0.0, 8, 8, 1)
        assert pace.ahead(0.0) == PREFETCH_MAX == 2 * BATCH_MAX
        assert [pace.batch(0.0, outstanding) for outstanding in (0, BATCH_MAX, BATCH_MAX + 1)] == [
            BATCH_MAX,
            BATCH_MAX,
            0,
        ]

    def test_where_fewer_are_fetched_ahead_they_come_in_one_claim_when_half_of_them_are_left(self) -> None:
        pace = known(0.01)
        for _ in range(10):
            pace.claimed(0.0, 8, 8, 1)
        assert [pace.batch(0.0, outstanding) for outstanding in (0, 10, 11)] == [20, 20, 0]

    def test_now_and_then_none_so_that_a_slot_gets_free_for_a_job_on_its_last_attempt(self) -> None:
        pace = known(0.0001)
        for _ in range(10):
            pace.claimed(5.0, 8, 8, 1)
        pace.claimed(5.4, 8, 8, 0)
        assert pace.ahead(5.4) > 0
        assert (pace.ahead(5.0 + LAST_TRY_S), pace.batch(5.0 + LAST_TRY_S, 0)) == (0, 0)
        pace.claimed(5.6, 8, 8, 8)
        assert pace.ahead(5.7) > 0

    def test_calm_ends_it_until_claims_come_back_full_again(self) -> None:
        pace = known(0.0001)
        for _ in range(10):
            pace.claimed(0.0, 8, 8, 1)
        pace.calm()
        assert pace.ahead(0.0) == 0
        pace.claimed(0.0, 8, 8, 1)
        assert pace.ahead(0.0) == 2
