"""The archive on PostgreSQL: where completed jobs are, how they go, and what stays true when it is switched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from protojobs.clock import SYSTEM_CLOCK
from protojobs.entropy import fresh_id
from protojobs.errors import LeaseLost, OptionInvalid, ProtojobsError
from protojobs.port.lifecycle import Verb
from protojobs.port.records import CancelAnswer, ClaimedJob, Fence, JobFilter, NewJob, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.postgresql.archive import COLUMNS, DAY_SHARDS
from protojobs_sqlalchemy.tables.tables import PLAIN
from protojobs_sqlalchemy.verbs.counting import lone_shard

DAY_S = 86_400.0
TO_NOON_S = DAY_S / 2 - SYSTEM_CLOCK.now().timestamp() % DAY_S  # of the store's time: no test meets its midnight
RESEND_S = 3_600.0
BOUND_S = 20.0
Later = Callable[[float], SQLAlchemyDriver]


@pytest.fixture(scope="module")
def keeper(postgresql_url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(postgresql_url, archive="daily", time_offset=TO_NOON_S)
    driver.setup()
    yield driver
    driver.teardown()
    driver.close()


@pytest.fixture
def url(keeper: SQLAlchemyDriver, postgresql_url: str) -> str:
    """An empty store whose archive has the days that it should."""
    with keeper.engine.begin() as conn:
        for name in days_of(keeper)[:-1]:
            conn.execute(text(f"DROP TABLE jobs_archive_{name}"))
        for name in [*PLAIN.metadata.tables, "jobs_archive"]:
            conn.execute(text(f"DELETE FROM {name}"))
    keeper.setup()
    return postgresql_url


@pytest.fixture
def later(url: str) -> Iterator[Later]:
    """Drivers with an archive, whose store time is so many seconds ahead."""
    made: list[SQLAlchemyDriver] = []

    def make(seconds: float) -> SQLAlchemyDriver:
        made.append(SQLAlchemyDriver(f"{url}?archive=daily", time_offset=TO_NOON_S + seconds))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def driver(later: Later) -> SQLAlchemyDriver:
    return later(0)


@pytest.fixture
def plain(url: str, driver: SQLAlchemyDriver) -> Iterator[Callable[[], SQLAlchemyDriver]]:
    """Drivers on the same store without the option."""
    made: list[SQLAlchemyDriver] = []

    def make() -> SQLAlchemyDriver:
        made.append(SQLAlchemyDriver(url, time_offset=TO_NOON_S))
        return made[-1]

    yield make
    for one in made:
        one.close()


def new_job(queue: str = "q", job_id: str = "", data: str = "{}") -> NewJob:
    return NewJob(id=job_id or fresh_id(), queue=queue, job_name="n", job_class="c", data=data, meta="m")


def lend(driver: SQLAlchemyDriver, *new: NewJob, queue: str = "q") -> list[ClaimedJob]:
    """Push these (or one) and lend them to a new worker."""
    pushed = new or (new_job(queue),)
    assert [one.duplicate_of for one in driver.enqueue(pushed)] == [None] * len(pushed)
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=(queue,), concurrency=1, lease_s=1e7)
    driver.register(worker)
    claims = driver.claim(worker.id, [queue], slots=1_000, limit=1_000)
    assert len(claims) == len(pushed)
    return claims


def settlement(claim: ClaimedJob, verb: Verb = Verb.COMPLETE) -> Settlement:
    return Settlement(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by, verb=verb)


def fence(claim: ClaimedJob) -> Fence:
    return Fence(id=claim.id, claim_seq=claim.claim_seq, reserved_by=claim.reserved_by)


def complete(driver: SQLAlchemyDriver, count: int = 1, queue: str = "q") -> list[str]:
    """Push, lend and complete so many; their ids."""
    claims = lend(driver, *[new_job(queue) for _ in range(count)], queue=queue)
    assert {one.status for one in driver.settle([settlement(claim) for claim in claims])} == {"applied"}
    return [claim.id for claim in claims]


def rows_of(driver: SQLAlchemyDriver, table: str) -> int:
    return int(asked(driver, f"SELECT count(*) FROM {table}")[0])


def asked(driver: SQLAlchemyDriver, query: str) -> list[str]:
    with driver.engine.connect() as conn:
        return [str(value) for value in conn.execute(text(query)).scalars()]


def days_of(driver: SQLAlchemyDriver) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'jobs_archive'::regclass ORDER BY 1"
    return [name.removeprefix("jobs_archive_") for name in asked(driver, query)]


def day_name(driver: SQLAlchemyDriver, days: int = 0) -> str:
    return f"{driver.now() + timedelta(days=days):%Y%m%d}"


def to_midnight_s(driver: SQLAlchemyDriver) -> float:
    """Seconds until the store's next day begins."""
    now = driver.now()
    return DAY_S - (now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() % DAY_S


def counted_is_true(driver: SQLAlchemyDriver) -> bool:
    """Whether the counters say what the tables hold."""
    rows = "SELECT queue, count(*) AS n FROM (TABLE jobs UNION ALL TABLE jobs_archive) AS kept"
    query = f"""
        SELECT count(*) FROM ({rows} WHERE status = 'completed' GROUP BY queue) AS held
        FULL JOIN (SELECT queue, sum(count) AS n FROM counters WHERE status = 'completed' GROUP BY queue) AS counted
        USING (queue) WHERE coalesce(held.n, 0) <> coalesce(counted.n, 0)
    """
    return asked(driver, query) == ["0"]


@contextmanager
def beside(action: Callable[[], object]) -> Iterator[list[object]]:
    """Run `action` in a thread during the block; its answer, or its error, is there after it."""
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(action())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield answers
    thread.join(BOUND_S)
    assert not thread.is_alive()


def wait_until_somebody_waits(driver: SQLAlchemyDriver) -> None:
    """Until a session of this database waits for a lock of another."""
    gives_up_at = SYSTEM_CLOCK.monotonic() + BOUND_S
    query = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    while asked(driver, f"{query} AND datname = current_database()") == ["0"]:
        assert SYSTEM_CLOCK.monotonic() < gives_up_at, "nobody waits"


class TestOption:
    def test_only_postgresql_takes_it(self, sqlite_url: str) -> None:
        for make in (partial(SQLAlchemyDriver, f"{sqlite_url}?archive=daily"), partial(SQLAlchemyDriver, sqlite_url)):
            with pytest.raises(OptionInvalid, match="only PostgreSQL"):
                make(archive="daily")

    @pytest.mark.parametrize("value", ["weekly", "Daily", "1", ""])
    def test_another_value_is_refused_with_the_one_that_is_known(self, value: str) -> None:
        with pytest.raises(OptionInvalid, match="archive=daily"):
            SQLAlchemyDriver(f"postgresql://nobody@localhost/none?archive={value or '%20'}")
        with pytest.raises(OptionInvalid, match="archive=daily"):
            SQLAlchemyDriver("postgresql://nobody@localhost/none", archive=value)

    def test_an_application_s_engine_takes_it_as_an_argument(self, driver: SQLAlchemyDriver, url: str) -> None:
        engine = create_engine(driver.engine.url)
        theirs = SQLAlchemyDriver(engine, archive="daily", time_offset=TO_NOON_S)
        (job_id,) = complete(theirs)
        assert [job.status.value for job in driver.get([job_id])] == ["completed"]
        assert (rows_of(driver, "jobs"), rows_of(driver, "jobs_archive")) == (0, 1)
        engine.dispose()

    def test_setup_makes_the_days_however_many_start_at_once(self, later: Later, keeper: SQLAlchemyDriver) -> None:
        keeper.teardown()
        starters = [later(0) for _ in range(6)]
        errors: list[Exception] = []

        def start(one: SQLAlchemyDriver) -> None:
            try:
                one.setup()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=start, args=(one,)) for one in starters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND_S)
        assert errors == []
        assert days_of(starters[0]) == [*(day_name(starters[0], days) for days in range(2)), "rest"]


