"""Each finding that core makes of any store: provoked, with its severity, and quiet where all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from msgspec.structs import replace

from protojobs import JobQueue, job
from protojobs.doctor import examine
from protojobs.entropy import fresh_id
from protojobs.errors import ConfigurationError, ContractBroken, SchemaOutdated, StoreUnavailable
from protojobs.port.diagnosis import Finding, Severity
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import JobFilter, JobPage, JobRecord, Settlement, WorkerInfo
from protojobs.port.schedules import Schedule, UnreadableSchedule
from protojobs.port.unreadable_rows import read, set_aside, why_unreadable
from protojobs.testing import ManualClock
from protojobs.testing.conformance.steps import lend, new_job, push, settle
from protojobs_memory import MemoryDriver

if TYPE_CHECKING:
    from protojobs.port.driver import Store

Make = Callable[..., JobQueue]
OK, NOTE, WARNING, ERROR = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.ERROR


def found(queue: JobQueue, code: str) -> Finding:
    """The one finding of this code."""
    (finding,) = [one for one in examine(queue) if one.code == code]
    return finding


def worker(driver: Store, *queues: str, lease_s: float = 60.0) -> str:
    made = WorkerInfo(
        id=fresh_id(), host="here", pid=7, queues=queues or ("q",), concurrency=5, lease_s=lease_s
    )  # fmt: skip
    driver.register(made)
    return made.id


def schedule(next_due_at: datetime | None, id: str = "nightly") -> Schedule:
    return Schedule(
        id=id, spec="0 3 * * *", queue="q", job_name="report", job_class="shop.report", data="null",
        next_due_at=next_due_at,
    )  # fmt: skip


def test_a_healthy_store_has_no_warning(queue: JobQueue) -> None:
    worker(queue.driver)
    push(queue.driver)
    assert {one.code for one in examine(queue) if one.severity > OK} == {"nothing_lasts", "own_process"}


def test_the_worst_comes_first(queue: JobQueue) -> None:
    push(queue.driver, new_job("unserved"), new_job("paused"))
    queue.pause("paused")
    severities = [one.severity for one in examine(queue)]
    assert severities == sorted(severities, reverse=True)
    assert {OK, NOTE, WARNING, ERROR} == set(severities)


def test_every_trouble_has_a_reason_and_a_mend(queue: JobQueue, clock: ManualClock) -> None:
    push(queue.driver, new_job("unserved"), new_job("paused"))
    queue.pause("paused")
    worker(queue.driver)
    clock.advance(61)
    queue.driver.save_schedule(schedule(clock.now() - timedelta(hours=2)), version=0)
    troubles = [one for one in examine(queue) if one.severity > OK]
    assert len(troubles) >= 5
    assert [one.code for one in troubles if not one.mend] == []
    assert [one.code for one in troubles if one.severity > NOTE and not one.why] == []


# ------------------------------------------------------------------------------------------------ workers and queues


def test_no_worker_is_a_note(queue: JobQueue) -> None:
    assert found(queue, "no_worker").severity is NOTE
    worker(queue.driver)
    assert found(queue, "no_worker").severity is OK


def test_a_lapsed_worker_without_jobs(queue: JobQueue, clock: ManualClock) -> None:
    worker(queue.driver)
    clock.advance(61)
    finding = found(queue, "workers_lapsed")
    assert finding.severity is WARNING
    assert "last heard of 61.0 s ago" in finding.what


def test_a_lapsed_worker_whose_jobs_nobody_takes_back(queue: JobQueue, clock: ManualClock) -> None:
    push(queue.driver)
    lend(queue.driver, worker(queue.driver, lease_s=60.0))
    clock.advance(61)
    assert found(queue, "workers_lapsed").severity is ERROR  # nobody is there to take them back
    worker(queue.driver)
    assert found(queue, "workers_lapsed").severity is WARNING  # that one does so in a moment
    clock.advance(61)
    worker(queue.driver)
    finding = found(queue, "workers_lapsed")
    assert finding.severity is ERROR  # for a whole lease living ones have not
    assert "ought to have taken them back" in finding.why


def test_a_queue_that_no_living_worker_serves(queue: JobQueue, clock: ManualClock) -> None:
    push(queue.driver, new_job("emails"), new_job("emails"))
    worker(queue.driver, "q", "emails")
    assert found(queue, "queue_unserved").severity is OK
    clock.advance(61)
    worker(queue.driver, "q")
    finding = found(queue, "queue_unserved")
    assert finding.severity is ERROR
    assert '"emails": 2 due jobs, the oldest for 61.0 s' in finding.what
    assert finding.mend == "protojobs worker emails --app your.module"


def test_jobs_that_are_not_due_need_no_worker_yet(queue: JobQueue) -> None:
    push(queue.driver, new_job("emails", delay=60.0))
    assert found(queue, "queue_unserved").severity is OK


def test_a_paused_queue_with_due_jobs(queue: JobQueue) -> None:
    worker(queue.driver)
    queue.pause("q")
    assert found(queue, "queue_paused").severity is OK
    push(queue.driver)
    finding = found(queue, "queue_paused")
    assert (finding.severity, finding.mend) == (WARNING, "protojobs queues resume q")
    assert found(queue, "queue_unserved").severity is OK


def test_a_queue_whose_jobs_wait_for_long(queue: JobQueue, clock: ManualClock) -> None:
    push(queue.driver)
    clock.advance(301)
    worker(queue.driver)
    finding = found(queue, "queue_slow")
    assert finding.severity is WARNING
    assert "the oldest for 5 min" in finding.what


def test_of_many_queues_some_are_named_and_all_are_counted(queue: JobQueue) -> None:
    push(queue.driver, *[new_job(f"queue-{number}") for number in range(900)])
    what = found(queue, "queue_unserved").what
    assert "and 895 more: 900 due jobs" in what
    assert len(what) < 400


# ------------------------------------------------------------------------------------------------ jobs


def test_jobs_whose_name_no_worker_knows(queue: JobQueue) -> None:
    push(queue.driver, new_job(job_name="mail.welcome"))
    (claim,) = lend(queue.driver, worker(queue.driver))
    queue.driver.settle(
        [Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.RELEASE,
                    reason="unknown_name", delay=4.0)]
    )  # fmt: skip
    finding = found(queue, "unknown_name")
    assert finding.severity is ERROR
    assert '"mail.welcome"' in finding.what


def test_jobs_whose_data_no_worker_can_decode(queue: JobQueue) -> None:
    assert found(queue, "undecodable").severity is OK
    push(queue.driver, new_job(job_name="mail.welcome"))
    (claim,) = lend(queue.driver, worker(queue.driver))
    queue.driver.settle(
        [Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=Verb.RELEASE,
                    reason="undecodable", delay=4.0)]
    )  # fmt: skip
    finding = found(queue, "undecodable")
    assert finding.severity is ERROR
    assert '"mail.welcome"' in finding.what


def test_a_worker_without_the_code_is_found_out(
    queue: JobQueue, working: Callable[..., object], eventually: Callable[[Callable[[], object]], None]
) -> None:
    push(queue.driver, new_job("default", job_name="mail.welcome"))
    with working(queue, "default"):  # type: ignore[attr-defined]
        eventually(lambda: found(queue, "unknown_name").severity is ERROR)


def test_jobs_of_a_worker_that_has_left(queue: JobQueue) -> None:
    push(queue.driver)
    holder = worker(queue.driver)
    lend(queue.driver, holder)
    assert found(queue, "jobs_orphaned").severity is OK
    queue.driver.leave(holder)
    assert found(queue, "jobs_orphaned").severity is WARNING


def test_a_job_that_was_settled_meanwhile_is_no_orphan(make_queue: Make, clock: ManualClock) -> None:
    class Slow(MemoryDriver):
        """Between two of the doctor's questions a worker settles its job and leaves."""

        def find(self, which: JobFilter, **how: object) -> JobPage:  # type: ignore[override]
            page = super().find(which, **how)  # type: ignore[arg-type]
            while claims:
                settle(self, claims.pop(), Verb.COMPLETE)
                self.leave(holder)
            return page

    queue = make_queue(Slow(clock=clock))
    push(queue.driver)
    holder = worker(queue.driver)
    claims = lend(queue.driver, holder)
    assert found(queue, "jobs_orphaned").severity is OK


