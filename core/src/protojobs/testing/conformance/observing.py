"""Notes beside the jobs: counts of runs, samples of depth, attempts, groups of failures, the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

import pytest
from msgspec.structs import replace

from protojobs.entropy import fresh_id
from protojobs.errors import ProtojobsError
from protojobs.port.driver import Store
from protojobs.port.observing import (
    ATTEMPTS_MAX,
    HOUR,
    MINUTE,
    NOTES_MAX,
    ActionNote,
    AttemptNote,
    Observes,
    Result,
    Rollup,
    RollupTotal,
)
from protojobs.testing.conformance.fixtures import Fixtures, Handles, Later
from protojobs.testing.conformance.levels import NOT_CLAIMED, concern
from protojobs.testing.conformance.naming import ALIKE, STRANGE
from protojobs.testing.conformance.steps import all_well, at_once, fresh_ids, join, lend, new_job, only, push

__all__ = ["Observing", "observer_of"]

SPAN = timedelta(minutes=10)
HOSTILE = "\n".join(["<script>alert(1)</script>", "\x1b[31m\x07\x7f", "\u202egnp.exe", *STRANGE.values()])
SAMPLERS = 10
PAGED_MAX = 100  # lines of the audit log in any test here: more is a page that begins anew
BY_NAME: tuple[tuple[Literal["queue", "job_name"], str, str], ...] = (("queue", "q1", "q2"), ("job_name", "a", "b"))
HOUR_S, DAY_S = 3600.0, 86_400.0


@concern("observing")
class Observing(Fixtures):
    """What workers and people did can be counted, found and shown, and none of it touches a job."""

    @pytest.fixture
    def observer(self, driver: Store) -> Observes:
        """The driver under test, as one that keeps notes."""
        return observer_of(driver)

    @pytest.fixture
    def minute(self, driver: Store) -> datetime:
        """The beginning of this minute, in store time."""
        return driver.now().replace(second=0, microsecond=0)

    def test_a_count_that_is_sent_again_replaces_the_one_before(self, observer: Observes, minute: datetime) -> None:
        observer.record("w", [counted(minute, count=3), counted(minute, Result.FAILED)], [])
        for _ in range(2):
            observer.record("w", [counted(minute, count=5, waits={7: 5}, runs={9: 2, 10: 3})], [])
        found = {row.result: row for row in observer.rollups(MINUTE, minute, minute + SPAN)}
        assert found.keys() == {Result.COMPLETED, Result.FAILED}
        row = found[Result.COMPLETED]
        assert (row.period_s, row.began_at, row.queue, row.job_name, row.count) == (MINUTE, minute, "", "", 5)
        assert (dict(row.waits), dict(row.runs)) == ({7: 5}, {9: 2, 10: 3})

    def test_the_counts_of_all_workers_are_added_up(self, observer: Observes, minute: datetime) -> None:
        later = minute + timedelta(minutes=1)
        for worker in ("w1", "W1", "w2"):
            mine = counted(minute, count=2, wait_s=0.5, run_s=1.25, waits={1: 1, 4: 1}, runs={40: 2})
            observer.record(worker, [mine, counted(later)], [])
        observer.record("w3", [counted(minute, waits={4: 1, 5: 3})], [])
        first, second = observer.rollups(MINUTE, minute, minute + SPAN)
        assert (first.began_at, second.began_at) == (minute, later)
        assert (first.count, first.wait_s, first.run_s, second.count) == (7, 1.5, 3.75, 3)
        assert (dict(first.waits), dict(first.runs)) == ({1: 3, 4: 4, 5: 3}, {40: 6})

    def test_a_span_holds_its_first_moment_and_not_its_last(self, observer: Observes, minute: datetime) -> None:
        moments = [minute + timedelta(minutes=passed) for passed in range(4)]
        observer.record("w", [counted(at) for at in reversed(moments)], [])
        observer.record("w", [counted(at, queue="q", job_name="j") for at in moments], [])
        found = observer.rollups(MINUTE, moments[1], moments[3])
        assert [row.began_at for row in found] == moments[1:3]
        assert [total.count for total in observer.totals(MINUTE, moments[1], moments[3], by="queue")] == [2]
        assert observer.rollups(MINUTE, moments[1], moments[1]) == []

    def test_counts_are_told_by_queue_by_job_and_by_both(self, observer: Observes, minute: datetime) -> None:
        names = [("q1", "a"), ("q1", "b"), ("q2", "a")]
        rows = [counted(minute, queue=queue, job_name=name, count=2**at) for at, (queue, name) in enumerate(names)]
        observer.record("w", [*rows, counted(minute, count=100)], [])
        for queue, job_name, count in [
            ("", "", 100), ("q1", "", 3), ("q2", "", 4), ("", "a", 5), ("", "b", 2), ("q1", "a", 1),
        ]:  # fmt: skip
            row = only(observer.rollups(MINUTE, minute, minute + SPAN, queue=queue, job_name=job_name))
            assert (row.queue, row.job_name, row.count) == (queue, job_name, count)
        for queue, job_name in [("q2", "b"), ("q", ""), ("", "c")]:
            assert observer.rollups(MINUTE, minute, minute + SPAN, queue=queue, job_name=job_name) == []

    def test_minutes_and_hours_are_counted_apart(self, observer: Observes, minute: datetime) -> None:
        observer.record("w", [counted(minute, count=1), counted(minute, count=7, period_s=HOUR)], [])
        for period_s, count in ((MINUTE, 1), (HOUR, 7)):
            row = only(observer.rollups(period_s, minute, minute + SPAN))
            assert (row.period_s, row.count) == (period_s, count)

    def test_totals_add_up_a_span_by_name_and_result(self, observer: Observes, minute: datetime) -> None:
        rows = [
            counted(at, result, queue=queue, job_name=name, count=2, wait_s=0.5, run_s=0.25)
            for at in (minute, minute + timedelta(minutes=1))
            for queue, name in (("q1", "a"), ("q1", "b"), ("q2", "a"))
            for result in (Result.COMPLETED, Result.FAILED)
        ]
        for worker in ("w1", "w2"):
            observer.record(worker, [*rows, counted(minute, count=99)], [])
        for by, more, less in BY_NAME:
            found = observer.totals(MINUTE, minute, minute + SPAN, by=by)
            assert len(found) == 4
            for result in (Result.COMPLETED, Result.FAILED):
                assert RollupTotal(name=more, result=result, count=16, wait_s=4.0, run_s=2.0) in found
                assert RollupTotal(name=less, result=result, count=8, wait_s=2.0, run_s=1.0) in found

    def test_totals_show_the_names_with_the_most_runs(self, observer: Observes, minute: datetime) -> None:
        rows = [counted(minute, queue=f"q{count}", job_name="j", count=count) for count in (3, 1, 4, 2)]
        failed = counted(minute, Result.FAILED, queue="q1", job_name="j", count=4)  # five runs, most of them failed
        observer.record("w", [*rows, failed], [])
        found = observer.totals(MINUTE, minute, minute + SPAN, by="queue", limit=2)
        assert {(total.name, total.result, total.count) for total in found} == {
            ("q1", Result.COMPLETED, 1), ("q1", Result.FAILED, 4), ("q4", Result.COMPLETED, 4),
        }  # fmt: skip

    def test_names_that_look_alike_are_counted_apart(self, observer: Observes, minute: datetime) -> None:
        names = [*ALIKE, *STRANGE.values()]
        rows = [counted(minute, queue=name, job_name=name, count=at + 1) for at, name in enumerate(names)]
        observer.record("w", rows, [])
        expected = {name: at + 1 for at, name in enumerate(names)}
        for by, _, _ in BY_NAME:
            found = observer.totals(MINUTE, minute, minute + SPAN, by=by)
            assert {total.name: total.count for total in found} == expected
        for name in (*ALIKE, STRANGE["percent"], STRANGE["drop-table"]):
            row = only(observer.rollups(MINUTE, minute, minute + SPAN, queue=name))
            assert (row.queue, row.count) == (name, expected[name])

    def test_a_thousand_notes_are_taken_at_once_and_no_more(self, observer: Observes, minute: datetime) -> None:
        rows = [counted(minute, queue="q", job_name=f"j{place}") for place in range(NOTES_MAX + 1)]
        notes = [ran(minute, claim_seq=place) for place in range(NOTES_MAX + 1)]
        with pytest.raises(ProtojobsError):
            observer.record("w", rows, [])
        with pytest.raises(ProtojobsError):
            observer.record("w", [], notes)
        observer.record("w", rows[:NOTES_MAX], notes[:NOTES_MAX])
        row = only(observer.rollups(MINUTE, minute, minute + SPAN, queue="q"))
        assert row.count == NOTES_MAX

    def test_the_runs_of_a_job_are_told_in_the_order_of_its_claims(self, observer: Observes, minute: datetime) -> None:
        mine, other = fresh_ids(2)
        notes = [ran(minute, mine, claim_seq=seq, attempt=attempt) for seq, attempt in ((12, 3), (2, 1), (5, 2))]
        observer.record("w1", [], notes[:2])
        for _ in range(2):  # the call that is made again carries what was stored before, and more
            observer.record("w2", [], [*notes, ran(minute, other)])
        assert observer.attempts(mine) == [notes[1], notes[2], notes[0]]
        assert [note.job_id for note in observer.attempts(other)] == [other]
        assert observer.attempts(fresh_id()) == []

    def test_of_very_many_runs_of_a_job_the_latest_are_told(self, observer: Observes, minute: datetime) -> None:
        job_id = fresh_id()
        notes = [ran(minute, job_id, claim_seq=seq, fingerprint=f"{seq}") for seq in range(1, ATTEMPTS_MAX + 31)]
        observer.record("w", [], notes)
        found = [note.claim_seq for note in observer.attempts(job_id)]
        assert found == list(range(31, ATTEMPTS_MAX + 31))

    def test_of_very_many_failures_alike_the_first_and_the_latest_are_told_at_least(
        self, observer: Observes, minute: datetime
    ) -> None:
        job_id = fresh_id()
        notes = [ran(minute, job_id, claim_seq=seq) for seq in range(1, 41)]
        observer.record("w", [], [*notes, ran(minute, job_id, claim_seq=41, fingerprint="another")])
        for sent_again in ((), notes[10:20]):
            observer.record("w", [], sent_again)
            found = [note.claim_seq for note in observer.attempts(job_id)]
            assert found == sorted(set(found))
            assert {1, 2, 40, 41} <= set(found)

    def test_a_hostile_traceback_is_kept_as_it_is(self, observer: Observes, minute: datetime) -> None:
        text = ("é🎈" * 16_384 + HOSTILE)[-16_384 // 4 :]
        note = ran(minute, error=text, result=Result.RETRIED, fingerprint="A b'\"%_")
        observer.record("w", [], [note])
        (found,) = observer.attempts(note.job_id)
        assert replace(found, error=text) == note
        assert text.endswith(found.error)
        assert len(found.error.encode()) > 2_044  # four bytes less, where the cut would be within a character

    def test_a_sample_says_how_many_jobs_each_queue_has(self, driver: Store, later: Later, minute: datetime) -> None:
        push(driver, new_job("a"), new_job("a"), new_job("a", delay=1e6), new_job("A"), new_job("c", delay=1e6))
        lend(driver, join(driver), "a", limit=1)
        driver.pause("empty")
        ahead = later(to_half_past(driver))
        sampler = observer_of(ahead)
        assert sampler.sample_depths() is True
        found = sampler.depths(minute, minute + SPAN)
        counts = {each.queue: (each.ready, each.scheduled, each.processing, each.is_capped) for each in found}
        counts.pop("empty", None)
        assert counts == {"a": (1, 1, 1, False), "A": (1, 0, 0, False), "c": (0, 1, 0, False)}
        assert [each.queue for each in sampler.depths(minute, minute + SPAN, queue="A")] == ["A"]
        assert {each.at for each in found} == {ahead.now().replace(second=0, microsecond=0)}

    def test_of_many_that_sample_at_once_one_does(self, driver: Store, handles: Handles, minute: datetime) -> None:
        observer_of(driver)
        push(driver)
        seconds = to_half_past(driver)
        samplers = [observer_of(handles(seconds)) for _ in range(SAMPLERS)]
        answers = all_well(at_once(*[each.sample_depths for each in samplers]))
        assert sorted(answers) == [*[False] * (SAMPLERS - 1), True]
        assert [each.queue for each in samplers[0].depths(minute, minute + SPAN)] == ["q"]

    def test_each_minute_is_sampled_anew(self, driver: Store, later: Later, minute: datetime) -> None:
        seconds = to_half_past(driver)
        for passed in range(3):
            sampler = observer_of(later(seconds + 60 * passed))
            push(driver)
            assert [sampler.sample_depths(), sampler.sample_depths()] == [True, False]
        found = observer_of(driver).depths(minute, minute + SPAN)
        assert [each.ready for each in found] == [1, 2, 3]
        assert [each.at - found[0].at for each in found] == [timedelta(minutes=passed) for passed in range(3)]
        assert observer_of(driver).depths(found[1].at, found[2].at) == [found[1]]

    def test_the_longest_queues_are_sampled(self, driver: Store, later: Later, minute: datetime) -> None:
        for name, length in (("a", 2), ("b", 5), ("c", 1), ("d", 4)):
            push(driver, *[new_job(name) for _ in range(length)])
        sampler = observer_of(later(to_half_past(driver)))
        sampler.sample_depths(limit=2, counted_max=3)
        found = {each.queue: each for each in sampler.depths(minute, minute + SPAN)}
        assert found.keys() == {"b", "d"}
        for each, length in ((found["b"], 5), (found["d"], 4)):
            assert each.ready == length or (each.is_capped and each.ready >= 3)

    def test_what_has_outlived_its_time_is_deleted_by_a_sample(
        self, driver: Store, observer: Observes, later: Later, minute: datetime
    ) -> None:
        job_id = only(push(driver))
        seconds, note, action = to_half_past(driver), ran(minute), acted(minute)
        observer.record("w", [counted(minute), counted(minute, period_s=HOUR)], [note])
        observer.note_action(action)
        observer_of(later(seconds)).sample_depths()

        def kept() -> tuple[int, ...]:
            span = (minute, minute + SPAN)
            rollups = [len(observer.rollups(period_s, *span)) for period_s in (MINUTE, HOUR)]
            depths, runs = len(observer.depths(*span)), len(observer.attempts(note.job_id))
            return *rollups, depths, runs, len(observer.actions().actions)

        for passed, expected in [
            (2 * HOUR_S, (1, 1, 1, 1, 1)),
            (4 * HOUR_S, (0, 1, 0, 1, 1)),
            (8 * DAY_S, (0, 0, 0, 0, 1)),
            (91 * DAY_S, (0, 0, 0, 0, 0)),
        ]:
            assert observer_of(later(seconds + passed)).sample_depths() is True
            assert kept() == expected, passed
        assert [job.id for job in driver.get([job_id])] == [job_id]

    def test_actions_are_shown_newest_first_page_by_page(self, observer: Observes, minute: datetime) -> None:
        actions = [acted(minute, action_id) for action_id in fresh_ids(7)]
        for action in (*actions[::2], *actions[1::2]):
            observer.note_action(action)
        for limit in (1, 3, 7, 50):
            assert all_actions(observer, limit) == actions[::-1]

    def test_an_action_that_is_noted_again_is_one(self, observer: Observes, minute: datetime) -> None:
        action = acted(minute, target=HOSTILE[:300], detail=HOSTILE, actor="<b>Ann</b> é🎈", count=2**31)
        for again in (action, replace(action, actor="somebody else"), action):
            observer.note_action(again)
        assert all_actions(observer, 50) == [action]

    def test_an_action_noted_by_many_at_once_is_one(self, driver: Store, handles: Handles, minute: datetime) -> None:
        action = acted(minute)
        observers = [observer_of(handles()) for _ in range(4)]
        all_well(at_once(*[partial(each.note_action, action) for each in observers]))
        assert all_actions(observer_of(driver), 50) == [action]


def observer_of(driver: Store) -> Observes:
    """The driver, as one that keeps notes; skips the test where it does not say that it does."""
    if not driver.capabilities.observing:
        pytest.skip(f"{NOT_CLAIMED}observing")
    if not isinstance(driver, Observes):
        pytest.fail("The driver claims observing, and has not all verbs of `protojobs.port.observing.Observes`.")
    return driver


def to_half_past(driver: Store) -> float:
    """How far a driver must run ahead to be in the middle of a minute, so that none ends in the middle of a test."""
    return float((90 - driver.now().second) % 60)


def counted(  # noqa: PLR0913  a rollup has many sides, and a test names the ones that it is about
    began_at: datetime,
    result: Result = Result.COMPLETED,
    *,
    period_s: int = MINUTE,
    queue: str = "",
    job_name: str = "",
    count: int = 1,
    wait_s: float = 0.0,
    run_s: float = 0.0,
    waits: dict[int, int] | None = None,
    runs: dict[int, int] | None = None,
) -> Rollup:
    """What a worker counted."""
    return Rollup(
        period_s=period_s,
        began_at=began_at,
        queue=queue,
        job_name=job_name,
        result=result,
        count=count,
        wait_s=wait_s,
        run_s=run_s,
        waits=waits or {},
        runs=runs or {},
    )


def ran(  # noqa: PLR0913  as above
    ended_at: datetime,
    job_id: str | None = None,
    *,
    claim_seq: int = 1,
    attempt: int = 1,
    result: Result = Result.FAILED,
    error: str = "Traceback",
    fingerprint: str = "3fa1c2",
) -> AttemptNote:
    """A worker's note of one run."""
    return AttemptNote(
        job_id=job_id or fresh_id(),
        attempt=attempt,
        claim_seq=claim_seq,
        worker="w",
        result=result,
        started_at=ended_at - timedelta(seconds=1.000001),
        ended_at=ended_at,
        error=error,
        fingerprint=fingerprint,
    )


def acted(
    at: datetime,
    id: str | None = None,
    *,
    actor: str = "ann",
    target: str = "q",
    detail: str = "",
    count: int = 1,
) -> ActionNote:
    """A line of the audit log."""
    return ActionNote(
        id=id or fresh_id(),
        at=at,
        actor=actor,
        action="pause",
        target=target,
        count=count,
        detail=detail,
        address="192.0.2.1",
    )


def all_actions(observer: Observes, limit: int) -> Sequence[ActionNote]:
    """The whole audit log, page by page."""
    actions: list[ActionNote] = []
    cursor: str | None = None
    while True:
        page = observer.actions(limit=limit, cursor=cursor)
        assert len(page.actions) <= limit
        actions.extend(page.actions)
        assert len(actions) <= PAGED_MAX
        cursor = page.cursor
        if cursor is None:
            return actions