class TestCompleting:
    def test_a_job_leaves_the_table_and_keeps_what_it_was(self, driver: SQLAlchemyDriver) -> None:
        (claim,) = lend(driver, new_job(data='{"a": 1}'))
        (before,) = driver.get([claim.id])
        driver.settle([settlement(claim)])
        assert (rows_of(driver, "jobs"), rows_of(driver, f"jobs_archive_{day_name(driver)}")) == (0, 1)
        (after,) = driver.get([claim.id])
        assert (after.status.value, after.reserved_by, before.data) == ("completed", "", '{"a": 1}')
        changed = {name for name in after.__struct_fields__ if getattr(after, name) != getattr(before, name)}
        assert changed == {"status", "processed_at", "reserved_by"}
        assert [job.id for job in driver.find(JobFilter(queue="q")).jobs] == [claim.id]
        assert (driver.stats("q").completed, driver.stats("q").total) == (1, 1)
        assert counted_is_true(driver)

    def test_each_column_of_a_job_is_kept_or_empty_by_then(self) -> None:
        set_apart = {"status", "processed_at"}
        empty = {"reserved_by", "moving_token", "moved_from"}
        empty |= {
            "result"
        }  # but for what the settling step has written there, which moves it by a statement of its own
        assert set(COLUMNS.split(", ")) == {column.name for column in PLAIN.jobs.columns} - set_apart - empty

    def test_settle_is_all_or_nothing_between_the_two_tables(self, driver: SQLAlchemyDriver) -> None:
        claims = lend(driver, new_job(), new_job())
        with driver.engine.begin() as conn:
            conn.execute(text("ALTER TABLE jobs_archive ADD CONSTRAINT broken CHECK (queue <> 'q')"))
        with pytest.raises(ProtojobsError, match="broken"):
            driver.settle([settlement(claim) for claim in claims])
        assert (driver.stats().processing, driver.stats().completed) == (2, 0)
        with driver.engine.begin() as conn:
            conn.execute(text("ALTER TABLE jobs_archive DROP CONSTRAINT broken"))
        assert [one.status for one in driver.settle([settlement(claim) for claim in claims])] == ["applied"] * 2
        assert (driver.stats().processing, driver.stats().completed) == (0, 2)

    def test_other_ends_stay_in_the_table_in_one_batch_with_completions(self, driver: SQLAlchemyDriver) -> None:
        claims = lend(driver, *[new_job() for _ in range(4)])
        verbs = (Verb.COMPLETE, Verb.FAIL, Verb.CANCEL, Verb.RETRY)
        answers = driver.settle([settlement(claim, verb) for claim, verb in zip(claims, verbs, strict=True)])
        assert [one.state and one.state.value for one in answers] == ["completed", "failed", "cancelled", "pending"]
        assert sorted(asked(driver, "SELECT status FROM jobs")) == ["cancelled", "failed", "pending"]
        assert asked(driver, "SELECT id FROM jobs_archive") == [claims[0].id]
        assert counted_is_true(driver)

    def test_a_late_result_is_told_what_became_of_its_job(self, driver: SQLAlchemyDriver) -> None:
        (claim,) = lend(driver)
        driver.settle([settlement(claim)])
        for verb, status in ((Verb.COMPLETE, "repeated"), (Verb.RETRY, "repeated")):
            (answer,) = driver.settle([settlement(claim, verb)])
            assert (answer.status, answer.state and answer.state.value) == (status, "completed")
        zombie = Settlement(id=claim.id, claim_seq=0, reserved_by="w", verb=Verb.COMPLETE)
        (answer,) = driver.settle([zombie])
        assert (answer.status, answer.state and answer.state.value) == ("stale", "completed")
        assert driver.stats().completed == 1

    def test_a_person_who_cancels_it_hears_that_it_has_finished(self, driver: SQLAlchemyDriver) -> None:
        (job_id,) = complete(driver)
        assert driver.cancel([job_id, fresh_id()]) == [CancelAnswer.FINISHED, CancelAnswer.MISSING]

    def test_complete_in_goes_with_the_caller_s_transaction(self, driver: SQLAlchemyDriver) -> None:
        (claim,) = lend(driver)
        with Session(driver.engine) as session:
            driver.complete_in(session, fence(claim))
            session.rollback()
        assert (rows_of(driver, "jobs"), driver.stats().completed) == (1, 0)
        with driver.begin() as session:
            driver.complete_in(session, fence(claim))
        assert (rows_of(driver, "jobs"), rows_of(driver, "jobs_archive")) == (0, 1)
        assert counted_is_true(driver)
        with pytest.raises(LeaseLost), driver.begin() as session:
            driver.complete_in(session, fence(claim))
        assert driver.settle([settlement(claim)])[0].status == "repeated"

    def test_a_day_s_counters_never_meet_those_of_the_next(self) -> None:
        assert max(lone_shard(fresh_id()) for _ in range(50_000)) < DAY_SHARDS