def test_a_run_beyond_its_timeout(queue: JobQueue, clock: ManualClock) -> None:
    (job_id,) = push(queue.driver)
    holder = worker(queue.driver)
    lend(queue.driver, holder)
    for _ in range(4):
        clock.advance(40)
        queue.driver.heartbeat(holder, {})
    finding = found(queue, "jobs_overrun")
    assert finding.severity is WARNING
    assert finding.mend.startswith(f"protojobs explain {job_id}")


def test_jobs_on_their_way_to_another_store(queue: JobQueue) -> None:
    push(queue.driver)
    assert found(queue, "jobs_moving").severity is OK
    queue.driver.export_jobs("move")
    assert found(queue, "jobs_moving").severity is WARNING


def test_jobs_that_something_else_has_spoilt(make_queue: Make, clock: ManualClock) -> None:
    class Spoilt(MemoryDriver):
        """A store into which a foreign hand has written another state."""

        def find(self, which: JobFilter, **how: object) -> JobPage:  # type: ignore[override]
            page = super().find(which, **how)  # type: ignore[arg-type]
            if JobState.UNREADABLE not in which.states:
                return page
            return replace(page, jobs=tuple(read(JobRecord, structs.asdict(job) | {"status": "?"}) for job in spoilt))

    queue = make_queue(Spoilt(clock=clock))
    spoilt = list[JobRecord]()
    assert found(queue, "jobs_unreadable").severity is OK
    (one, two) = push(queue.driver, new_job(), new_job())
    claim = next(claim for claim in lend(queue.driver, worker(queue.driver)) if claim.id == one)
    queue.driver.settle([set_aside(claim, why_unreadable({"timeout": "soon"}))])
    finding = found(queue, "jobs_unreadable")
    assert finding.severity is ERROR
    assert f'1 job set aside as failed: "{one}". The stored row cannot be read: timeout is' in finding.what
    assert "protojobs failed retry" in finding.mend
    spoilt += queue.driver.get([two])
    finding = found(queue, "jobs_unreadable")
    assert f'1 job in no known state: "{two}".' in finding.what
    assert f"protojobs jobs cancel {two}" in finding.mend


