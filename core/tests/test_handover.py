"""Short jobs are handed to the threads, or the event loop, before one is free: which, how many, and when not."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import structs

from protojobs.port.records import ClaimedJob
from protojobs.worker.handover import AHEAD_MAX, AHEAD_S, SHORT_RUN_S, Handover, Line

AT = datetime(2030, 1, 1, tzinfo=UTC)


def lent(name: str, reclaims: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id="x", claim_seq=1, reserved_by="w", queue="q", job_name=name, job_class="j", data="{}", priority=0,
        attempts=1, max_retries=3, retry_delay=1, retry_policy=None, timeout=0, available_at=AT, reserved_at=AT,
        crashes=0, returns=0, reclaims=reclaims,
    )  # fmt: skip


def known(duration_s: float, *, concurrency: int = 2, line: Line | None = "threads") -> Handover:
    handover = Handover(concurrency, lambda _name: line, 0.0)
    handover.measure("j", duration_s)
    return handover


class TestRoom:
    def test_jobs_of_which_nothing_is_known_are_not_handed_over(self) -> None:
        handover = known(0.0001)
        assert handover.room("j", 0) > 0
        assert handover.room("another", 0) == 0

    def test_no_more_than_are_run_within_10_ms_and_never_more_than_one_claim_fetches_ahead(self) -> None:
        assert known(0.0005).room("j", 0) == round(AHEAD_S * 2 / 0.0005) == 40
        assert known(0.0005, concurrency=1).room("j", 0) == 20
        assert known(0.0).room("j", 0) == known(0.000001, concurrency=50).room("j", 0) == AHEAD_MAX

    def test_jobs_of_a_millisecond_or_more_are_not_handed_over(self) -> None:
        assert known(SHORT_RUN_S).room("j", 0) == 0
        assert known(SHORT_RUN_S * 0.99).room("j", 0) > 0

    def test_jobs_that_run_neither_in_threads_nor_on_the_loop_are_never_handed_over(self) -> None:
        assert known(0.0, line=None).room("j", 0) == 0

    def test_a_name_that_was_short_and_is_slow_now_is_handed_over_no_more_after_a_few_runs(self) -> None:
        handover, runs = known(0.0001), 0
        while handover.room("j", 0):
            handover.measure("j", 60.0)
            runs += 1
            assert runs <= 10
        assert runs > 1  # a single one may have waited for the interpreter's lock

    def test_and_is_again_once_it_is_short_again(self) -> None:
        handover, runs = known(0.01), 0
        while not handover.room("j", 0):
            handover.measure("j", 0.0001)
            runs += 1
            assert runs <= 30

    def test_names_do_not_lend_each_other_their_times(self) -> None:
        handover = known(0.0001)
        for _ in range(10):
            handover.measure("slow", 5.0)
        assert (handover.room("j", 0) > 0, handover.room("slow", 0)) == (True, 0)

    def test_names_that_run_nowhere_here_are_not_remembered(self) -> None:
        """Anybody may push any name."""
        handover = known(0.0001, line=None)
        for number in range(1_000):
            job = lent(f"name-{number}")
            handover.begin([job])
            handover.end(0.0, (job.id, 1))
            assert handover.room(job.job_name, 0) == 0
        assert (len(handover._mean_s), handover._lines, handover._elsewhere) == (1, {}, set())

    def test_none_is_handed_over_beside_one_that_needs_no_thread_or_whose_worker_died(self) -> None:
        handover = Handover(2, lambda name: "threads" if name == "j" else None, 0.0)
        handover.measure("j", 0.0001)
        other = structs.replace(lent("j"), id="other")
        for job in (lent("elsewhere"), lent("j", reclaims=1)):
            handover.begin([other])
            assert handover.room("j", 1) > 0
            handover.begin([job])
            assert handover.room("j", 2) == 0
            handover.end(0.0, ("other", 1))
            assert handover.room("j", 1) == 0
            handover.end(0.0, (job.id, 1))
            assert handover.room("j", 0) > 0

    def test_one_line_at_a_time_lies_ready_the_threads_or_the_loops(self) -> None:
        """Beside runs of the other kind there is a thread or a task that would begin at once what only lies ready."""
        handover = Handover(2, lambda name: "loop" if name == "async" else "threads", 0.0)
        handover.measure("async", 0.0001)
        handover.measure("plain", 0.0001)
        task, run = structs.replace(lent("async"), id="task"), structs.replace(lent("plain"), id="run")
        assert (handover.room("async", 0) > 0, handover.room("plain", 0) > 0) == (True, True)
        handover.begin([task])
        assert (handover.room("async", 1) > 0, handover.room("plain", 1)) == (True, 0)
        handover.begin([run])
        assert (handover.room("async", 2), handover.room("plain", 2)) == (0, 0)
        handover.end(0.0, ("task", 1))
        assert (handover.room("async", 1), handover.room("plain", 1) > 0) == (0, True)
