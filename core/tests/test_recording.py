"""What workers note of their runs: what is counted where, what is sent when, and that nothing of it hurts the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from protojobs import Discard, JobQueue, Snooze, job
from protojobs.errors import StoreUnavailable
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.observing import HOUR, MINUTE, NOTES_MAX, AttemptNote, Observes, Result, Rollup
from protojobs.port.records import ClaimedJob, ClaimReply, LostJob, Settled, SettleStatus
from protojobs.testing import ManualClock
from protojobs.worker.outcome import Outcome, settlement
from protojobs.worker.reports.rollups import ATTEMPTS_AT_ONCE, KEYS_MAX, Rollups
from protojobs_memory import MemoryDriver

AT = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)
MINUTE_AT, HOUR_AT = AT.replace(second=0), AT.replace(minute=0, second=0)


class Kept(MemoryDriver):
    """Keeps what is sent as well; refuses it while `is_away`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.is_away = False
        self.sent: list[tuple[list[Rollup], list[AttemptNote]]] = []
        self.samples = 0

    def record(self, worker: str, rollups: Sequence[Rollup], attempts: Sequence[AttemptNote]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        super().record(worker, rollups, attempts)
        self.sent.append((list(rollups), list(attempts)))

    def sample_depths(self, *, limit: int = 50, counted_max: int = 10_000) -> bool:
        self.samples += 1
        return super().sample_depths(limit=limit, counted_max=counted_max)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(AT)


@pytest.fixture
def store(clock: ManualClock) -> Kept:
    return Kept(clock)


@pytest.fixture
def notes(store: Kept, clock: ManualClock) -> Rollups:
    assert isinstance(store, Observes)
    return Rollups(store, "w", clock)


def ran(name: str = "job", *, seq: int = 1, attempts: int = 1, wait_s: float = 2.0, at: datetime = AT) -> ClaimedJob:
    return ClaimedJob(
        id=f"id-{name}-{seq}", claim_seq=seq, reserved_by="w", queue="q", job_name=name, job_class=name, data="{}",
        priority=0, attempts=attempts, max_retries=3, retry_delay=1.0, retry_policy=None, timeout=0.0,
        available_at=at - timedelta(seconds=wait_s), reserved_at=at, crashes=0, returns=0, reclaims=0,
    )  # fmt: skip


STATES = {
    Verb.COMPLETE: JobState.COMPLETED,
    Verb.FAIL: JobState.FAILED,
    Verb.CANCEL: JobState.CANCELLED,
    Verb.RETRY: JobState.PENDING,
    Verb.SNOOZE: JobState.PENDING,
    Verb.RELEASE: JobState.PENDING,
}


def settle(
    notes: Rollups,
    now: float,
    *claims: ClaimedJob,
    verb: Verb = Verb.COMPLETE,
    status: SettleStatus = SettleStatus.APPLIED,
    run_s: float = 0.5,
) -> None:
    error = "boom" if verb in (Verb.FAIL, Verb.RETRY) else ""
    said = [settlement(claim, verb, error=error, fingerprint="f" if error else "") for claim in claims]
    outcomes = [Outcome(claimed=c, settlement=s, duration_s=run_s) for c, s in zip(claims, said, strict=True)]
    settled = tuple(Settled(claim.id, status, STATES[verb]) for claim in claims)
    notes.took(now, ClaimReply(settled=settled, claimed=claims[-1:]), outcomes)


def counted(rollups: Sequence[Rollup]) -> Counter[tuple[int, str, str, str]]:
    found: Counter[tuple[int, str, str, str]] = Counter()
    for row in rollups:
        found[row.period_s, row.queue, row.job_name, row.result.value] += row.count
    return found


def test_each_run_counts_for_its_name_and_for_all_by_the_minute_and_by_the_hour(notes: Rollups, store: Kept) -> None:
    settle(notes, 0.0, ran("a"), ran("a"), ran("b"))
    notes.end()
    ((rollups, attempts),) = store.sent
    expected = {("q", "a"): 2, ("q", "b"): 1, ("", ""): 3}
    assert counted(rollups) == {
        (period, *name, "completed"): count for period in (MINUTE, HOUR) for name, count in expected.items()
    }
    (total,) = [row for row in rollups if row.period_s == MINUTE and not row.queue]
    assert (total.began_at, total.wait_s, total.run_s) == (MINUTE_AT, 6.0, 1.5)
    assert sum(total.waits.values()) == sum(total.runs.values()) == 3
    assert {row.began_at for row in rollups if row.period_s == HOUR} == {HOUR_AT}
    assert attempts == []


@pytest.mark.parametrize(
    ("verb", "result"),
    [
        (Verb.FAIL, "failed"),
        (Verb.RETRY, "retried"),
        (Verb.CANCEL, "cancelled"),
        (Verb.SNOOZE, "snoozed"),
        (Verb.COMPLETE, "completed"),
    ],
)
def test_the_result_is_what_the_store_made_of_it(notes: Rollups, store: Kept, verb: Verb, result: str) -> None:
    settle(notes, 0.0, ran(), verb=verb)
    notes.end()
    assert {row.result.value for row in store.sent[0][0]} == {result}


@pytest.mark.parametrize(
    ("verb", "status"), [(Verb.RELEASE, SettleStatus.APPLIED), (Verb.COMPLETE, SettleStatus.STALE)]
)
def test_what_ended_no_run_is_not_counted(notes: Rollups, store: Kept, verb: Verb, status: SettleStatus) -> None:
    settle(notes, 0.0, ran(), verb=verb, status=status)
    notes.end()
    assert store.sent == []


def test_a_settlement_that_is_repeated_counts_once(notes: Rollups, store: Kept) -> None:
    settle(notes, 0.0, ran(), status=SettleStatus.REPEATED)  # its first answer was lost, and nothing counted
    notes.end()
    assert counted(store.sent[0][0])[MINUTE, "", "", "completed"] == 1


def test_the_whole_count_of_a_period_is_sent_again(notes: Rollups, store: Kept, clock: ManualClock) -> None:
    for _ in range(3):
        settle(notes, 0.0, ran())
        notes.end()
    assert [counted(rollups)[MINUTE, "", "", "completed"] for rollups, _ in store.sent] == [1, 2, 3]
    (row,) = store.rollups(MINUTE, MINUTE_AT, MINUTE_AT + timedelta(minutes=1))
    assert row.count == 3
    notes.end()
    assert len(store.sent) == 3, "nothing new is nothing to send"


def test_a_new_minute_begins_a_new_row_and_the_hour_goes_on(notes: Rollups, store: Kept, clock: ManualClock) -> None:
    settle(notes, 0.0, ran())
    clock.advance(60)
    settle(notes, 60.0, ran(at=AT + timedelta(minutes=1)))
    notes.end()
    (rollups, _) = store.sent[0]
    minutes = [(row.began_at, row.count) for row in rollups if row.period_s == MINUTE and not row.queue]
    assert sorted(minutes) == [(MINUTE_AT, 1), (MINUTE_AT + timedelta(minutes=1), 1)]
    assert [row.count for row in rollups if row.period_s == HOUR and not row.queue] == [2]


def test_rows_of_the_past_are_dropped_once_they_are_sent(notes: Rollups, store: Kept, clock: ManualClock) -> None:
    for minute in range(5):
        settle(notes, clock.monotonic(), ran(at=AT + timedelta(minutes=minute)))
        notes.end()
        clock.advance(60)
    assert len([key for key in notes._rows if key[0] == MINUTE]) <= 2


def test_a_late_answer_of_a_period_that_is_over_adds_to_what_was_sent(
    notes: Rollups, store: Kept, clock: ManualClock
) -> None:
    settle(notes, 0.0, *[ran()] * 5)
    clock.advance(31)
    notes.end()  # at 12:01:01, as far as can be told
    settle(notes, 31.5, ran(at=MINUTE_AT + timedelta(seconds=59.9)))  # its claim was answered late
    notes.end()
    for period in (MINUTE, HOUR):
        (row,) = store.rollups(period, HOUR_AT, MINUTE_AT + timedelta(minutes=1))
        assert row.count == 6


def test_a_store_that_is_slow_to_take_notes_costs_a_twentieth_of_the_time(
    notes: Rollups, store: Kept, clock: ManualClock
) -> None:
    def slow(*_given: object) -> None:
        store.sent.append(([], []))
        clock.advance(2)

    store.record = slow  # type: ignore[method-assign,assignment]
    for _ in range(400):
        settle(notes, clock.monotonic(), ran(at=clock.now()))
        notes.turn(clock.monotonic())
        clock.advance(1)
    spent_s, passed_s = 2 * len(store.sent), clock.monotonic()
    assert 0 < spent_s <= passed_s * 0.06


def test_it_sends_every_ten_seconds(notes: Rollups, store: Kept, clock: ManualClock) -> None:
    for _ in range(600):
        settle(notes, clock.monotonic(), ran(at=clock.now()))
        notes.turn(clock.monotonic())
        clock.advance(0.1)
    assert 5 <= len(store.sent) <= 8


def test_depths_are_sampled_once_a_minute(notes: Rollups, store: Kept, clock: ManualClock) -> None:
    for _ in range(600):
        notes.turn(clock.monotonic())
        clock.advance(1)
    assert 8 <= store.samples <= 12
    assert store.sent == []


def test_lost_jobs_are_counted_by_the_one_that_took_them_back(notes: Rollups, store: Kept) -> None:
    lost = LostJob(
        id="x", queue="q", job_name="a", job_class="a", attempts=1, state=JobState.PENDING, reserved_by="gone"
    )
    notes.lost(0.0, AT, [lost, lost])
    notes.end()
    assert counted(store.sent[0][0])[MINUTE, "q", "a", "lost"] == 2


class TestAttempts:
    def test_those_that_failed_are_noted_with_their_error(self, notes: Rollups, store: Kept) -> None:
        settle(notes, 0.0, ran(seq=1), verb=Verb.RETRY)
        settle(notes, 0.0, ran(seq=2, attempts=2), verb=Verb.FAIL)
        notes.end()
        first, second = store.sent[0][1]
        assert (first.result, first.attempt, first.error, first.fingerprint) == (Result.RETRIED, 1, "boom", "f")
        assert (second.result, second.attempt, second.worker) == (Result.FAILED, 2, "w")
        assert (second.started_at, second.ended_at) == (AT, AT), "not before it was taken"

    def test_a_success_is_noted_only_after_a_failure(self, notes: Rollups, store: Kept) -> None:
        settle(notes, 0.0, ran(seq=1), ran(seq=7, attempts=2))
        notes.end()
        assert [(note.claim_seq, note.result) for note in store.sent[0][1]] == [(7, Result.COMPLETED)]

    def test_a_snooze_is_none(self, notes: Rollups, store: Kept) -> None:
        settle(notes, 0.0, ran(), verb=Verb.SNOOZE)
        notes.end()
        assert store.sent[0][1] == []

    def test_of_many_failures_a_part_is_noted(self, notes: Rollups, store: Kept) -> None:
        settle(notes, 0.0, *(ran(seq=seq) for seq in range(ATTEMPTS_AT_ONCE + 5)), verb=Verb.FAIL)
        notes.end()
        assert len(store.sent[0][1]) == ATTEMPTS_AT_ONCE

    def test_a_long_error_is_cut_to_its_end(self, notes: Rollups, store: Kept) -> None:
        claim = ran()
        said = settlement(claim, Verb.FAIL, error="x" * 20_000 + "end")
        settled = (Settled(claim.id, SettleStatus.APPLIED, JobState.FAILED),)
        notes.took(0.0, ClaimReply(settled=settled, claimed=(claim,)), [Outcome(claimed=claim, settlement=said)])
        notes.end()
        (note,) = store.sent[0][1]
        assert (len(note.error), note.error[-4:]) == (16 * 1024, "xend")


class TestBounds:
    def test_beyond_two_thousand_names_only_the_totals_count(self, notes: Rollups, store: Kept) -> None:
        for part in range(4):
            settle(notes, 0.0, *(ran(f"job-{number}") for number in range(part * 1_000, part * 1_000 + 1_000)))
        notes.end()
        assert len(notes._rows) <= KEYS_MAX + 2
        assert all(len(rollups) <= NOTES_MAX for rollups, _ in store.sent)
        totals = [row for rollups, _ in store.sent for row in rollups if not row.queue]
        assert {row.period_s: row.count for row in totals} == {MINUTE: 4_000, HOUR: 4_000}

    def test_what_is_not_taken_goes_with_the_next_and_then_is_dropped(
        self, notes: Rollups, store: Kept, clock: ManualClock
    ) -> None:
        store.is_away = True
        settle(notes, 0.0, ran(), verb=Verb.FAIL)
        notes.end()
        assert len(notes._notes) == 1
        store.is_away = False
        notes.end()
        ((_, attempts),) = store.sent
        assert len(attempts) == 1
        store.is_away = True
        settle(notes, 0.0, ran(), verb=Verb.FAIL)
        clock.advance(90)
        notes.end()
        notes.end()
        assert notes._notes == []
        assert {key[0] for key in notes._rows} == {HOUR}, "the minute is over and given up, the hour goes on"


class TestInAWorker:
    @pytest.fixture
    def queue(self, clock: ManualClock, store: Kept) -> JobQueue:
        return JobQueue(store, {"concurrency": 2, "poll_interval": 0.02})

    def test_its_end_sends_what_it_did(self, queue: JobQueue, store: Kept) -> None:
        @job(name="good")
        def good() -> None: ...

        @job(name="bad", max_retries=0)
        def bad() -> None:
            raise ValueError("no luck 7")

        @job(name="later")
        def later() -> Snooze:
            return Snooze(60)

        @job(name="never")
        def never() -> Discard:
            return Discard("not wanted")

        queue.push_many([good.bind(), good.bind(), bad.bind(), later.bind(), never.bind()])
        assert queue.work("default", 5).runs == 5
        queue.leave()
        totals = store.totals(MINUTE, MINUTE_AT, MINUTE_AT + timedelta(minutes=1), by="job_name")
        assert {(row.name, row.result.value): row.count for row in totals} == {
            ("good", "completed"): 2, ("bad", "failed"): 1, ("later", "snoozed"): 1, ("never", "cancelled"): 1,
        }  # fmt: skip
        (failure,) = queue.failed_jobs()
        (note,) = store.attempts(failure.job_id)
        assert note.fingerprint == failure.fingerprint != ""
        assert note.error == failure.exception

    def test_a_loop_of_short_calls_counts_each_run_once(self, queue: JobQueue, store: Kept) -> None:
        @job(name="good")
        def good() -> None: ...

        queue.push_many([good.bind()] * 20)
        for _ in range(20):
            queue.work("default", 1)
        queue.leave()
        (row,) = store.rollups(MINUTE, MINUTE_AT, MINUTE_AT + timedelta(minutes=1))
        assert row.count == 20

    def test_a_store_that_takes_no_notes_degrades_nobody(
        self, queue: JobQueue, store: Kept, heard: Callable[..., list[object]]
    ) -> None:
        @job(name="good")
        def good() -> None: ...

        troubles = heard("worker.degraded")
        store.is_away = True
        queue.push(good)
        assert queue.work("default", 1).done == 1
        queue.leave()
        assert troubles == []

    def test_a_worker_signs_off_before_it_sends_the_rest(self, queue: JobQueue, store: Kept) -> None:
        left: list[int] = []

        @job(name="good")
        def good() -> None: ...

        def note(*_given: object) -> None:
            left.append(len(store.workers()))

        store.is_away = True
        queue.push(good)
        queue.work("default", 1)
        store.record = note  # type: ignore[method-assign,assignment]
        queue.leave()
        assert left == [0]

    def test_the_setting_turns_it_off(self, clock: ManualClock, store: Kept) -> None:
        @job(name="good")
        def good() -> None: ...

        queue = JobQueue(store, {"observe": False})
        queue.push(good)
        assert queue.work("default", 1).done == 1
        queue.leave()
        assert store.sent == []

    def test_a_driver_that_keeps_no_notes_is_not_asked_to(self, store: Kept, clock: ManualClock) -> None:
        @job(name="good")
        def good() -> None: ...

        store.capabilities = replace(store.capabilities, observing=False)
        queue = JobQueue(store)
        queue.push(good)
        assert queue.work("default", 1).done == 1
        queue.leave()
        assert store.sent == []


def test_a_mistake_of_the_driver_is_logged_and_no_more(notes: Rollups, store: Kept, caplog) -> None:
    def broken(*_given: object, **_more: object) -> bool:
        raise ZeroDivisionError

    store.record = broken  # type: ignore[method-assign,assignment]
    store.sample_depths = broken  # type: ignore[method-assign]
    settle(notes, 0.0, ran())
    with caplog.at_level("INFO"):
        notes.turn(1e6)
    assert caplog.text.count("could not be stored") == 2
