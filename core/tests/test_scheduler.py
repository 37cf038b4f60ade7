"""Registering schedules: what is stored, what is refused with nothing stored, and what people do to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from protojobs import Cron, Job, JobQueue, Scheduler, Settings, job
from protojobs.config import load_settings
from protojobs.errors import (
    ConfigurationError,
    DataInvalid,
    JobUnknown,
    OptionInvalid,
    ScheduleUnknown,
    StoreUnavailable,
)
from protojobs.jobs.cron_option import ScheduleSetting
from protojobs.port.schedules import Misfire, Overlap, Schedule, SchedulePage
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver

MakeQueue = Callable[..., JobQueue]
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)  # a Tuesday, and where the tests' clock begins


class Report(Job):
    queue = "reports"
    max_retries = 7
    timeout = 5
    priority = 9

    def handle(self, data: dict[str, object]) -> None: ...


@pytest.fixture
def scheduler(queue: JobQueue) -> Scheduler:
    return Scheduler(queue)


class TestOnce:
    def test_in_is_a_delayed_job(self, scheduler: Scheduler) -> None:
        job_id = scheduler.in_(Report, timedelta(minutes=5), {"n": 1})
        found = scheduler.queue.get(job_id)
        assert found is not None
        assert found.available_at == NOON + timedelta(minutes=5)
        assert scheduler.schedules() == []

    @pytest.mark.parametrize(
        ("when", "due"),
        [
            ("2030-01-01 13:00:00", NOON + timedelta(hours=1)),
            ("2030-01-01T13:00+02:00", NOON - timedelta(hours=1)),
            (NOON + timedelta(days=1), NOON + timedelta(days=1)),
            (timedelta(seconds=90), NOON + timedelta(seconds=90)),
        ],
    )
    def test_at_takes_text_a_moment_or_a_distance(self, scheduler: Scheduler, when: object, due: datetime) -> None:
        found = scheduler.queue.get(scheduler.at(Report, when))  # type: ignore[arg-type]
        assert found is not None
        assert found.available_at == due

    def test_at_reads_text_in_the_configured_zone(self, make_queue: MakeQueue) -> None:
        queue = make_queue(timezone="Europe/Berlin")
        found = queue.get(Scheduler(queue).at(Report, "2030-01-01 13:00"))
        assert found is not None
        assert found.available_at == NOON

    @pytest.mark.parametrize("when", [300, None, NOON.replace(tzinfo=None), "soon"])
    def test_at_refuses_what_is_no_moment(self, scheduler: Scheduler, when: object) -> None:
        with pytest.raises(OptionInvalid):
            scheduler.at(Report, when)  # type: ignore[arg-type]
        assert scheduler.queue.stats().total == 0


class TestTimes:
    @pytest.mark.parametrize(
        ("make", "spec", "due"),
        [
            (lambda s: s.every(Report, 3600), "every 3600", NOON + timedelta(hours=1)),
            (lambda s: s.every(Report, timedelta(seconds=1.5)), "every 1.5", NOON + timedelta(seconds=1.5)),
            (lambda s: s.every_minute(Report), "* * * * *", NOON + timedelta(minutes=1)),
            (lambda s: s.every_five_minutes(Report), "*/5 * * * *", NOON + timedelta(minutes=5)),
            (lambda s: s.hourly(Report), "0 * * * *", NOON + timedelta(hours=1)),
            (lambda s: s.hourly(Report, None, 15), "15 * * * *", NOON + timedelta(minutes=15)),
            (lambda s: s.daily(Report, {}, "02:00"), "0 2 * * *", NOON + timedelta(hours=14)),
            (lambda s: s.daily(Report, {}, time(13, 0, 30)), "30 0 13 * * *", NOON + timedelta(seconds=3630)),
            (lambda s: s.weekly(Report, {}, "monday", "09:00"), "0 9 * * MON", NOON + timedelta(days=5, hours=21)),
            (lambda s: s.weekly(Report, {}, "WED", "00:00"), "0 0 * * WED", NOON + timedelta(hours=12)),
            (lambda s: s.weekly(Report, {}, 7), "0 0 * * 7", NOON + timedelta(days=4, hours=12)),
            (lambda s: s.cron(Report, "@hourly"), "0 * * * *", NOON + timedelta(hours=1)),
        ],
    )
    def test_each_method_is_one_spec(
        self, scheduler: Scheduler, make: Callable[[Scheduler], Schedule], spec: str, due: datetime
    ) -> None:
        made = make(scheduler)
        assert (made.spec, made.next_due_at) == (spec, due)
        assert scheduler.schedules() == [made]

    def test_the_clock_is_that_of_the_schedule_s_zone(self, make_queue: MakeQueue) -> None:
        scheduler = Scheduler(make_queue(timezone="Asia/Tokyo"))
        assert scheduler.daily(Report, {}, "09:00").next_due_at == NOON + timedelta(hours=12)
        paris = scheduler.daily(Report, {}, "14:00", timezone="Europe/Paris")
        assert (paris.timezone, paris.next_due_at) == ("Europe/Paris", NOON + timedelta(hours=1))

    def test_start_and_end_are_read_in_the_schedule_s_zone(self, scheduler: Scheduler) -> None:
        made = scheduler.every(Report, 60, start="2030-01-01 14:00", end="2030-01-02", timezone="Europe/Paris")
        assert made.start_at == made.next_due_at == NOON + timedelta(hours=1)
        assert made.end_at == datetime(2030, 1, 1, 23, tzinfo=UTC)

    def test_an_interval_is_counted_from_its_start(self, scheduler: Scheduler) -> None:
        made = scheduler.every(Report, 3600, start="2029-06-01 00:20")
        assert made.next_due_at == NOON + timedelta(minutes=20)

    def test_one_whose_end_is_over_is_stored_and_rests(self, scheduler: Scheduler) -> None:
        assert scheduler.every_minute(Report, end="2029-12-31").next_due_at is None
        assert scheduler.next(3) == []


class TestWhatIsStored:
    def test_the_job_with_all_its_settings(self, make_queue: MakeQueue) -> None:
        queue = make_queue(retry_delay=11.0, catch_up=120.0)
        made = Scheduler(queue).hourly(
            Report().on_queue("urgent").retries(2), {"a": [1]}, misfire="all", overlap="queue_one", jitter=30, id="r"
        )
        assert (made.id, made.queue, made.max_retries, made.timeout) == ("r", "urgent", 2, 5.0)
        assert (made.priority, made.retry_delay, made.catch_up, made.jitter) == (9, 11.0, 120.0, 30.0)
        assert (made.misfire, made.overlap) == (Misfire.ALL, Overlap.QUEUE_ONE)
        assert json.loads(made.data) == {"a": [1]}
        assert made.job_name == Report.definition.name
        assert made.version == 1

    def test_a_schedule_without_an_id_is_named_by_what_it_is(self, scheduler: Scheduler) -> None:
        ids = {
            scheduler.hourly(Report).id,
            scheduler.hourly(Report, {"other": "data"}).id,
            scheduler.hourly(Report, timezone="Europe/Paris").id,
            scheduler.daily(Report).id,
        }
        assert len(ids) == 4
        assert all(name.startswith(Report.definition.name + "-") for name in ids)

    def test_registering_again_changes_nothing(self, scheduler: Scheduler, clock: ManualClock) -> None:
        first = scheduler.every(Report, 3600, {"n": 1})
        clock.advance(1800)
        assert Scheduler(scheduler.queue).every(Report, 3600, {"n": 1}) == first
        assert scheduler.every(Report, 3600, {"n": 1}) == first

    def test_a_changed_one_keeps_its_history_and_does_not_fire_at_once(
        self, scheduler: Scheduler, clock: ManualClock
    ) -> None:
        scheduler.every(Report, 60, id="r")
        clock.advance(60)
        assert scheduler.tick().fired == 1
        clock.advance(10)
        changed = Scheduler(scheduler.queue).daily(Report, {"new": 1}, "00:00", id="r")
        assert changed.next_due_at == NOON + timedelta(hours=12)
        assert changed.last_due_at == NOON + timedelta(seconds=60)
        assert changed.last_job_id is not None
        assert scheduler.tick().fired == 0
        assert [one.id for one in scheduler.schedules()] == ["r"]

    def test_the_process_that_made_one_changes_it_and_changes_it_back(self, scheduler: Scheduler) -> None:
        for hour in (7, 8, 7):
            scheduler.daily(Report, {"hour": hour}, f"{hour:02}:00", id="digest")
            (known,) = scheduler.schedules()
            assert (known.spec, known.data) == (f"0 {hour} * * *", f'{{"hour":{hour}}}')
        assert known.version == 3

    def test_other_data_alone_keeps_the_times(self, scheduler: Scheduler, clock: ManualClock) -> None:
        first = scheduler.every(Report, 3600, {"n": 1}, id="r")
        clock.advance(1000)
        again = Scheduler(scheduler.queue).every(Report, 3600, {"n": 2}, id="r")
        assert (again.next_due_at, again.data) == (first.next_due_at, '{"n":2}')

    def test_a_paused_one_stays_paused_when_it_is_registered_again(self, scheduler: Scheduler) -> None:
        scheduler.hourly(Report, id="r")
        scheduler.pause("r")
        assert Scheduler(scheduler.queue).daily(Report, id="r").is_paused

    def test_two_at_the_same_moment_make_one(self, make_queue: MakeQueue, clock: ManualClock) -> None:
        class Overtaken(MemoryDriver):
            """Somebody else registers the schedule right after it was looked for."""

            def get_schedules(self, ids: object) -> SchedulePage:
                found = super().get_schedules(ids)  # type: ignore[arg-type]
                if not found.schedules and not self.done:
                    self.done = True
                    Scheduler(JobQueue(rival)).hourly(Report, {"by": "the other"}, id="r")
                return found

            done = False

        rival = MemoryDriver("memory://overtaken", clock=clock)
        scheduler = Scheduler(make_queue(Overtaken("memory://overtaken", clock=clock)))
        made = scheduler.hourly(Report, {"by": "me"}, id="r")
        assert scheduler.schedules() == [made]
        assert (made.data, made.version) == ('{"by":"me"}', 2)

    def test_an_answer_that_was_lost_is_asked_for_again(self, make_queue: MakeQueue, clock: ManualClock) -> None:
        class Cut(MemoryDriver):
            calls = 0

            def save_schedule(self, schedule: Schedule, *, version: int) -> bool:
                saved = super().save_schedule(schedule, version=version)
                self.calls += 1
                if self.calls == 1:
                    raise StoreUnavailable("the connection was cut behind it.")
                return saved

        driver = Cut(clock=clock)
        made = Scheduler(JobQueue(driver, Settings(), clock=clock)).hourly(Report)
        assert (driver.calls, made.version) == (1, 1)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.every(Report, 0.5),
            lambda s: s.every(Report, -1),
            lambda s: s.every(Report, True),
            lambda s: s.every(Report, float("nan")),
            lambda s: s.hourly(Report, {}, 60),
            lambda s: s.daily(Report, {}, "25:00"),
            lambda s: s.daily(Report, {}, "02:00+01:00"),
            lambda s: s.daily(Report, {}, 2),
            lambda s: s.weekly(Report, {}, "mondy"),
            lambda s: s.weekly(Report, {}, 8),
            lambda s: s.cron(Report, "61 * * * *"),
            lambda s: s.cron(Report, "0 0 30 2 *"),
            lambda s: s.hourly(Report, timezone="Mars/Olympus"),
            lambda s: s.hourly(Report, timezone=[]),
            lambda s: s.hourly(Report, timezone=""),
            lambda s: s.hourly(Report, misfire="never"),
            lambda s: s.hourly(Report, overlap="maybe"),
            lambda s: s.hourly(Report, jitter=-1),
            lambda s: s.hourly(Report, jitter=90_000),
            lambda s: s.hourly(Report, catch_up=timedelta(days=32)),
            lambda s: s.hourly(Report, id=""),
            lambda s: s.hourly(Report, id="x" * 201),
            lambda s: s.hourly(Report, id="a\nb"),
            lambda s: s.hourly(Report, start=NOON.replace(tzinfo=None)),
            lambda s: s.hourly(Report, start="2030-02-01", end="2030-01-01"),
            lambda s: s.hourly(Report, {"big": "x" * 33_000}),
            lambda s: s.hourly("nobody"),
            lambda s: s.hourly(Report, {"nan": float("nan")}),
        ],
    )
    def test_with_nothing_stored(self, scheduler: Scheduler, call: Callable[[Scheduler], object]) -> None:
        with pytest.raises((ConfigurationError, ValueError)) as caught:
            call(scheduler)
        assert str(caught.value)
        assert scheduler.schedules() == []

    @pytest.mark.parametrize(
        ("options", "mend"),
        [({"tz": "Europe/Berlin"}, "There are id, timezone, misfire"), ({"time_zone": "UTC"}, 'mean "timezone"'),
         ({"max_instances": 1}, "There are id"), ({"catchup": 5}, 'mean "catch_up"')],
    )  # fmt: skip
    @pytest.mark.parametrize("how", ["hourly", "daily", "weekly", "every_minute", "adaily"])
    def test_an_option_that_there_is_not(
        self, scheduler: Scheduler, how: str, options: dict[str, object], mend: str
    ) -> None:
        with pytest.raises(OptionInvalid, match="There is no schedule option") as caught:
            answer = getattr(scheduler, how)(Report, id="r", **options)
            asyncio.run(answer)
        assert mend in caught.value.mend
        assert scheduler.schedules() == []

    def test_two_declarations_of_one_id_that_differ(self, make_queue: MakeQueue) -> None:
        class Nightly(Report):
            name = "nightly"

        job(name="digest", cron=Cron("0 2 * * *", id="nightly"))(lambda: None)
        said = ScheduleSetting(job="nightly", cron="0 3 * * *")
        scheduler = Scheduler(make_queue(schedules={"nightly": said}))
        with pytest.raises(OptionInvalid, match=r'"nightly" is declared twice.*0 2 .*digest.*0 3 .*Give each its own'):
            scheduler.declare()
        assert scheduler.schedules() == []

    def test_what_was_refused_by_the_store_can_be_tried_again(self, make_queue: MakeQueue, clock: ManualClock) -> None:
        driver = MemoryDriver(clock=clock)
        scheduler = Scheduler(JobQueue(driver, Settings(push_timeout=0.1), clock=clock))
        away, driver.get_schedules = driver.get_schedules, _away  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            scheduler.hourly(Report, id="r")
        driver.get_schedules = away  # type: ignore[method-assign]
        assert scheduler.daily(Report, id="r").spec == "0 0 * * *"


def _away(ids: object) -> SchedulePage:
    raise StoreUnavailable("it is away.")


class TestLookingAfter:
    def test_paused_ones_rest_and_resumed_ones_do_not_make_up_for_it(
        self, scheduler: Scheduler, clock: ManualClock
    ) -> None:
        scheduler.every(Report, 60, id="r", misfire="all")
        assert scheduler.pause("r") and not scheduler.pause("r")
        clock.advance(600.5)
        assert scheduler.tick().fired == 0
        assert scheduler.resume("r") and not scheduler.resume("r")
        found = scheduler.get("r")
        assert found is not None
        assert found.next_due_at == NOON + timedelta(seconds=660)
        assert scheduler.tick().fired == 0

    def test_removed_ones_are_gone_and_their_jobs_stay(self, scheduler: Scheduler, clock: ManualClock) -> None:
        scheduler.every(Report, 60, id="r")
        clock.advance(60)
        scheduler.tick()
        assert scheduler.remove("r") and not scheduler.remove("r")
        assert scheduler.get("r") is None
        assert scheduler.queue.stats("reports").pending == 1
        assert scheduler.daily(Report, id="r").spec == "0 0 * * *"  # the id is free again

    def test_run_now_is_one_job_beside_the_times(self, scheduler: Scheduler) -> None:
        before = scheduler.hourly(Report, {"n": 1}, id="r")
        found = scheduler.queue.get(scheduler.run_now("r"))
        assert found is not None
        assert (found.data, found.queue, found.available_at) == ('{"n":1}', "reports", NOON)
        assert json.loads(found.meta or "") == {"schedule": "r"}
        assert scheduler.get("r") == before

    @pytest.mark.parametrize("verb", ["pause", "resume", "run_now"])
    def test_an_unknown_id_gets_a_suggestion(self, scheduler: Scheduler, verb: str) -> None:
        scheduler.hourly(Report, id="nightly")
        with pytest.raises(ScheduleUnknown, match='Did you mean "nightly"'):
            getattr(scheduler, verb)("nigthly")
        with pytest.raises(ScheduleUnknown):
            scheduler.next(1, id="nigthly")

    def test_next_goes_through_all_of_them_in_order(self, scheduler: Scheduler) -> None:
        scheduler.hourly(Report, id="b")
        scheduler.every(Report, 2400, id="a")
        scheduler.pause(scheduler.every_minute(Report, id="rests").id)
        upcoming = scheduler.next(4)
        minutes = [(one.schedule.id, (one.due_at - NOON).total_seconds() / 60) for one in upcoming]
        assert minutes == [("a", 40), ("b", 60), ("a", 80), ("a", 120)]
        assert [one.due_at for one in scheduler.next(2, id="b")] == [NOON + timedelta(hours=h) for h in (1, 2)]

    def test_there_may_be_more_than_one_page_of_them(self, scheduler: Scheduler) -> None:
        for n in range(230):
            scheduler.hourly(Report, id=f"s{n:03}")
        assert [one.id for one in scheduler.schedules()] == [f"s{n:03}" for n in range(230)]


class TestDeclared:
    def test_by_a_job_under_its_own_name(self, scheduler: Scheduler) -> None:
        @job(name="nightly", cron=Cron("30 3 * * *", timezone="Europe/Paris", misfire="skip"))
        def nightly(dry: bool = False) -> None: ...

        @job(name="other", aliases=("former",), cron="@daily")
        def other() -> None: ...

        made = {one.id: one for one in scheduler.declare()}
        assert {name: (one.spec, one.timezone, one.misfire) for name, one in made.items()} == {
            "nightly": ("30 3 * * *", "Europe/Paris", Misfire.SKIP),
            "other": ("0 0 * * *", "UTC", Misfire.LATEST),
        }
        assert scheduler.declare() == list(made.values())

    def test_by_a_class(self, scheduler: Scheduler) -> None:
        class Nightly(Job):
            name = "nightly"
            cron = "0 2 * * *"

            def handle(self, data: dict[str, object]) -> None: ...

        assert [one.id for one in scheduler.declare()] == ["nightly"]

    def test_a_wrong_one_is_refused_where_it_is_written(self) -> None:
        with pytest.raises(OptionInvalid, match="hour"):

            @job(name="bad", cron="0 25 * * *")
            def one() -> None: ...

        with pytest.raises(OptionInvalid, match="Mars"):

            @job(name="bad", cron=Cron("0 5 * * *", timezone="Mars/Olympus"))
            def two() -> None: ...

        with pytest.raises(OptionInvalid, match="cron is 5"):

            class Three(Job):
                name = "three"
                cron = 5  # type: ignore[assignment]

                def handle(self, data: object) -> None: ...

    def test_one_that_needs_data_is_refused_before_anything_is_stored(self, scheduler: Scheduler) -> None:
        @job(name="needs", cron="@daily")
        def needs(what: str) -> None: ...

        with pytest.raises(DataInvalid, match="what"):
            scheduler.tick()
        assert scheduler.schedules() == []

    def test_the_first_tick_stores_them(self, scheduler: Scheduler, clock: ManualClock) -> None:
        @job(name="often", cron="* * * * *")
        def often() -> None: ...

        assert scheduler.tick().next_due_in == 60
        clock.advance(60)
        assert scheduler.tick().fired == 1

    def test_by_the_configuration_file(self, tmp_path: Path, clock: ManualClock) -> None:
        (tmp_path / "protojobs.toml").write_text(
            '[schedules.nightly]\njob = "report"\ncron = "0 2 * * *"\ntimezone = "Europe/Paris"\ndata = {n = 1}\n'
            '[schedules.pulse]\njob = "report"\nevery = 90\noverlap = "skip"\n'
        )

        @job(name="report")
        def report(n: int = 0) -> None: ...

        queue = JobQueue(MemoryDriver(clock=clock), load_settings(folder=tmp_path, environ={}))
        nightly, pulse = Scheduler(queue).declare()
        assert (nightly.id, nightly.spec, nightly.timezone, nightly.data) == (
            "nightly",
            "0 2 * * *",
            "Europe/Paris",
            '{"n":1}',
        )
        assert (pulse.id, pulse.spec, pulse.overlap) == ("pulse", "every 90", Overlap.SKIP)

    @pytest.mark.parametrize(
        ("table", "error", "match"),
        [
            ('job = "report"\ncron = "* * * * *"\nevery = 1', OptionInvalid, "one of them"),
            ('job = "report"', OptionInvalid, "one of them"),
            ('job = "repport"\nevery = 5', JobUnknown, "report"),
            ('job = "report"\nevery = 0.1', OptionInvalid, "interval"),
        ],
    )
    def test_a_wrong_table_is_told(self, tmp_path: Path, table: str, error: type[Exception], match: str) -> None:
        (tmp_path / "protojobs.toml").write_text(f"[schedules.x]\n{table}\n")

        @job(name="report")
        def report() -> None: ...

        queue = JobQueue(MemoryDriver(), load_settings(folder=tmp_path, environ={}))
        with pytest.raises(error, match=match):
            Scheduler(queue).declare()

    def test_a_tick_passes_over_what_only_others_know(
        self, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "protojobs.toml").write_text(
            '[schedules.theirs]\njob = "elsewhere"\nevery = 5\n[schedules.ours]\njob = "report"\nevery = 5\n'
        )

        @job(name="report")
        def report() -> None: ...

        scheduler = Scheduler(JobQueue(MemoryDriver(clock=clock), load_settings(folder=tmp_path, environ={})))
        scheduler.tick()
        assert [one.id for one in scheduler.schedules()] == ["ours"]
        assert "schedules.theirs is not stored from here: no job elsewhere has been imported" in caplog.text

    @pytest.mark.parametrize("table", ['crn = "* * * * *"', 'misfire = "sometimes"', "every = '5'"])
    def test_a_misspelt_table_is_refused_while_it_is_read(self, tmp_path: Path, table: str) -> None:
        (tmp_path / "protojobs.toml").write_text(f'[schedules.x]\njob = "report"\n{table}\n')
        with pytest.raises(ConfigurationError, match="schedules"):
            load_settings(folder=tmp_path, environ={})


def test_every_method_that_waits_has_a_twin(scheduler: Scheduler) -> None:
    waits = {
        *("in_", "at", "every", "every_minute", "every_five_minutes", "hourly", "daily", "weekly", "cron", "declare"),
        *("schedules", "get", "pause", "resume", "remove", "run_now", "next", "tick"),
    }

    async def all_of_them() -> None:
        assert await scheduler.ain_(Report, 5) and await scheduler.aat(Report, "2031-01-01")
        made = [
            await scheduler.aevery(Report, 5, id="x"),
            await scheduler.aevery_minute(Report),
            await scheduler.aevery_five_minutes(Report),
            await scheduler.ahourly(Report, None, 5),
            await scheduler.adaily(Report, None, "03:00"),
            await scheduler.aweekly(Report, None, "friday", "04:00"),
            await scheduler.acron(Report, "0 0 L * *"),
        ]
        assert sorted(one.id for one in made) == [one.id for one in await scheduler.aschedules()]
        assert await scheduler.adeclare() == []
        assert await scheduler.aget("x") == made[0]
        assert await scheduler.apause("x") and await scheduler.aresume("x")
        assert await scheduler.arun_now("x")
        assert len(await scheduler.anext(3)) == 3
        assert (await scheduler.atick()).fired == 0
        assert await scheduler.aremove("x")

    asyncio.run(all_of_them())
    public = {name for name in dir(Scheduler) if not name.startswith("_")}
    assert waits <= public and {f"a{name}" for name in waits} <= public
    assert public - waits - {f"a{name}" for name in waits} == {"iterate", "pages", "run"}