class TestPushing:
    @pytest.mark.parametrize("job_id", ["", "3f0c6c1e-6d43-4f0a-8f6c-0c2f1d9a7b55"], ids=["made-here", "of-any-kind"])
    def test_an_archived_id_is_a_duplicate_as_long_as_its_job_is_kept(
        self, driver: SQLAlchemyDriver, later: Later, job_id: str
    ) -> None:
        (claim,) = lend(driver, new_job(job_id=job_id))
        driver.settle([settlement(claim)])
        again = new_job(job_id=claim.id)
        other = new_job("other", data='{"is": "of another kind"}')
        for one in (driver, later(12 * DAY_S)):
            assert one.enqueue([again])[0].duplicate_of == claim.id
        answers = driver.enqueue([again, other])
        assert [one.duplicate_of for one in answers] == [claim.id, None]
        with driver.begin() as session:
            assert driver.enqueue_in(session, [again])[0].duplicate_of == claim.id
        assert (driver.stats("q").total, driver.stats("other").total) == (1, 1)
        driver.prune(completed_older_than=0.0)
        assert driver.enqueue([again])[0].duplicate_of is None

    @pytest.mark.parametrize("is_inside", [False, True], ids=["alone", "in-a-transaction"])
    def test_a_job_that_is_archived_in_the_middle_of_a_push_is_a_duplicate(
        self, driver: SQLAlchemyDriver, *, is_inside: bool
    ) -> None:
        """The push has looked into the archive, and waits for the row in `jobs`, when that moves."""
        (claim,) = lend(driver)

        def push() -> object:
            if not is_inside:
                return driver.enqueue([new_job(job_id=claim.id)])[0].duplicate_of
            with driver.begin() as session:
                return driver.enqueue_in(session, [new_job(job_id=claim.id)])[0].duplicate_of

        with driver.begin() as session:
            driver.complete_in(session, fence(claim))
            waiting = beside(push)
            answers = waiting.__enter__()
            wait_until_somebody_waits(driver)
        waiting.__exit__(None, None, None)
        assert answers == [claim.id]
        assert (rows_of(driver, "jobs"), driver.stats().total) == (0, 1)


