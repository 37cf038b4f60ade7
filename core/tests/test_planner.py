"""The planner, without threads, clocks or stores: what to do, and how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from msgspec import structs

from protojobs.port.lifecycle import SUSPECT_RECLAIMS, Verb
from protojobs.port.records import ClaimedJob, Heartbeat
from protojobs.worker.handover import HANDOVER_WAIT_S
from protojobs.worker.lease.validity import IDENTITIES_MAX, LeaseValidity
from protojobs.worker.lease.watch import LeaseWatch
from protojobs.worker.outcome import Outcome, settlement
from protojobs.worker.plan import Plan
from protojobs.worker.planner import LINGER_S, SETTLED_BESIDE, TICK_S, UNSETTLED_MAX, Planner, WorkLimits
from protojobs.worker.prefetch import BATCH_MAX, PREFETCH_RUN_S

LEASE_S = 60.0
AT = datetime(2030, 1, 1, tzinfo=UTC)


def lent(name: str, reclaims: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id=name, claim_seq=1, reserved_by="w", queue="q", job_name="j", job_class="j", data="{}", priority=0,
        attempts=1, max_retries=3, retry_delay=1, retry_policy=None, timeout=0, available_at=AT, reserved_at=AT,
        crashes=0, returns=0, reclaims=reclaims,
    )  # fmt: skip


def completed(job: ClaimedJob, took_s: float = 1.0) -> Outcome:
    return Outcome(claimed=job, settlement=settlement(job, Verb.COMPLETE), duration_s=took_s)


class Worker:
    """Drives a Planner through virtual time."""

    def __init__(
        self,
        *,
        concurrency: int = 2,
        max_jobs: int | None = None,
        poll_s: float = 1.0,
        is_sync: bool = False,
        trips_max: int = 1,
    ) -> None:
        limits = WorkLimits(
            concurrency=concurrency, poll_s=poll_s, grace_s=25.0, exit_bound_s=10.0, max_jobs=max_jobs,
            ends_when_empty=max_jobs is not None, is_sync=is_sync, trips_max=trips_max,
        )  # fmt: skip
        self.watch = LeaseWatch(LEASE_S)
        self.watch.begin(0.0)
        self.planner = Planner(
            limits,
            self.watch,
            0.0,
            lambda seconds: seconds,
            line_of=lambda name: "threads" if name == "j" else None,
            has_child=lambda name: name != "script",
        )

    def claim(self, now: float, *jobs: ClaimedJob) -> None:
        plan = self.planner.plan(now)
        assert plan.limit > 0
        self.planner.claimed(now, plan, jobs)
        self.settle(plan.settle)

    def settle(self, outcomes: tuple[Outcome, ...]) -> None:
        self.planner.settled(outcomes)

    def start(self, now: float, *names: str) -> None:
        self.claim(now, *map(lent, names))
        assert [job.id for job in self.planner.plan(now).start] == list(names)

    def finish(self, now: float, name: str, took_s: float = 1.0) -> bool:
        return self.planner.finished(now, (name, 1), completed(lent(name), took_s))


class TestWaiting:
    """With nothing to do the loop must sleep: a wait of zero without a call is a processor at 100 %."""

    def test_a_worker_whose_maximum_is_being_run_sleeps_until_something_happens(self) -> None:
        worker = Worker(max_jobs=1)
        worker.start(0.0, "a")
        assert worker.planner.plan(5.0).wait_s == TICK_S

    def test_a_worker_in_doubt_sleeps(self) -> None:
        worker = Worker()
        worker.watch.missed_beat()
        worker.watch.missed_beat()
        plan = worker.planner.plan(100.0)
        assert (plan.limit, plan.start, plan.wait_s) == (0, (), TICK_S)

    def test_while_the_store_is_away_it_wakes_for_the_next_try_and_not_before(self) -> None:
        worker = Worker()
        worker.planner.store_failed(10.0)
        plan = worker.planner.plan(10.0)
        assert plan.limit == 0
        assert plan.wait_s == pytest.approx(0.1)
        assert worker.planner.plan(10.2).limit > 0

    def test_pauses_grow_to_two_seconds_and_start_small_again_once_the_store_answers(self) -> None:
        worker = Worker()
        for number in range(8):
            worker.planner.store_failed(3.0 * number)
            assert worker.planner.plan(3.0 * number + 2.01).limit > 0
        worker.planner.store_failed(24.0)
        assert worker.planner.plan(25.9).limit == 0
        worker.planner.settled(())
        worker.planner.store_failed(28.0)
        assert worker.planner.plan(28.11).limit > 0


class TestClaiming:
    def test_long_jobs_are_not_fetched_ahead(self) -> None:
        worker = Worker()
        worker.start(0.0, "a", "b")
        worker.finish(10.0, "a", took_s=10.0)
        plan = worker.planner.plan(10.0)
        assert (plan.slots, plan.limit) == (1, 1)

    def test_short_ones_are_ever_more_while_every_claim_comes_back_full(self) -> None:
        worker, limits = Worker(concurrency=4), []
        names = count()
        running: list[str] = []
        for turn in range(60):
            now = turn / 100
            plan = worker.planner.plan(now)
            running += [job.id for job in plan.start]
            worker.settle(plan.settle)
            if plan.limit:
                limits.append(plan.limit)
                worker.planner.claimed(now, plan, [lent(str(next(names))) for _ in range(plan.limit)])
            for name in running:
                worker.finish(now, name, took_s=0.0001)
            running.clear()
        assert limits[0] == 4
        assert max(limits) > 100

    def deep(self, worker: Worker) -> tuple[float, list[str]]:
        """Let it run short jobs until it has fetched two batches ahead. When that is, and what runs."""
        names, running = count(), list[str]()
        for turn in range(200):
            now = turn / 1000
            plan = worker.planner.plan(now)
            running += [job.id for job in plan.start]
            worker.settle(plan.settle)
            if plan.limit:
                worker.planner.claimed(now, plan, [lent(str(next(names))) for _ in range(plan.limit)])
                if len(worker.planner._waiting) + len(running) >= 2 * BATCH_MAX:
                    return now, running
            for name in running:
                worker.finish(now, name, took_s=0.0001)
            running.clear()
        raise AssertionError

    def test_with_a_batch_in_the_line_it_is_not_woken_before_that_is_needed(self) -> None:
        """To be woken for each run costs more than the run."""
        worker = Worker(concurrency=4)
        now, running = self.deep(worker)
        plan = worker.planner.plan(now)
        assert plan.limit == 0
        assert plan.gather > len(running) // 4

    def test_what_was_fetched_as_short_jobs_and_turns_out_slow_goes_on_to_others(self) -> None:
        worker = Worker(concurrency=4)
        now, running = self.deep(worker)
        for _ in range(20):
            worker.planner._prefetch.measure(0.05)
        held = len(worker.planner._waiting)
        plan = worker.planner.plan(now)
        back = [outcome for outcome in worker.planner._unsettled.values() if outcome.settlement.verb is Verb.RELEASE]
        assert held > 100
        assert len(worker.planner._waiting) + len(plan.start) <= PREFETCH_RUN_S * 4 / 0.05 + 1
        assert len(back) > 100
        assert {outcome.settlement.reason for outcome in back} == {"prefetch"}

    def test_with_too_many_unstored_results_nothing_is_claimed(self) -> None:
        worker = Worker(concurrency=UNSETTLED_MAX)
        worker.start(0.0, *map(str, range(UNSETTLED_MAX)))
        for number in range(UNSETTLED_MAX):
            worker.finish(1.0, str(number))
        assert worker.planner.plan(1.0).limit == 0

    def test_adopting_takes_what_is_unknown_here_and_only_that(self) -> None:
        worker = Worker(concurrency=3)
        worker.start(0.0, "running", "done")
        worker.finish(1.0, "done")
        worker.planner.adopted(2.0, [lent("running"), lent("done"), lent("new")])
        assert [job.id for job in worker.planner.plan(2.0).start] == ["new"]

    def test_a_claim_that_a_failover_made_the_store_forget_is_not_begun_beside_itself(self) -> None:
        worker = Worker(concurrency=4)
        worker.start(0.0, "running", "done")
        worker.finish(1.0, "done")
        worker.claim(2.0, lent("running"), lent("done"), lent("new"), structs.replace(lent("done"), claim_seq=2))
        assert [(job.id, job.claim_seq) for job in worker.planner.plan(2.0).start] == [("new", 1), ("done", 2)]

    def test_nor_is_one_that_waits_in_the_line(self) -> None:
        worker = Worker(concurrency=1)
        worker.start(0.0, "running")
        worker.planner.adopted(1.0, [lent("waiting")])
        again = Plan(limit=2)
        worker.planner.claimed(2.0, again, [lent("waiting"), lent("new")])
        assert [job.id for job in worker.planner._waiting] == ["waiting", "new"]


class Leading(Worker):
    """Its jobs are known to take 0.5 ms, in threads. The first has a slot, the others lie ready behind it."""

    def __init__(self, *behind: ClaimedJob, concurrency: int = 1, max_jobs: int | None = None) -> None:
        super().__init__(concurrency=concurrency, max_jobs=max_jobs)
        self.start(0.0, "known")
        self.finish(0.0, "known", took_s=0.0005)
        plan = self.planner.plan(0.0)
        self.settle(plan.settle)
        self.begin(0.0, *map(lent, map(str, range(concurrency))))
        self.begin(0.0, *behind)

    def begin(self, now: float, *jobs: ClaimedJob) -> tuple[list[str], int]:
        """These are lent. What is handed over, and how much of it before a slot is free."""
        self.planner.adopted(now, jobs)
        plan = self.planner.plan(now)
        return [job.id for job in plan.start], self.planner._ahead() if plan.short else 0

    def withdraw(self, now: float) -> list[str]:
        """Do what the plan says, as the worker does."""
        assert self.planner.plan(now).withdraw
        keys = self.planner.running_jobs()[self.planner.limits.concurrency :]
        self.planner.withdrawn(now, keys, "w")
        return [name for name, _ in keys]


class TestLeading:
    """Short jobs are handed to the threads before one is free."""

    def test_as_many_as_are_run_within_10_ms_lie_ready_and_no_more(self) -> None:
        worker = Leading()
        names = [f"n{number}" for number in range(100)]
        handed, leads = worker.begin(0.0, *map(lent, names))
        assert handed == names[:20]
        assert leads == 20
        assert worker.planner.plan(0.0).start == ()
        worker.finish(0.01, "0", took_s=0.0005)
        assert [job.id for job in worker.planner.plan(0.01).start] == [names[20]]

    def test_the_first_of_a_batch_find_free_slots_and_only_the_rest_lead(self) -> None:
        worker = Leading(concurrency=3)
        worker.finish(0.0, "0", took_s=0.0005)
        worker.finish(0.0, "1", took_s=0.0005)
        assert worker.begin(0.0, *map(lent, "abcde")) == ([*"abcde"], 3)

    @pytest.mark.parametrize(
        "job",
        [
            structs.replace(lent("x"), job_name="elsewhere"),
            structs.replace(lent("x"), job_name="unknown"),
            lent("x", reclaims=1),
            lent("x", reclaims=SUSPECT_RECLAIMS),
        ],
        ids=["not in threads", "unknown", "one whose worker died", "a suspect"],
    )
    def test_others_wait_in_the_line_for_a_slot_and_so_does_what_is_behind_them(self, job: ClaimedJob) -> None:
        assert Leading().begin(0.0, job, lent("behind")) == ([], 0)

    def test_none_leads_while_a_slot_is_taken_by_a_run_that_needs_no_thread(self) -> None:
        """A thread is free then, and would begin it at once: one more than there are slots."""
        worker = Leading(concurrency=2)
        worker.finish(0.0, "0", took_s=0.0005)
        worker.begin(0.0, structs.replace(lent("elsewhere"), job_name="elsewhere"))
        assert worker.begin(0.0, lent("a"), lent("b")) == ([], 0)
        worker.finish(0.5, "elsewhere")
        plan = worker.planner.plan(0.5)
        assert ([job.id for job in plan.start], plan.short, worker.planner._ahead()) == (["a", "b"], {"j"}, 1)

    def test_none_leads_where_each_result_is_stored_before_the_next_run(self) -> None:
        worker = Worker(concurrency=1, is_sync=True)
        worker.start(0.0, "known")
        worker.finish(0.0, "known", took_s=0.0005)
        worker.settle(worker.planner.plan(0.0).settle)
        worker.planner.adopted(0.0, [lent("a"), lent("b")])
        plan = worker.planner.plan(0.0)
        assert ([job.id for job in plan.start], plan.short) == (["a"], frozenset())

    def test_the_maximum_of_runs_counts_what_lies_ready_and_not_what_came_back(self) -> None:
        worker = Leading(lent("a"), lent("b"), max_jobs=4)
        assert worker.planner.runs == 4
        worker.withdraw(1.0)
        assert worker.planner.runs == 2
        worker.settle(worker.planner.plan(1.0).settle)
        worker.finish(1.0, "0")
        plan = worker.planner.plan(1.0)
        assert (plan.slots, plan.limit) == (1, 1)

    def test_a_failed_that_waits_for_a_slot_has_the_next_one(self) -> None:
        worker = Leading(*map(lent, "axy"))
        assert worker.planner.plan(0.1).gather == 3
        worker.planner.calling_failed(("known", -1))
        worker.planner.adopted(0.1, [lent("b"), lent("c")])
        plan = worker.planner.plan(0.1)
        assert (plan.start, plan.gather) == ((), 1)
        for name in ("0", *"axy"):
            worker.finish(0.1, name, took_s=0.0005)
            assert worker.planner.plan(0.1).start == ()
        worker.planner.finished(0.2, ("known", -1), None)
        assert [job.id for job in worker.planner.plan(0.2).start] == ["b", "c"]

    def test_while_a_failed_waits_behind_long_runs_the_loop_sleeps(self) -> None:
        worker = Worker(concurrency=1)
        worker.start(0.0, "long")
        worker.planner.calling_failed(("x", -1))
        plan = worker.planner.plan(5.0)
        assert (plan.withdraw, plan.wait_s) == (False, TICK_S)

    def test_results_gather_for_20_ms_while_jobs_lie_ready_and_no_longer(self) -> None:
        worker = Leading(lent("a"), lent("b"))
        worker.finish(0.1, "0", took_s=0.0005)
        plan = worker.planner.plan(0.1)
        assert (plan.settle, plan.wait_s) == ((), pytest.approx(LINGER_S))
        assert [found.claimed.id for found in worker.planner.plan(0.1 + LINGER_S).settle] == ["0"]

    def test_the_loop_is_woken_when_half_of_what_lies_ready_is_done_and_at_the_end_for_each(self) -> None:
        worker = Leading(*map(lent, "abcdef"))
        assert worker.planner.plan(0.0).gather == 6  # nothing is fetched ahead yet
        for name in ("0", *"abcd"):
            worker.finish(0.0, name, took_s=0.0005)
        assert worker.planner.plan(0.0).gather == 1
        worker.finish(0.0, "e", took_s=0.0005)
        assert worker.planner.plan(0.0).gather == 1


class TestWithdrawing:
    def test_behind_a_run_that_takes_longer_than_was_thought_they_go_back_to_the_store_for_others(self) -> None:
        worker = Leading(lent("a"), lent("b"))
        worker.planner.adopted(0.0, [structs.replace(lent("line"), job_name="unknown")])
        plan = worker.planner.plan(HANDOVER_WAIT_S - 0.01)
        assert not plan.withdraw
        assert plan.wait_s == pytest.approx(LINGER_S)
        assert worker.withdraw(HANDOVER_WAIT_S) == ["a", "b"]
        plan = worker.planner.plan(HANDOVER_WAIT_S)
        assert (plan.start, plan.limit) == ((), 0)  # neither handed over again nor fetched again
        back = {found.claimed.id: found.settlement for found in plan.settle}
        assert back.keys() == {"a", "b", "line"}
        assert {(sent.verb, sent.counts_return, sent.available_at, sent.delay) for sent in back.values()} == {
            (Verb.RELEASE, False, AT, 0.0)
        }
        worker.settle(plan.settle)
        assert worker.planner.plan(HANDOVER_WAIT_S).wait_s == TICK_S

    def test_a_trickle_of_new_ones_does_not_put_that_off(self) -> None:
        worker = Leading(lent("a"))
        for number in (1, 2):
            worker.begin(0.1 * number, lent(f"new-{number}"))
        worker.planner.adopted(HANDOVER_WAIT_S, [lent("new-3")])
        plan = worker.planner.plan(HANDOVER_WAIT_S)
        assert (plan.withdraw, plan.start) == (True, ())
        assert worker.withdraw(HANDOVER_WAIT_S) == ["a", "new-1", "new-2"]
        assert {found.claimed.id for found in worker.planner.plan(HANDOVER_WAIT_S).settle} == {
            "a",
            "new-1",
            "new-2",
            "new-3",
        }

    def test_as_long_as_runs_end_they_stay(self) -> None:
        worker = Leading(*map(lent, "abc"))
        for turn, name in enumerate(("0", "a")):
            worker.finish(0.2 * (turn + 1), name, took_s=0.0005)
            assert not worker.planner.plan(0.2 * (turn + 1)).withdraw
        assert not worker.planner.plan(0.6).withdraw
        assert worker.withdraw(0.4 + HANDOVER_WAIT_S) == ["c"]

    def test_at_a_stop_they_go_back_at_once_and_the_store_knows_why(self) -> None:
        worker = Leading(lent("a"), lent("b"))
        worker.planner.shutdown.stop(0.01, 1, "stopped")
        assert worker.withdraw(0.01) == ["a", "b"]
        plan = worker.planner.plan(0.01)
        back = [found.settlement for found in plan.settle]
        assert sorted((sent.id, sent.reason, sent.counts_return) for sent in back) == [
            ("a", "shutdown", False),
            ("b", "shutdown", False),
        ]
        assert (plan.start, plan.ended, worker.planner.runs) == ((), None, 2)
        worker.settle(plan.settle)
        worker.finish(1.0, "0")
        worker.settle(worker.planner.plan(1.0).settle)
        assert worker.planner.plan(1.0).ended == "stopped"

    def test_in_doubt_they_come_back_at_once_and_are_not_begun(self) -> None:
        worker = Leading(lent("a"))
        worker.watch.missed_beat()
        worker.watch.missed_beat()
        assert worker.withdraw(0.01) == ["a"]
        plan = worker.planner.plan(0.01)
        assert (plan.start, [found.claimed.id for found in plan.settle]) == ((), ["a"])

    def test_those_that_a_thread_found_overdue_begin_first_and_in_order(self) -> None:
        worker = Leading(lent("a"), lent("b"))
        worker.planner.adopted(0.5, [lent("line")])
        worker.finish(0.5, "0", took_s=0.5)
        worker.planner.withdrawn(0.5, [("a", 1), ("b", 1)], "w")
        assert [job.id for job in worker.planner.plan(0.5).start][:3] == ["a", "b", "line"]

    def test_under_another_identity_what_comes_back_is_dropped(self) -> None:
        """The lease was lost meanwhile: others may have it."""
        worker = Leading(lent("a"))
        worker.planner.lease_lost(0.1)
        worker.planner.withdrawn(0.1, [("a", 1)], "another")
        assert worker.planner.running == 1
        worker.finish(0.2, "0", took_s=0.0005)
        plan = worker.planner.plan(0.2)
        assert (plan.start, [found.claimed.id for found in plan.settle]) == ((), ["0"])

    def test_one_that_ended_as_it_was_to_come_back_is_not_counted_twice(self) -> None:
        worker = Leading(lent("a"))
        worker.finish(0.1, "0", took_s=0.0005)
        worker.finish(0.1, "a", took_s=0.0005)
        worker.planner.withdrawn(0.1, [("a", 1)], "w")
        assert worker.planner.runs == 3
        assert worker.planner.plan(0.1).start == ()


class TestStopping:
    def test_a_run_that_counts_as_stuck_is_not_waited_for_twice(self) -> None:
        worker = Worker()
        worker.start(0.0, "a")
        assert worker.finish(1.0, "a") is True
        assert worker.finish(1.1, "a") is False

    def test_stuck_ends_the_worker_whatever_its_neighbours_do_and_leaves_a_quarter_of_the_time_to_its_process(
        self,
    ) -> None:
        worker = Worker()
        worker.start(0.0, "a", "b")
        worker.finish(100.0, "a")
        worker.planner.shutdown.stuck(100.0, gone_by=108.0)
        plan = worker.planner.plan(100.0)
        assert (plan.cut_all, plan.call_s) == (False, 6.0)
        assert not worker.planner.plan(103.9).cut_all
        assert worker.planner.plan(104.0).cut_all
        assert worker.planner.plan(105.5).wait_s == 0.5  # it wakes for its end
        assert worker.planner.plan(105.9).ended is None
        plan = worker.planner.plan(106.0)
        assert (plan.ended, plan.call_s) == ("stuck", 1.0)
        assert worker.planner.shutdown.left_s(106.0) == 2.0

    def test_the_last_call_is_as_short_as_the_time_until_its_process_must_be_gone(self) -> None:
        worker = Worker()
        worker.start(0.0, "a", "b")
        worker.planner.shutdown.stuck(100.0, gone_by=101.2)
        assert worker.planner.plan(101.0).call_s == pytest.approx(0.2)
        assert worker.planner.shutdown.left_s(101.5) == 0.0

    def test_a_third_stop_does_not_put_the_end_off(self) -> None:
        worker = Worker()
        worker.start(0.0, "a")
        for now, level in ((0.0, 1), (1.0, 2), (8.0, 2)):
            worker.planner.shutdown.stop(now, level, "stopped")
            worker.planner.plan(now)
        assert worker.planner.plan(11.0).ended == "stopped"

    def test_at_a_stop_what_was_fetched_ahead_goes_back_with_its_due_time(self) -> None:
        worker = Worker(concurrency=1)
        worker.start(0.0, "a")
        worker.planner.adopted(0.5, [lent("b")])
        worker.planner.shutdown.stop(1.0, 1, "stopped")
        (back,) = worker.planner.plan(1.0).settle
        assert (back.settlement.id, back.settlement.verb, back.settlement.available_at) == ("b", Verb.RELEASE, AT)
        assert not back.settlement.counts_return  # it had not begun

    def test_when_its_time_is_over_what_is_unsettled_is_tried_once_more(self) -> None:
        worker = Worker(concurrency=1)
        worker.start(0.0, "a")
        worker.planner.store_failed(0.5)
        worker.finish(1.0, "a")
        worker.planner.shutdown.stop(1.0, 2, "stopped")
        worker.planner.store_failed(11.0)
        plan = worker.planner.plan(11.0)
        assert (plan.ended, [found.claimed.id for found in plan.settle], plan.limit) == ("stopped", ["a"], 0)


class TestTheDoorbell:
    """A worker that may not claim does not listen: it would take the ring from one that may, and hear it for ever."""

    def test_is_listened_to_with_a_slot_free(self) -> None:
        worker = Worker()
        worker.start(0.0, "a")
        assert worker.planner.plan(0.1).is_idle

    def test_is_left_to_others_while_stopping(self) -> None:
        worker = Worker()
        worker.start(0.0, "a")
        worker.planner.shutdown.stop(0.1, 1, "stopped")
        assert not worker.planner.plan(0.1).is_idle

    def test_is_left_to_others_in_doubt(self) -> None:
        worker = Worker()
        worker.watch.missed_beat()
        worker.watch.missed_beat()
        assert not worker.planner.plan(0.1).is_idle


class TestWhileACallIsUnderWay:
    """The claim loop goes on where there is something to go on with: see docs/decisions/0025."""

    def under_way(self, now: float = 0.2) -> Worker:
        """Of two slots: "c" and "d" run, "e" was fetched ahead, and the results of "a" and "b" are on their way."""
        worker = Worker()
        worker.start(0.0, "z", "a")
        worker.finish(0.01, "z", took_s=0.01)
        worker.claim(0.01, lent("b"), lent("c"), lent("d"))
        assert [found.id for found in worker.planner.plan(0.02).start] == ["b"]
        worker.finish(0.02, "a", took_s=0.01)
        worker.finish(0.02, "b", took_s=0.01)
        assert [found.id for found in worker.planner.plan(0.03).start] == ["c", "d"]
        worker.planner.adopted(0.03, [lent("e")])
        plan = worker.planner.plan(now)
        assert plan.goes_on
        assert [found.claimed.id for found in plan.settle] == ["a", "b"]
        worker.planner.trips.sent(plan)
        self.plan = plan
        return worker

    def test_nothing_more_is_said_and_the_loop_sleeps(self) -> None:
        worker = self.under_way()
        for now in (0.2, 0.3, 1.5):
            plan = worker.planner.plan(now)
            assert (plan.settle, plan.limit, plan.is_idle) == ((), 0, False)
            assert plan.wait_s > 0.1

    def test_jobs_go_on_and_their_results_gather_anew(self) -> None:
        worker = self.under_way()
        worker.finish(0.3, "c", took_s=0.01)
        assert [found.id for found in worker.planner.plan(0.3).start] == ["e"]
        worker.planner.adopted(0.3, [lent("f")])
        worker.settle(self.plan.settle)
        worker.planner.trips.returned(self.plan)
        worker.planner.claimed(0.3, structs.replace(self.plan, slots=1, limit=1), [])
        assert worker.planner.plan(0.31).settle == ()
        assert [found.claimed.id for found in worker.planner.plan(0.3 + LINGER_S).settle] == ["c"]

    def empty_answer(self, *, rings: bool) -> Worker:
        """A worker that has nothing left to do, and whose call has found nothing; in between the doorbell may ring."""
        worker = self.under_way()
        if rings:
            worker.planner.wake(0.3)
        for name in "cd":
            worker.finish(0.4, name, took_s=0.01)
        worker.planner.plan(0.4)
        worker.finish(0.41, "e", took_s=0.01)
        worker.settle(self.plan.settle)
        worker.planner.trips.returned(self.plan)
        worker.planner.claimed(0.5, structs.replace(self.plan, slots=1, limit=1), [])
        return worker

    @pytest.mark.parametrize("rings", [False, True])
    def test_a_ring_is_heard_though_the_answer_finds_nothing(self, rings: bool) -> None:
        worker = self.empty_answer(rings=rings)
        worker.settle(worker.planner.plan(0.5).settle)
        assert (worker.planner.plan(0.5).limit > 0) is rings

    def test_a_ring_counts_for_one_answer(self) -> None:
        worker, claims = self.empty_answer(rings=True), 0
        for turn in range(100):
            plan = worker.planner.plan(0.5 + turn / 1000)
            worker.settle(plan.settle)
            if plan.limit:
                claims += 1
                worker.planner.claimed(0.5 + turn / 1000, plan, [])
        assert claims <= 2

    def test_at_the_bound_of_a_stop_only_what_is_not_in_it_is_tried_once_more(self) -> None:
        worker = self.under_way()
        worker.finish(0.3, "c")
        worker.planner.shutdown.stop(0.3, 2, "stopped")
        plan = worker.planner.plan(10.4)
        assert plan.ended == "stopped"
        assert [found.claimed.id for found in plan.settle if found.settlement.verb is Verb.COMPLETE] == ["c"]

    def test_what_one_call_may_have_brought_is_no_stranger(self) -> None:
        """Two comparisons of what the store says is lent here, and the answer that tells of it is still to come."""
        worker = self.under_way()
        for now in (30.0, 60.0, 90.0):
            worker.planner.compared(now, [lent("c"), lent("d"), lent("e"), lent("brought")])
        worker.planner.trips.returned(self.plan)
        assert "brought" not in {found.claimed.id for found in worker.planner.plan(90.0).settle}

    def test_what_no_call_has_brought_goes_back(self) -> None:
        worker = self.under_way()
        worker.planner.compared(30.0, [lent("c"), lent("d"), lent("stranger")])
        worker.settle(self.plan.settle)
        worker.planner.trips.returned(self.plan)
        worker.planner.compared(60.0, [lent("c"), lent("d"), lent("stranger")])
        assert "stranger" in {found.claimed.id for found in worker.planner.plan(60.1).settle}

    @pytest.mark.parametrize("is_sync", [False, True])
    def test_without_anything_to_go_on_with_the_answer_is_waited_for(self, is_sync: bool) -> None:
        worker = Worker(is_sync=is_sync)
        worker.start(0.0, "a", "b")
        worker.finish(0.1, "a")
        assert worker.planner.plan(0.1).settle
        assert not worker.planner.plan(0.1).goes_on


class TestTwoRoundTripsAtOnce:
    """Where the store answers two calls at once, results are settled beside a claim that is on its way."""

    def claiming(self) -> Worker:
        """Two jobs run, two wait; a claim that carries the results of "a" and "b" is on its way."""
        worker = Worker(concurrency=2, trips_max=2)
        worker.start(0.0, "a", "b")
        worker.finish(0.01, "a", took_s=0.01)
        worker.finish(0.01, "b", took_s=0.01)
        worker.planner.adopted(0.01, [lent(name) for name in "cdef"])
        self.claim = structs.replace(worker.planner.plan(0.2), slots=1, limit=4)
        assert [outcome.claimed.id for outcome in self.claim.settle] == ["a", "b"]
        worker.planner.trips.sent(self.claim)
        return worker

    def test_results_are_sent_beside_a_claim_each_once_and_none_is_claimed_twice(self) -> None:
        worker = self.claiming()
        worker.finish(0.3, "c", took_s=0.01)
        assert worker.planner.plan(0.3).settle == ()  # they gather
        plan = worker.planner.plan(0.3 + LINGER_S)
        assert ([outcome.claimed.id for outcome in plan.settle], plan.limit, plan.goes_on) == (["c"], 0, True)
        worker.planner.trips.sent(plan)
        worker.finish(0.4, "d", took_s=0.01)
        assert worker.planner.plan(0.4 + LINGER_S).settle == ()  # a third trip would be one too many
        worker.planner.trips.returned(plan)
        worker.settle(plan.settle)
        assert [outcome.claimed.id for outcome in worker.planner.plan(0.5).settle] == ["d"]

    def test_many_results_do_not_wait_to_gather(self) -> None:
        worker = self.claiming()
        names = [f"more {number}" for number in range(SETTLED_BESIDE + 10)]
        for name in ("c", "d"):
            worker.finish(0.3, name, took_s=1e-5)
        worker.planner.adopted(0.3, [*map(lent, names)])
        for name in ["e", "f", *names][: SETTLED_BESIDE - 2]:
            assert worker.planner.plan(0.3).settle == ()
            assert worker.finish(0.3, name, took_s=1e-5)
        assert len(worker.planner.plan(0.3).settle) == SETTLED_BESIDE

    def test_a_claim_goes_beside_results_that_are_on_their_way(self) -> None:
        worker = self.claiming()
        worker.finish(0.3, "c", took_s=0.01)
        settling = worker.planner.plan(0.3 + LINGER_S)
        worker.planner.trips.sent(settling)
        worker.planner.trips.returned(self.claim)
        worker.settle(self.claim.settle)
        worker.planner.claimed(0.4, self.claim, [])
        for name in "defg":
            worker.finish(0.4, name, took_s=0.01)
            worker.planner.plan(0.4)
        plan = worker.planner.plan(2.0)
        assert plan.limit > 0
        assert "c" not in [outcome.claimed.id for outcome in plan.settle]

    def test_after_a_lost_reply_the_next_trip_is_alone(self) -> None:
        """It asks what the store says is lent here: a claim on its way beside it would make that an old answer."""
        worker = self.claiming()
        worker.finish(0.3, "c", took_s=0.01)
        settling = worker.planner.plan(0.3 + LINGER_S)
        worker.planner.trips.sent(settling)
        worker.planner.trips.returned(settling)
        worker.planner.trips.is_unsure = True
        worker.planner.store_failed(0.4)
        plan = worker.planner.plan(1.0)
        assert (plan.settle, plan.limit) == ((), 0)
        assert plan.wait_s > 0.01
        worker.planner.trips.returned(self.claim)
        worker.settle(self.claim.settle)
        assert [outcome.claimed.id for outcome in worker.planner.plan(1.0).settle] == ["c"]

    def test_a_trip_that_got_no_reply_leaves_its_results_to_be_sent_again(self) -> None:
        worker = self.claiming()
        worker.planner.trips.returned(self.claim)
        assert [outcome.claimed.id for outcome in worker.planner.plan(0.3).settle] == ["a", "b"]


def suspect(name: str, job_name: str = "script") -> ClaimedJob:
    return structs.replace(lent(name, SUSPECT_RECLAIMS), job_name=job_name)


class TestResults:
    def test_one_that_settles_another_claim_than_that_of_its_run_is_not_its_end(self) -> None:
        """Once it was kept, and sent again without a pause, since no answer took it away; and the run was forgotten."""
        worker = Worker(concurrency=2)
        worker.start(0.0, "a", "b")
        assert not worker.planner.finished(1.0, ("b", 1), completed(lent("a")))
        assert (worker.planner.running, worker.planner.plan(1.0).settle) == (2, ())
        assert worker.finish(1.1, "b")
        worker.settle(worker.planner.plan(1.2).settle)
        assert not worker.planner.has_unsettled


class TestSuspects:
    def test_one_that_a_child_can_run_begins_like_any_other(self) -> None:
        worker = Worker(concurrency=4)
        worker.claim(0.0, lent("a"), suspect("s", "j"), suspect("t", "j"))
        assert [job.id for job in worker.planner.plan(0.0).start] == ["a", "s", "t"]
        assert worker.planner.plan(5.0).limit > 0

    def test_one_that_no_child_can_run_begins_at_once_beside_ordinary_jobs_and_holds_up_none(self) -> None:
        worker = Worker(concurrency=4)
        worker.start(0.0, "endless")
        worker.claim(1.0, suspect("s"), lent("b"))
        assert [job.id for job in worker.planner.plan(1.0).start] == ["s", "b"]
        plan = worker.planner.plan(5.0)
        assert (plan.limit, plan.is_idle) == (1, True)

    def test_of_those_that_no_child_can_run_a_worker_holds_one_and_begins_it_once_the_others_are_back(self) -> None:
        worker = Worker(concurrency=4)
        worker.claim(0.0, suspect("s"), suspect("t"), suspect("u"), lent("a"))
        plan = worker.planner.plan(0.0)
        assert (plan.start, [found.claimed.id for found in plan.settle]) == ((), ["t", "u"])
        said = plan.settle[0].settlement
        assert (said.reason, said.delay, said.counts_return) == ("suspect", 5.0, False)
        worker.settle(plan.settle)
        assert [job.id for job in worker.planner.plan(0.1).start] == ["s", "a"]
        worker.claim(5.0, suspect("t"), lent("b"))
        plan = worker.planner.plan(5.0)
        assert ([job.id for job in plan.start], [found.claimed.id for found in plan.settle]) == (["b"], ["t"])

    def test_none_of_them_begins_while_a_claim_is_under_way_that_may_bring_another(self) -> None:
        worker = Worker(concurrency=4)
        worker.claim(0.0, suspect("s"))
        plan = worker.planner.plan(0.0)
        claim = Plan(slots=1, limit=1)
        worker.planner.trips.sent(claim)
        worker.planner.withdrawn(0.0, [("s", 1)], "w")
        assert ([job.id for job in plan.start], worker.planner.plan(0.1).start) == (["s"], ())
        worker.planner.trips.returned(claim)
        assert [job.id for job in worker.planner.plan(0.2).start] == ["s"]

    def test_none_is_fetched_ahead_beside_a_job_whose_worker_died(self) -> None:
        worker = Worker(concurrency=4)
        for turn, reclaims in enumerate((0, 0, 1)):
            plan = worker.planner.plan(turn / 100)
            names = [f"{turn}-{number}" for number in range(plan.limit)]
            worker.planner.claimed(turn / 100, plan, [lent(name, reclaims) for name in names])
            worker.settle(plan.settle)
            while started := worker.planner.plan(turn / 100).start:
                for job in started:
                    worker.finish(turn / 100, job.id, took_s=0.001)
        plan = worker.planner.plan(0.1)
        assert plan.limit == plan.slots == 4


class TestWhatTheStoreSaysWeHold:
    def test_a_claim_executed_late_is_given_back_unspent_after_two_rounds(self) -> None:
        worker = Worker(concurrency=4)
        worker.start(0.0, "running")
        worker.planner.compared(30.0, [lent("running"), lent("stranger")])
        assert worker.planner.plan(30.0).settle == ()
        worker.planner.compared(60.0, [lent("running"), lent("stranger"), lent("newcomer")])
        (back,) = worker.planner.plan(60.0).settle
        sent = back.settlement
        assert (sent.id, sent.verb, sent.counts_return, sent.available_at) == ("stranger", Verb.RELEASE, False, AT)

    def test_one_that_is_gone_in_the_next_round_was_a_matter_of_timing(self) -> None:
        worker = Worker(concurrency=4)
        worker.planner.compared(30.0, [lent("stranger")])
        worker.planner.compared(60.0, [])
        worker.planner.compared(90.0, [lent("stranger")])
        assert worker.planner.plan(90.0).settle == ()


class TestLease:
    def test_two_misses_in_a_row_are_doubt_and_one_good_beat_ends_it(self) -> None:
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        watch.missed_beat()
        assert not watch.in_doubt
        watch.missed_beat()
        assert watch.in_doubt
        watch.good_beat(30.0, 30.0, Heartbeat())
        assert not watch.in_doubt

    def test_reclaiming_needs_three_good_beats_over_a_third_of_the_lease_and_begins_anew_after_a_miss(self) -> None:
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        for at in (10.0, 20.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=-5.0))
            assert not watch.may_reclaim(at + 1.0)
        watch.good_beat(30.0, 30.0, Heartbeat(others_end_in=-5.0))
        assert watch.may_reclaim(31.0)
        watch.missed_beat()
        assert not watch.may_reclaim(41.0)

    def test_and_after_a_leap_of_the_store_s_clock_which_made_every_lease_look_over(self) -> None:
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        for at in (10.0, 20.0, 30.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=50.0, at=AT + timedelta(seconds=at)))
        leap = timedelta(seconds=90)  # the clock was set, or the machine slept and its monotonic clock with it
        for at in (40.0, 50.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=-30.0, at=AT + leap + timedelta(seconds=at)))
            assert not watch.may_reclaim(at + 1.0)
        watch.good_beat(60.0, 60.0, Heartbeat(others_end_in=-30.0, at=AT + leap + timedelta(seconds=60)))
        assert watch.may_reclaim(61.0)

    def test_a_slow_answer_is_no_leap(self) -> None:
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        for at in (10.0, 20.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=-5.0, at=AT + timedelta(seconds=at)))
        watch.good_beat(45.0, 30.0, Heartbeat(others_end_in=-5.0, at=AT + timedelta(seconds=44)))
        assert watch.may_reclaim(46.0)

    def test_a_call_that_waited_for_the_end_of_an_outage_shows_that_the_store_stands_from_its_answer_on(self) -> None:
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        watch.good_beat(19.0, 10.0, Heartbeat(others_end_in=-5.0))  # sent at 10, answered at 19
        for at in (20.0, 30.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=-5.0))
        assert not watch.may_reclaim(31.0)
        watch.good_beat(40.0, 40.0, Heartbeat(others_end_in=-5.0))
        assert watch.may_reclaim(41.0)

    def test_no_beat_for_half_a_lease_is_doubt_too(self) -> None:
        """A process that was frozen wakes: nothing was missed, and all of it may be lost."""
        worker = Worker(concurrency=2)
        worker.planner.claimed(0.0, worker.planner.plan(0.0), [lent("a")])
        plan = worker.planner.plan(LEASE_S / 2 + 0.1)
        assert (plan.start, [found.claimed.id for found in plan.settle], plan.limit) == ((), ["a"], 0)
        worker.settle(plan.settle)
        worker.watch.good_beat(40.0, 40.0, Heartbeat())
        worker.start(40.0, "b")

    def test_what_good_beats_have_shown_is_old_after_half_a_lease_of_silence(self) -> None:
        """The loop was held up in a call to a store that was away: nobody has told it of the missed beats."""
        watch = LeaseWatch(LEASE_S)
        watch.begin(0.0)
        for at in (10.0, 20.0, 30.0):
            watch.good_beat(at, at, Heartbeat(others_end_in=-5.0, at=AT + timedelta(seconds=at)))
        assert watch.may_reclaim(30.0 + LEASE_S / 2)
        assert not watch.may_reclaim(30.1 + LEASE_S / 2)
        assert watch.reclaim_until == AT + timedelta(seconds=30.0 + LEASE_S / 2)

    def test_orphans_are_looked_for_once_a_lease_though_a_beat_comes_at_that_very_moment(self) -> None:
        watch, rounds = LeaseWatch(LEASE_S), 0
        watch.begin(0.0)
        for beat in range(1, 31):
            watch.good_beat(beat * 10.001, beat * 10.001, Heartbeat())
            if watch.may_reclaim(beat * 10.001 + 0.001):
                rounds += 1
                watch.reclaimed(beat * 10.001 + 0.001, None, False, 0.3)
        assert rounds >= 4


class TestStanding:
    """Until when a worker's claims certainly stand. Under another identity they are other claims."""

    def test_a_lease_counts_from_the_start_of_the_last_good_beat(self) -> None:
        standing = LeaseValidity(LEASE_S)
        standing.good_beat("w", 10.0)
        standing.good_beat("w", 8.0)  # its answer was overtaken
        assert standing.sure_at("w") == 10.0
        assert standing.ends_at("w") == 10.0 + LEASE_S
        assert standing.safe_until("w") == 10.0 + 2 * LEASE_S / 3

    def test_a_lost_one_stays_lost_and_another_identity_is_not_concerned(self) -> None:
        standing = LeaseValidity(LEASE_S)
        standing.good_beat("first", 10.0)
        standing.lost("first")
        standing.good_beat("second", 20.0)
        standing.good_beat("first", 21.0)
        assert standing.safe_until("first") < 0
        assert standing.safe_until("second") == 20.0 + 2 * LEASE_S / 3

    def test_when_it_was_last_sure_is_remembered_for_the_late_results_of_earlier_identities(self) -> None:
        standing = LeaseValidity(LEASE_S)
        for number in range(2 * IDENTITIES_MAX):
            standing.good_beat(f"w{number}", float(number))
            standing.lost(f"w{number}")
        assert standing.sure_at(f"w{IDENTITIES_MAX}") == IDENTITIES_MAX
        assert standing.sure_at("w0") == IDENTITIES_MAX  # forgotten: as the oldest one known
        assert standing.ends_at("w0") < 0

    @pytest.mark.parametrize(("lease_s", "gone_by"), [(60.0, 59.0), (10.0, 9.5)])
    def test_beside_an_exclusive_run_that_does_not_end_the_process_is_gone_before_the_lease_can_end(
        self, lease_s: float, gone_by: float
    ) -> None:
        standing = LeaseValidity(lease_s)
        standing.good_beat("w", 0.0)
        assert standing.gone_by("w") == gone_by
        standing.lost("w")
        assert standing.gone_by("w") == float("-inf")
