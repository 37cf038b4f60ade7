"""Moving a backlog: what moves and how, and that a transfer which dies at any step can be started again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace

from protojobs import Job, JobQueue, Scheduler
from protojobs import transfer as module
from protojobs.entropy import fresh_id
from protojobs.errors import ContractBroken, OptionInvalid, StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import (
    Enqueued,
    ExportedJob,
    FailedJob,
    JobFilter,
    JobRecord,
    NewJob,
    Settlement,
    WorkerInfo,
)
from protojobs.port.schedules import Schedule
from protojobs.testing import FlakyDriver, ManualClock
from protojobs.transfer import TransferReport, are_one_store, token_for, transfer
from protojobs_memory import MemoryDriver

TOKEN = "transfer-test"


class Report(Job):
    def handle(self, data: dict[str, object]) -> None: ...


CLOCK = ManualClock()


def a_job(**fields: object) -> NewJob:
    made: dict[str, object] = {"id": fresh_id(), "queue": "q", "job_name": "j", "job_class": "m.J", "data": "{}"}
    return NewJob(**{**made, **fields})  # type: ignore[arg-type]


def a_store(number: int = 10) -> MemoryDriver:
    """Pending, delayed, retried and failed jobs in turn."""
    driver = MemoryDriver(clock=ManualClock())
    driver.register(WorkerInfo(id="w", host="h", pid=1, queues=("q",), concurrency=1, lease_s=60))
    for n in range(number):
        driver.enqueue([a_job(priority=n % 3, data=f'{{"n":{n}}}', meta='{"trace":"t"}', retry_policy='{"cap":9}')])
        if n % 4 == 3:
            driver.enqueue([a_job(delay=3600, max_retries=7, retry_delay=1.5, timeout=0)])
        if n % 4 in (1, 2):
            (claim,) = driver.claim("w", ["q"], slots=1, limit=1)
            verb = Verb.FAIL if n % 4 == 1 else Verb.RETRY
            driver.settle([Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by="w", verb=verb, error="E")])
    return driver


def everything(driver: Store) -> dict[str, tuple[JobRecord, FailedJob | None]]:
    rows = {row.job_id: row for row in driver.failed(limit=1_000).jobs}
    return {job.id: (job, rows.get(job.id)) for job in driver.find(JobFilter(), limit=1_000).jobs}


def as_moved(before: dict[str, tuple[JobRecord, FailedJob | None]]) -> dict[str, object]:
    """What must stand at the destination: each job as it was, one claim_seq further."""
    return {
        job_id: ({**asdict(job), "claim_seq": job.claim_seq + 1}, failed) for job_id, (job, failed) in before.items()
    }


def as_found(driver: Store) -> dict[str, object]:
    return {job_id: (asdict(job), failed) for job_id, (job, failed) in everything(driver).items()}


def test_every_pending_scheduled_and_failed_job_arrives_as_it_was() -> None:
    source, destination = a_store(), MemoryDriver()
    before = everything(source)
    report = transfer(source, destination, token=TOKEN, batch=3)
    assert as_found(destination) == as_moved(before)
    assert source.stats().total == 0
    assert report == TransferReport(moved=len(before), already_there=0, pending=0, failed=0, processing=0, moving=0)
    assert report.is_complete


def test_what_is_held_or_finished_stays_and_is_counted() -> None:
    source, destination = MemoryDriver(), MemoryDriver()
    source.register(WorkerInfo(id="w", host="h", pid=1, queues=("q",), concurrency=2, lease_s=60))
    source.enqueue([a_job(), a_job()])
    done, _held = source.claim("w", ["q"], slots=2, limit=2)
    source.settle([Settlement(id=done.id, claim_seq=done.claim_seq, reserved_by="w", verb=Verb.COMPLETE)])
    source.enqueue([a_job()])
    report = transfer(source, destination, token=TOKEN)
    assert (report.moved, report.processing, report.is_complete) == (1, 1, False)
    assert (source.stats().completed, source.stats().processing) == (1, 1)


def test_progress_is_told_after_each_page() -> None:
    source = MemoryDriver()
    source.enqueue([a_job() for _ in range(7)])
    told: list[int] = []
    transfer(source, MemoryDriver(), token=TOKEN, batch=3, progress=told.append)
    assert told == [3, 6, 7]


def test_it_follows_a_source_that_is_still_written_to() -> None:
    source, destination = MemoryDriver(), MemoryDriver()
    source.enqueue([a_job() for _ in range(4)])
    late = iter([[a_job()], [a_job(), a_job()]])

    def push_more(_moved: int) -> None:
        source.enqueue(next(late, []))

    assert transfer(source, destination, token=TOKEN, batch=4, progress=push_more).moved == 7
    assert destination.stats().pending == 7


class TestDeath:
    """Each call of the source and of the destination in turn gets no answer, done or not done."""

    @pytest.fixture(autouse=True)
    def _no_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PATIENCE_S", 0)

    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
    @pytest.mark.parametrize("side", ["source", "destination"])
    def test_at_any_call_loses_and_doubles_nothing(self, side: str, after: bool) -> None:
        deaths = 0
        while True:
            source, destination = a_store(), MemoryDriver()
            before = everything(source)
            flaky = FlakyDriver(source if side == "source" else destination, deaths + 1, after=after)
            pair = (flaky, destination) if side == "source" else (source, flaky)
            try:
                transfer(*pair, token=TOKEN, batch=2)  # type: ignore[arg-type]
            except StoreUnavailable:
                deaths += 1
            else:
                break
            ids = [*claimable(source), *claimable(destination)]
            assert len(ids) == len(set(ids)), "a job can be lent by both stores"
            assert set(everything(source)) | set(everything(destination)) == set(before), "a job is in neither store"
            report = transfer(source, destination, token=TOKEN, batch=4)
            assert report.is_complete
            assert as_found(destination) == as_moved(before)
            assert source.stats().total == 0
        assert deaths > 5

    def test_a_job_that_has_run_at_the_destination_meanwhile_does_not_run_again(self) -> None:
        source, destination = MemoryDriver(), MemoryDriver()
        source.enqueue([a_job()])
        page, _ = source.export_jobs(TOKEN)
        destination.import_jobs(page)  # and here the transfer died
        destination.register(WorkerInfo(id="w", host="h", pid=1, queues=("q",), concurrency=1, lease_s=60))
        (claim,) = destination.claim("w", ["q"], slots=1, limit=1)
        destination.settle([Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by="w", verb=Verb.COMPLETE)])
        report = transfer(source, destination, token=TOKEN)
        assert (report.moved, report.already_there) == (1, 1)
        assert (source.stats().total, destination.stats().completed, destination.stats().total) == (0, 1, 1)

    def test_the_error_says_how_to_go_on(self) -> None:
        source = a_store()
        with pytest.raises(
            StoreUnavailable, match=r"4 jobs have arrived.*the same transfer again \(token transfer-test"
        ):
            # its calls: register, export, drop, export
            transfer(FlakyDriver(source, 5), MemoryDriver(), token=TOKEN, batch=4)  # type: ignore[arg-type]

    def test_jobs_under_another_token_are_not_touched_but_told_of(self) -> None:
        source = a_store()
        source.export_jobs("another", limit=3)
        report = transfer(source, MemoryDriver(), token=TOKEN)
        assert (report.moving, report.is_complete) == (3, False)


def claimable(driver: Store) -> list[str]:
    return [job_id for job_id, (job, _) in everything(driver).items() if job.status is not JobState.MOVING]


def test_a_short_outage_is_sat_out() -> None:
    source, destination, clock = a_store(), MemoryDriver(), ManualClock()
    before = everything(source)
    flaky = FlakyDriver(destination, 3, after=True, only=["import_jobs"])
    assert transfer(source, flaky, token=TOKEN, batch=2, clock=clock).is_complete  # type: ignore[arg-type]
    assert flaky.has_failed
    assert as_found(destination) == as_moved(before)


class TestRefusals:
    def test_one_store_under_two_names_is_refused_and_unharmed(self) -> None:
        one, same = MemoryDriver("memory://one-store"), MemoryDriver("memory://one-store")
        one.enqueue([a_job()])
        assert are_one_store(one, same)
        with pytest.raises(OptionInvalid, match="the same store"):
            transfer(one, same, token=TOKEN)
        assert (one.stats().pending, one.workers()) == (1, [])
        assert not are_one_store(one, MemoryDriver())

    def test_back_before_a_killed_transfer_was_finished_waits_for_that_one(self) -> None:
        here, there = MemoryDriver(), MemoryDriver()
        here.enqueue([a_job()])
        there.import_jobs(here.export_jobs("there")[0])  # there -> here died between import and drop ...
        with pytest.raises(OptionInvalid, match="on their way from the destination"):
            transfer(there, here, token="back")  # ... and somebody goes the other way
        assert transfer(here, there, token="there").is_complete
        assert transfer(there, here, token="back").is_complete
        assert (here.stats().pending, here.stats().total, there.stats().total) == (1, 1, 0)

    @pytest.mark.parametrize("wrong", [{"token": ""}, {"batch": 0}, {"batch": 1_001}])
    def test_senseless_options(self, wrong: dict[str, object]) -> None:
        with pytest.raises(OptionInvalid):
            transfer(MemoryDriver(), MemoryDriver(), **{"token": TOKEN, **wrong})  # type: ignore[arg-type]

    def test_a_destination_that_answers_for_fewer_jobs_drops_nothing(self) -> None:
        class Forgetful(MemoryDriver):
            def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
                return super().import_jobs(jobs)[:-1]

        source = a_store()
        before = set(everything(source))
        with pytest.raises(ContractBroken):
            transfer(source, Forgetful(), token=TOKEN)
        assert set(everything(source)) == before


def test_large_jobs_go_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 1_000)
    parts: list[int] = []

    class Counting(MemoryDriver):
        def import_jobs(self, jobs: Sequence[ExportedJob]) -> list[Enqueued]:
            parts.append(len(jobs))
            return super().import_jobs(jobs)

    source, destination = MemoryDriver(), Counting()
    source.enqueue([a_job(data=f'"{"x" * size}"') for size in (400, 400, 400, 5_000, 10)])
    assert transfer(source, destination, token=TOKEN).moved == 5
    assert parts == [2, 1, 1, 1]


def test_times_stay_what_they_are_whatever_the_clock_of_the_destination_says() -> None:
    source = MemoryDriver(clock=ManualClock())
    destination = MemoryDriver(clock=ManualClock(datetime(2040, 1, 1, tzinfo=UTC)))
    moment = datetime(2035, 5, 5, tzinfo=UTC) + timedelta(microseconds=123456)
    source.enqueue([a_job(available_at=moment)])
    transfer(source, destination, token=TOKEN)
    (job,) = destination.find(JobFilter()).jobs
    assert (job.available_at, job.created_at) == (moment, ManualClock().now())


def test_a_token_follows_from_the_destination_whatever_its_password() -> None:
    token = token_for("postgresql://app:old@db/jobs")
    assert token == token_for("postgresql://app:new@db/jobs") == token_for("postgresql://db/jobs")
    assert token != token_for("postgresql://db/other")
    assert token.startswith("transfer-")


def test_a_file_has_a_token_of_its_own_in_each_folder_and_on_each_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    here = token_for("sqlite:///jobs.db")
    assert here == token_for(f"sqlite:///{tmp_path}/jobs.db") == token_for("sqlite:///other/../jobs.db")
    monkeypatch.chdir(tmp_path / "other")
    assert token_for("sqlite:///jobs.db") != here
    assert token_for("sqlite:////data/a@b/jobs.db") != token_for("sqlite:////data/c@b/jobs.db")
    absolute = token_for("sqlite:////data/jobs.db")
    monkeypatch.setattr(module, "gethostname", lambda: "another")
    assert token_for("sqlite:////data/jobs.db") != absolute


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("redis://localhost/0", True),
        ("redis://:secret@127.0.0.1:6379/0", True),
        ("postgresql://app@[::1]:5432/jobs", True),
        ("postgresql:///jobs", True),
        ("postgresql://app@/jobs?host=/run/postgresql", True),
        ("postgresql://db1,localhost:5433/jobs", True),
        ("postgresql://app@db/jobs", False),
        ("redis+cluster://10.0.0.7:7000,10.0.0.8", False),
        ("mysql://[fd00::7]/jobs", False),
    ],
)
def test_a_server_on_this_machine_has_another_token_on_another(
    url: str, is_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_for(url)
    monkeypatch.chdir(tmp_path)
    assert token_for(url) == token
    monkeypatch.setattr(module, "gethostname", lambda: "another")
    assert (token_for(url) != token) is is_here


SCHEDULE_VERBS = ("get_schedules", "save_schedule", "remove_schedule")


def is_awake(schedule: Schedule) -> bool:
    return schedule.next_due_at is not None and not schedule.is_paused


def waiting(source: MemoryDriver, clock: ManualClock, story: str) -> Schedule:
    """A schedule whose next time its last one does not tell."""
    scheduler = Scheduler(JobQueue(source, clock=clock))
    if story == "never fired":
        scheduler.every(Report, timedelta(days=7), id="s")
        clock.advance(100_000)
    elif story == "passed over":
        scheduler.cron(Report, "30 * * * *", id="s")
        clock.advance(31 * 60)
        assert scheduler.tick().fired == 1
        scheduler.pause("s")
        clock.advance(65 * 60)
        scheduler.resume("s")
    else:
        scheduler.daily(Report, at="13:00", id="s")
        clock.advance(70 * 60)
    (schedule,) = source.list_schedules().schedules
    return schedule


class TestSchedules:
    def moved(self, source: Store, destination: Store) -> TransferReport:
        return transfer(source, destination, token=TOKEN, clock=CLOCK)

    def killed(self, source: MemoryDriver, destination: MemoryDriver, calls: int) -> bool:
        """Move, and die after so many calls about schedules. Whether it has come to that."""
        budget = [calls]

        class Dies:
            def __init__(self, store: MemoryDriver) -> None:
                self._store = store

            def __getattr__(self, name: str) -> object:
                if name in SCHEDULE_VERBS:
                    budget[0] -= 1
                    if budget[0] < 0:
                        raise KeyboardInterrupt
                return getattr(self._store, name)

        try:
            self.moved(Dies(source), Dies(destination))  # type: ignore[arg-type]
        except KeyboardInterrupt:
            return True
        return False

    def test_they_move_with_their_history(self) -> None:
        clock = ManualClock()
        source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
        scheduler = Scheduler(JobQueue(source, clock=clock))
        for n in range(3):
            scheduler.every(Report, 60, {"n": n}, id=f"s{n}")
        scheduler.pause("s2")
        clock.advance(60)
        scheduler.tick()
        before = {one.id: one for one in scheduler.schedules()}
        report = self.moved(source, destination)
        assert (report.schedules, report.is_complete) == (3, True)
        assert scheduler.schedules() == []
        after = {one.id: replace(one, version=before[one.id].version) for one in destination.list_schedules().schedules}
        assert after == before

    @pytest.mark.parametrize("calls", range(12))
    def test_killed_anywhere_and_started_again_no_time_is_lost_or_doubled(self, calls: int) -> None:
        clock = ManualClock()
        source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
        scheduler = Scheduler(JobQueue(source, clock=clock))
        scheduler.every(Report, 60, id="s", misfire="all", start=clock.now())
        clock.advance(120)
        assert scheduler.tick().fired == 2
        assert self.killed(source, destination, calls)
        clock.advance(60)
        fired = Scheduler(JobQueue(source, clock=clock)).tick().fired  # tickers run on at both ends
        fired += Scheduler(JobQueue(destination, clock=clock)).tick().fired
        self.moved(source, destination)
        clock.advance(60)
        assert Scheduler(JobQueue(source, clock=clock)).tick().fired == 0
        fired += Scheduler(JobQueue(destination, clock=clock)).tick().fired
        assert fired == 2
        (kept,) = destination.list_schedules().schedules
        assert kept.last_due_at == clock.now()
        assert destination.stats("default").pending == 4

    @pytest.mark.parametrize("story", ["never fired", "passed over", "due"])
    def test_killed_anywhere_the_time_that_it_waits_for_is_kept(self, story: str) -> None:
        calls, was_killed = 0, True
        while was_killed:
            clock = ManualClock()
            source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
            before = waiting(source, clock, story)
            was_killed = self.killed(source, destination, calls)
            awake = [
                one for store in (source, destination) for one in store.list_schedules().schedules if is_awake(one)
            ]
            assert len(awake) <= 1, "it can fire in both stores"
            self.moved(source, destination)
            (after,) = destination.list_schedules().schedules
            assert replace(after, version=before.version) == before, f"killed at call {calls}"
            assert source.list_schedules().schedules == ()
            calls += 1
        assert calls > 10

    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
    @pytest.mark.parametrize("side", ["source", "destination"])
    def test_an_outage_in_the_middle_keeps_the_time_too(self, side: str, after: bool) -> None:
        calls, has_failed = 0, True
        while has_failed:
            clock = ManualClock()
            source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
            before = waiting(source, clock, "never fired")
            flaky = FlakyDriver(
                source if side == "source" else destination, calls + 1, after=after, only=SCHEDULE_VERBS
            )
            self.moved(*((flaky, destination) if side == "source" else (source, flaky)))  # type: ignore[arg-type]
            (kept,) = destination.list_schedules().schedules
            assert replace(kept, version=before.version) == before
            assert source.list_schedules().schedules == ()
            calls, has_failed = calls + 1, flaky.has_failed
        assert calls > 5

    @pytest.mark.parametrize("interval", [60, 90])
    @pytest.mark.parametrize("saves", [1, 2, 3])
    def test_what_is_changed_at_the_source_meanwhile_is_not_lost(self, saves: int, interval: float) -> None:
        clock = ManualClock()
        source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
        Scheduler(JobQueue(source, clock=clock)).every(Report, 60, {"n": 1}, id="s")
        budget = [saves]

        def changed(save: Callable[..., bool]) -> Callable[..., bool]:
            def call(schedule: Schedule, *, version: int) -> bool:
                has_saved = save(schedule, version=version)
                budget[0] -= 1
                if budget[0] == 0:
                    Scheduler(JobQueue(source, clock=clock)).every(Report, interval, {"n": 2}, id="s")
                return has_saved

            return call

        source.save_schedule = changed(source.save_schedule)  # type: ignore[method-assign]
        destination.save_schedule = changed(destination.save_schedule)  # type: ignore[method-assign]
        self.moved(source, destination)
        (kept,) = destination.list_schedules().schedules
        assert (kept.data, kept.spec, kept.is_paused, kept.last_job_id) == ('{"n":2}', f"every {interval}", False, None)
        assert kept.next_due_at == clock.now() + timedelta(seconds=interval)
        assert source.list_schedules().schedules == ()

    def test_one_that_is_declared_there_too_takes_over_what_has_fired(self) -> None:
        clock = ManualClock()
        source, destination = MemoryDriver(clock=clock), MemoryDriver(clock=clock)
        Scheduler(JobQueue(destination, clock=clock)).every(Report, 60, {"new": 1}, id="s")
        clock.advance(30)
        scheduler = Scheduler(JobQueue(source, clock=clock))
        scheduler.every(Report, 30, {"old": 1}, id="s")
        clock.advance(30)
        assert scheduler.tick().fired == 1
        self.moved(source, destination)
        (kept,) = destination.list_schedules().schedules
        assert (kept.data, kept.spec, kept.last_due_at) == ('{"new":1}', "every 60", clock.now())
        assert Scheduler(JobQueue(destination, clock=clock)).tick().fired == 0
        assert kept.next_due_at == clock.now() + timedelta(seconds=60)