class TestPruning:
    def test_a_day_goes_as_a_whole_never_early_and_at_most_a_day_late(
        self, driver: SQLAlchemyDriver, later: Later
    ) -> None:
        complete(driver, 5)
        complete(driver, 3, "other")
        today, rest_of_day = day_name(driver), to_midnight_s(driver)
        retention = {"completed_older_than": 2 * DAY_S, "limit": 2}
        assert later(rest_of_day + 2 * DAY_S - 60).prune(**retention).completed == 0
        assert today in days_of(driver)
        ahead = later(rest_of_day + 2 * DAY_S + 1)
        complete(ahead)
        pruned = ahead.prune(**retention)
        assert (pruned.completed, pruned.has_more) == (8, False)
        assert today not in days_of(driver)
        assert day_name(ahead, 1) in days_of(driver)
        assert (ahead.stats().completed, ahead.stats("other").total) == (1, 0)
        assert counted_is_true(driver)

    def test_an_age_that_a_person_gives_is_obeyed_to_the_second(self, driver: SQLAlchemyDriver, later: Later) -> None:
        complete(driver, 5)
        ahead = later(DAY_S * 1.5)
        complete(ahead, 4)
        soon = later(DAY_S * 1.5 + 3_000)
        rounds = [soon.prune(completed_older_than=2_000.0, limit=3) for _ in range(3)]
        assert sum(one.completed for one in rounds) == 9
        assert soon.stats().total == 0
        assert rows_of(driver, "jobs_archive") == 0
        assert counted_is_true(driver)

    def test_what_came_into_no_day_s_partition_is_deleted_one_by_one(
        self, driver: SQLAlchemyDriver, later: Later
    ) -> None:
        far = later(30 * DAY_S)
        complete(far, 5)
        assert rows_of(driver, "jobs_archive_rest") == 5
        far.prune(completed_older_than=DAY_S)
        assert day_name(far) not in days_of(driver)  # its jobs are elsewhere
        assert day_name(far, 1) in days_of(driver)
        farther = later(32 * DAY_S)
        rounds = [farther.prune(completed_older_than=DAY_S, limit=2) for _ in range(3)]
        assert [(one.completed, one.has_more) for one in rounds] == [(2, True), (2, True), (1, False)]
        assert counted_is_true(driver)
        farther.prune(completed_older_than=DAY_S)
        assert asked(driver, "SELECT count(*) FROM counters") == ["0"]  # nor is that day counted any more

    def test_a_day_s_counters_are_one_row_for_each_queue_when_it_is_over(
        self, driver: SQLAlchemyDriver, later: Later
    ) -> None:
        for queue in ("q", "q", "q", "other"):
            (claim,) = lend(driver, queue=queue)
            with driver.begin() as session:
                driver.complete_in(session, fence(claim))
        assert int(asked(driver, "SELECT count(*) FROM counters")[0]) == 4
        later(DAY_S).prune(completed_older_than=30 * DAY_S)
        assert asked(driver, "SELECT count FROM counters ORDER BY queue DESC") == ["3", "1"]
        assert (driver.stats("q").completed, driver.stats("other").completed) == (3, 1)

    def test_a_day_that_others_look_at_stays_until_they_have_gone_and_holds_nobody_up(
        self, driver: SQLAlchemyDriver, later: Later
    ) -> None:
        (job_id,) = complete(driver)
        ahead = later(3 * DAY_S)
        with driver.engine.begin() as conn:
            conn.execute(text("SELECT count(*) FROM jobs_archive"))
            pruned = ahead.prune(completed_older_than=DAY_S)
            assert pruned.completed == 0
            assert [job.id for job in ahead.get([job_id])] == [job_id]
            complete(ahead)
        assert ahead.prune(completed_older_than=DAY_S).completed == 1
        assert counted_is_true(driver)

    def test_a_role_that_may_not_drop_tables_deletes_row_by_row_and_says_so(
        self, driver: SQLAlchemyDriver, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        complete(driver, 5)
        role = f"worker_{fresh_id().replace('-', '')}"
        with driver.engine.begin() as conn:
            conn.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'"))
            conn.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
        limited = SQLAlchemyDriver(
            driver.engine.url.set(username=role, password="secret"), archive="daily", time_offset=TO_NOON_S + 3 * DAY_S
        )
        try:
            complete(limited)
            pruned = [limited.prune(completed_older_than=DAY_S, limit=3) for _ in range(2)]
            assert [one.completed for one in pruned] == [3, 2]
            assert "own jobs_archive" in caplog.text
            assert limited.stats().completed == 1
            assert counted_is_true(driver)
        finally:
            limited.close()
            with driver.engine.begin() as conn:
                conn.execute(text(f"DROP OWNED BY {role}"))
                conn.execute(text(f"DROP ROLE {role}"))

    def test_clear_takes_a_queue_s_archived_jobs_in_bounded_rounds(self, driver: SQLAlchemyDriver) -> None:
        complete(driver, 5)
        complete(driver, 2, "other")
        driver.enqueue([new_job(), new_job()])
        rounds = [driver.clear("q", limit=3) for _ in range(3)]
        assert [one.total for one in rounds] == [3, 3, 1]
        assert [one.has_more for one in rounds] == [True, True, False]
        assert (driver.stats("q").total, driver.stats("other").completed) == (0, 2)
        assert counted_is_true(driver)


class TestSwitching:
    def test_on_what_completed_before_is_found_and_goes_by_its_age(
        self, driver: SQLAlchemyDriver, plain: Callable[[], SQLAlchemyDriver], later: Later
    ) -> None:
        old, new = complete(plain()), complete(driver)
        assert (rows_of(driver, "jobs"), rows_of(driver, "jobs_archive")) == (1, 1)
        assert {job.id for job in driver.find(JobFilter(queue="q")).jobs} == {*old, *new}
        pruned = later(3 * DAY_S).prune(completed_older_than=DAY_S)
        assert (pruned.completed, driver.stats().total) == (2, 0)

    def test_off_the_archive_is_read_counted_and_pruned(
        self, driver: SQLAlchemyDriver, plain: Callable[[], SQLAlchemyDriver], url: str
    ) -> None:
        (claim,) = lend(driver)
        driver.settle([settlement(claim)])
        off = plain()
        assert [job.id for job in off.get([claim.id])] == [claim.id]
        assert off.settle([settlement(claim)])[0].status == "repeated"
        assert off.enqueue([new_job(job_id=claim.id)])[0].duplicate_of == claim.id
        complete(off)
        assert (rows_of(driver, "jobs"), off.stats().completed) == (1, 2)
        off.time_offset += 5 * DAY_S
        assert off.prune(completed_older_than=DAY_S).completed == 2
        assert day_name(driver) not in days_of(driver)
        assert day_name(driver, 5) not in days_of(driver)  # no more are made
        assert counted_is_true(driver)


class TestPlans:
    def test_the_archive_is_searched_by_index_and_nothing_is_sorted(self, driver: SQLAlchemyDriver) -> None:
        (job_id,) = complete(driver)
        complete(driver, 500)
        late = Settlement(id=job_id, claim_seq=9, reserved_by="w", verb=Verb.RETRY)
        asks = {
            "get": lambda: driver.get([job_id]),
            "settle": lambda: driver.settle([late]),
            "find": lambda: driver.find(JobFilter(), limit=20),
        }
        for name, ask in asks.items():
            found = "\n".join(plans_of(ask))
            assert found.count("jobs_archive") > 1, name
            assert [line for line in found.splitlines() if "Seq Scan on jobs" in line or "Sort  (" in line] == [], name

    def test_a_turn_puts_into_the_archive_and_looks_at_nothing_there(self, driver: SQLAlchemyDriver) -> None:
        (claim,) = lend(driver)
        turn = partial(driver.settle_and_claim, claim.reserved_by, [settlement(claim)], ["q"], slots=5, limit=5)
        (plan,) = plans_of(turn)
        assert [
            line.split("->")[-1].split("  (")[0].strip() for line in plan.splitlines() if "jobs_archive" in line
        ] == ["Insert on jobs_archive"]
        assert plan.count("Index Scan using jobs_pkey") == 1
        assert "Seq Scan on jobs" not in plan


def plans_of(action: Callable[[], object]) -> list[str]:
    """The plans of the statements of `action` that have to do with jobs."""
    plans: list[str] = []
    execute: Callable[..., psycopg.Cursor[Any]] = psycopg.Cursor.execute

    def explained(self: object, query: object, values: object = None, **options: object) -> object:
        if " jobs" in str(query):
            plans.append("\n".join(str(row[0]) for row in execute(self, f"EXPLAIN {query}", values).fetchall()))
        return execute(self, query, values, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", explained)
        action()
    return plans