def test_pruning_that_is_behind(make_queue: Make, clock: ManualClock) -> None:
    queue = make_queue(MemoryDriver(clock=clock), completed_job_retention=24.0, failed_job_retention=168.0)
    push(queue.driver, new_job(), new_job())
    done, failed = lend(queue.driver, worker(queue.driver))
    settle(queue.driver, done, Verb.COMPLETE)
    settle(queue.driver, failed, Verb.FAIL)
    clock.advance(25 * 3600)
    assert "prune_behind" not in [one.code for one in examine(queue)]
    clock.advance(2 * 3600)
    finding = found(queue, "prune_behind")
    assert (finding.severity, finding.mend) == (WARNING, "protojobs prune")
    assert "oldest completed job" in finding.what
    queue.prune()
    assert "prune_behind" not in [one.code for one in examine(queue)]


# ------------------------------------------------------------------------------------------------ schedules


def test_an_overdue_schedule(queue: JobQueue, clock: ManualClock) -> None:
    queue.driver.save_schedule(schedule(clock.now() + timedelta(seconds=10)), version=0)
    clock.advance(65)
    assert found(queue, "schedules_overdue").severity is OK
    clock.advance(60)
    assert found(queue, "schedules_overdue").severity is WARNING
    clock.advance(3600)
    finding = found(queue, "schedules_overdue")
    assert finding.severity is ERROR  # beyond catch_up its times are lost
    assert '"nightly"' in finding.what


def test_a_schedule_that_cannot_be_read(queue: JobQueue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.driver.save_schedule(schedule(clock.now() + timedelta(days=1)), version=0)
    assert "schedule_unreadable" not in [one.code for one in examine(queue)]
    odd = UnreadableSchedule(id="odd", why="Invalid enum value 'newest'")
    page = replace(queue.driver.list_schedules(), unreadable=(odd,))
    monkeypatch.setattr(queue.driver, "list_schedules", lambda **_: page)
    finding = found(queue, "schedule_unreadable")
    assert finding.severity is ERROR
    assert '"odd"' in finding.what and "Invalid enum value 'newest'" in finding.what
    assert "protojobs schedules remove" in finding.mend


def test_a_schedule_of_a_job_that_is_unknown_here(queue: JobQueue, clock: ManualClock) -> None:
    queue.driver.save_schedule(schedule(clock.now() + timedelta(days=1)), version=0)
    assert "schedule_job_unknown" not in [one.code for one in examine(queue)]  # no application is imported

    @job(name="other")
    def other() -> None: ...

    finding = found(queue, "schedule_job_unknown")
    assert finding.severity is WARNING
    assert '"nightly"' in finding.what

    @job(name="report")
    def report() -> None: ...

    assert found(queue, "schedule_job_unknown").severity is OK


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        ("lease_short", {"lease": 5.0}),
        ("poll_beyond_lease", {"poll_interval": 31.0}),
        ("no_timeout", {"timeout": 0.0}),
        ("failed_not_kept", {"failed_job_retention": 0.0}),
        ("stop_long", {"shutdown_grace": 90.0}),
        ("memory_small", {"max_memory": 10_000_000}),
    ],
)
def test_a_setting_that_will_hurt(make_queue: Make, code: str, settings: dict[str, object]) -> None:
    queue = make_queue(None, **settings)
    assert found(queue, code).severity is WARNING
    assert "settings" not in [one.code for one in examine(queue)]


