"""How many jobs are claimed before a slot is free, by what runs and claims have told."""

from __future__ import annotations

from protojobs.worker.prefetch import BATCH_MAX, LAST_TRY_S, PREFETCH_MAX, PREFETCH_RUN_S, Prefetch


def known(duration_s: float, *, concurrency: int = 2) -> Prefetch:
    prefetch = Prefetch(concurrency)
    prefetch.measure(duration_s)
    return prefetch


class TestAhead:
    def test_nothing_is_claimed_ahead_before_the_first_run_has_told_anything(self) -> None:
        prefetch = Prefetch(2)
        for _ in range(10):
            prefetch.claimed(0.0, 8, 8, 1)
        assert prefetch.ahead(0.0) == 0

    def test_doubled_by_full_batches_halved_by_meagre_ones_and_bounded(self) -> None:
        prefetch, seen = known(0.0001), []
        for _ in range(10):
            prefetch.claimed(0.0, 8, 8, 1)
            seen.append(prefetch.ahead(0.0))
        assert seen[:3] == [2, 4, 8]
        assert seen[-1] == PREFETCH_MAX
        prefetch.claimed(0.0, 8, 2, 1)
        assert prefetch.ahead(0.0) == PREFETCH_MAX
        prefetch.claimed(0.0, 8, 1, 1)
        assert prefetch.ahead(0.0) == PREFETCH_MAX // 2

    def test_none_of_long_jobs_and_no_more_than_are_run_within_a_tenth_of_a_second(self) -> None:
        for duration_s, ahead in ((0.01, 20), (0.1, 2), (PREFETCH_RUN_S * 1.01, 0)):
            prefetch = known(duration_s)
            for _ in range(10):
                prefetch.claimed(0.0, 8, 8, 1)
            assert prefetch.ahead(0.0) == ahead

    def test_a_claim_takes_one_batch_while_another_is_run(self) -> None:
        prefetch = known(0.0001)
        for _ in range(10):
            prefetch.claimed(0.0, 8, 8, 1)
        assert prefetch.ahead(0.0) == PREFETCH_MAX == 2 * BATCH_MAX
        assert [prefetch.batch(0.0, outstanding) for outstanding in (0, BATCH_MAX, BATCH_MAX + 1)] == [
            BATCH_MAX,
            BATCH_MAX,
            0,
        ]

    def test_where_fewer_are_claimed_ahead_they_come_in_one_claim_when_half_of_them_are_left(self) -> None:
        prefetch = known(0.01)
        for _ in range(10):
            prefetch.claimed(0.0, 8, 8, 1)
        assert [prefetch.batch(0.0, outstanding) for outstanding in (0, 10, 11)] == [20, 20, 0]

    def test_now_and_then_none_so_that_a_slot_gets_free_for_a_job_on_its_last_attempt(self) -> None:
        prefetch = known(0.0001)
        for _ in range(10):
            prefetch.claimed(5.0, 8, 8, 1)
        prefetch.claimed(5.4, 8, 8, 0)
        assert prefetch.ahead(5.4) > 0
        assert (prefetch.ahead(5.0 + LAST_TRY_S), prefetch.batch(5.0 + LAST_TRY_S, 0)) == (0, 0)
        prefetch.claimed(5.6, 8, 8, 8)
        assert prefetch.ahead(5.7) > 0

    def test_a_pause_ends_it_until_claims_come_back_full_again(self) -> None:
        prefetch = known(0.0001)
        for _ in range(10):
            prefetch.claimed(0.0, 8, 8, 1)
        prefetch.pause()
        assert prefetch.ahead(0.0) == 0
        prefetch.claimed(0.0, 8, 8, 1)
        assert prefetch.ahead(0.0) == 2