def test_the_defaults_do_not_hurt(queue: JobQueue) -> None:
    assert found(queue, "settings").severity is OK


# ------------------------------------------------------------------------------------------------ the store as a whole


class ServerTime(MemoryDriver):
    """A store whose clock is a server's, apart from this machine's by `time_offset`."""

    capabilities = replace(MemoryDriver.capabilities, server_time=True)


@pytest.mark.parametrize(
    ("offset", "severity", "words"),
    [(0.0, OK, "s"), (0.5, OK, "ahead of"), (30.0, WARNING, "30.000 s ahead of"), (-30.0, WARNING, "30.000 s behind")],
)
def test_a_clock_that_is_apart(clock: ManualClock, offset: float, severity: Severity, words: str) -> None:
    queue = JobQueue(ServerTime(clock=clock, time_offset=offset), {}, clock=clock)
    finding = found(queue, "clock_skew")
    assert finding.severity is severity
    assert words in finding.what


def test_a_slow_answer_is_no_skew_of_the_clock(clock: ManualClock) -> None:
    class Slow(ServerTime):
        def now(self) -> datetime:
            clock.advance(2.0)
            told = super().now()
            clock.advance(2.0)
            return told

    queue = JobQueue(Slow(clock=clock), {}, clock=clock)
    assert found(queue, "clock_skew").severity is OK
    assert found(queue, "round_trip").severity is WARNING


def test_of_several_answers_the_quickest_counts(clock: ManualClock) -> None:
    class Uneven(ServerTime):
        pauses: Iterator[float] = iter([3.0, 0.002, 3.0, 3.0, 3.0])

        def now(self) -> datetime:
            told = super().now()
            clock.advance(next(self.pauses, 0.0))
            return told

    findings = {one.code: one for one in examine(JobQueue(Uneven(clock=clock), {}, clock=clock))}
    assert findings["round_trip"].severity is OK
    assert "0.001 s behind" in findings["clock_skew"].what


def test_the_time_of_this_machine_is_not_compared_with_itself(queue: JobQueue) -> None:
    assert "clock_skew" not in [one.code for one in examine(queue)]


def test_a_driver_that_does_not_examine_its_store(make_queue: Make, clock: ManualClock) -> None:
    class Silent(MemoryDriver):
        diagnose = None  # type: ignore[assignment]

    assert found(make_queue(Silent(clock=clock)), "driver_silent").severity is NOTE


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(MemoryDriver, name, fail)
        yield


def test_a_store_that_the_driver_refuses_is_the_finding(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "workers", ConfigurationError("It evicts.", mend="Set noeviction.")):
        finding = found(queue, "store_refused")
    assert (finding.severity, finding.what, finding.mend) == (ERROR, "It evicts.", "Set noeviction.")


@pytest.mark.parametrize("verb", ["workers", "diagnose"])
def test_a_store_that_is_not_migrated_is_the_finding(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    with failing(monkeypatch, verb, SchemaOutdated("No tables.", mend="protojobs migrate")):
        findings = examine(queue)
    assert (findings[0].code, findings[0].severity, findings[0].mend) == ("schema", ERROR, "protojobs migrate")
    assert "not_examined" not in [one.code for one in findings]


def test_a_look_that_fails_hides_no_other(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "queues", ContractBroken("A row is broken.")):
        findings = examine(queue)
    codes = [one.code for one in findings]
    assert codes.count("not_examined") == 1
    assert {"jobs_moving", "schedules_overdue", "workers_lapsed"} <= set(codes)


def test_a_store_that_does_not_answer_is_an_error(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "workers", StoreUnavailable("away")), pytest.raises(StoreUnavailable):
        examine(queue)
