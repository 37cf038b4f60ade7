"""What one turn of a worker costs the database: statements and round trips, counted. They do not grow with the jobs."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pytest
from msgspec import structs
from pymysql.connections import Connection as Raw
from sqlalchemy import Connection, create_engine

from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.records import ClaimReply, NewJob, Settlement, SettleStatus, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode
from protojobs_sqlalchemy.mariadb import turn as mariadb_turn

# BEGIN, the worker's row, completions, their count, the lanes, the due jobs, lending, COMMIT; and how much is synced.
SQLITE_STATEMENTS_MAX = 9
# One packet that settles, locks and reads, and one that writes and commits.
MARIADB_TRIPS_MAX = 2
# The same, and between them: lock, write, count, look for lanes and due jobs.
MARIADB_MIXED_TRIPS_MAX = 8
BATCH = 50


def new_job(queue: str = "q", *, priority: int = 0, max_retries: int = 3) -> NewJob:
    data = '{"a": "ä\\n"}'
    return NewJob(
        id=fresh_id(), queue=queue, job_name="n", job_class="c", data=data, priority=priority, max_retries=max_retries
    )


class Working:
    """A worker that completes all that it has, turn by turn."""

    def __init__(self, driver: SQLAlchemyDriver, queues: Sequence[str] = ("q",)) -> None:
        self.driver = driver
        self.queues = queues
        self.worker = fresh_id()
        self.done: list[Settlement] = []
        driver.register(WorkerInfo(id=self.worker, host="h", pid=1, queues=tuple(queues), concurrency=1, lease_s=60))

    def turn(self, limit: int = BATCH) -> ClaimReply:
        reply = self.driver.settle_and_claim(self.worker, self.done, self.queues, slots=limit, limit=limit)
        assert [answer.status for answer in reply.settled] == [SettleStatus.APPLIED] * len(self.done)
        self.done = [
            Settlement(id=job.id, claim_seq=job.claim_seq, reserved_by=job.reserved_by, verb=Verb.COMPLETE)
            for job in reply.claimed
        ]
        return reply


class TestOnSQLite:
    @pytest.fixture
    def driver(self, sqlite_url: str) -> Iterator[SQLAlchemyDriver]:
        driver = SQLAlchemyDriver(sqlite_url)
        driver.setup()
        yield driver
        driver.close()

    @pytest.mark.parametrize("batch", [1, BATCH])
    def test_a_turn_is_a_handful_of_statements(
        self, driver: SQLAlchemyDriver, batch: int, statements: list[str]
    ) -> None:
        driver.enqueue([new_job() for _ in range(3 * batch)])
        working = Working(driver)
        working.turn(batch)
        statements.clear()
        assert len(working.turn(batch).claimed) == batch
        assert len(statements) <= SQLITE_STATEMENTS_MAX, statements

    @pytest.fixture
    def statements(self, driver: SQLAlchemyDriver) -> list[str]:
        seen: list[str] = []
        begin = driver._dialect.begin  # pyright: ignore[reportPrivateUsage]

        def traced(conn: Connection, mode: Mode) -> None:
            raw = conn.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.set_trace_callback(seen.append)
            begin(conn, mode)

        driver._dialect.begin = traced  # type: ignore[method-assign]
        return seen


class TestOnMariaDB:
    @pytest.fixture
    def url(self, make_store_url: Callable[[str], str]) -> str:
        return make_store_url("mariadb")

    @pytest.fixture
    def driver(self, url: str) -> Iterator[SQLAlchemyDriver]:
        driver = SQLAlchemyDriver(url)
        driver.setup()
        yield driver
        driver.close()

    @pytest.fixture
    def packets(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        query = Raw.query

        def counted(raw: object, sql: str, *rest: object) -> object:
            seen.append(sql)
            return query(raw, sql, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(Raw, "query", counted)
        return seen

    @pytest.mark.parametrize("batch", [1, BATCH])
    def test_a_turn_is_two_round_trips(self, driver: SQLAlchemyDriver, packets: list[str], batch: int) -> None:
        driver.enqueue([new_job() for _ in range(3 * batch)])
        working = Working(driver)
        working.turn(batch)  # which finds the lanes
        packets.clear()
        assert len(working.turn(batch).claimed) == batch
        assert len(packets) <= MARIADB_TRIPS_MAX, packets

    @pytest.mark.parametrize("batch", [2, BATCH])
    def test_what_has_failed_is_settled_in_as_many_trips_however_much_it_is(
        self, driver: SQLAlchemyDriver, packets: list[str], batch: int
    ) -> None:
        driver.enqueue([new_job() for _ in range(2 * batch)])
        working = Working(driver)
        working.turn(batch)
        verbs = (Verb.RETRY, Verb.FAIL)
        working.done = [
            structs.replace(done, verb=verbs[n % 2], delay=60.0 + n, error="50% of 'it'; \\ and ä", fingerprint="f")
            for n, done in enumerate(working.done)
        ]
        settled = working.done
        packets.clear()
        working.turn(batch)
        assert len(packets) <= MARIADB_MIXED_TRIPS_MAX, packets
        failed = driver.failed(limit=100).jobs
        assert [job.exception for job in failed] == ["50% of 'it'; \\ and ä"] * (batch // 2)
        states = [(job.status, job.reserved_by) for job in driver.get([done.id for done in settled])]
        assert Counter(states) == {(JobState.PENDING, ""): batch // 2, (JobState.FAILED, ""): batch // 2}

    def test_a_claim_reads_no_more_payload_than_it_may_lend(
        self, driver: SQLAlchemyDriver, packets: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mariadb_turn, "BATCH_BYTES_MAX", 100_000)
        large, small = json.dumps("ä" * 15_000, ensure_ascii=False), json.dumps("s")
        jobs = [structs.replace(new_job(), data=large if n % 2 else small) for n in range(40)]
        driver.enqueue(jobs)
        working = Working(driver)
        working.turn(1)
        packets.clear()
        received = 0
        read = Raw._read_bytes  # type: ignore[attr-defined]

        def counted(raw: object, number: int) -> bytes:
            nonlocal received
            received += number
            return cast("bytes", read(raw, number))

        monkeypatch.setattr(Raw, "_read_bytes", counted)
        lent = working.turn(40).claimed
        assert [(job.id, job.data) for job in lent] == [(job.id, job.data) for job in jobs[1:7]]
        assert received < 120_000
        assert len(packets) <= MARIADB_TRIPS_MAX, packets

    def test_lanes_are_found_by_a_trip_for_each_level_of_priority(
        self, driver: SQLAlchemyDriver, packets: list[str]
    ) -> None:
        queues = [f"q{number}" for number in range(30)]
        driver.enqueue([new_job(queue, priority=priority) for queue in queues for priority in (5, 0)])
        working = Working(driver, queues)
        packets.clear()
        working.turn(1)
        levels = 2
        assert len(packets) <= levels + 1 + MARIADB_TRIPS_MAX, packets  # and one that finds no third

    def test_a_turn_on_an_application_s_engine_reads_what_is_committed(
        self, driver: SQLAlchemyDriver, url: str, packets: list[str]
    ) -> None:
        driver.enqueue([new_job() for _ in range(3)])
        engine = create_engine(url.replace("mariadb://", "mariadb+pymysql://"))
        working = Working(SQLAlchemyDriver(engine))
        packets.clear()
        working.turn(1)
        turn = [sql for sql in packets if "BEGIN NOT ATOMIC" in sql]
        assert len(turn) == MARIADB_TRIPS_MAX
        assert "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; " in turn[0]
        engine.dispose()


class TestOnMariaDBAndAsOnMySQL:
    """A turn in two packets, and the same one statement by statement."""

    @pytest.fixture(params=["blocks", "statements"])
    def driver(
        self, request: pytest.FixtureRequest, make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SQLAlchemyDriver]:
        if request.param == "statements":
            monkeypatch.setattr(mariadb_turn, "takes_blocks", lambda _: False)
        driver = SQLAlchemyDriver(make_store_url("mariadb"))
        driver.setup()
        yield driver
        driver.close()

    def test_jobs_are_lent_in_order_as_they_are_and_settled_once(self, driver: SQLAlchemyDriver) -> None:
        jobs = [new_job("a"), new_job("a", priority=5), new_job("b"), new_job("a")]
        driver.enqueue(jobs)
        working = Working(driver, ["b", "a"])
        claimed = list(working.turn(3).claimed)
        assert [job.id for job in claimed] == [jobs[2].id, jobs[1].id, jobs[0].id]
        claimed += working.turn(3).claimed
        assert [job.id for job in claimed[3:]] == [jobs[3].id]
        (stored,) = driver.get([jobs[3].id])
        lent = claimed[3]
        assert (lent.data, lent.retry_delay, lent.timeout) == (stored.data, stored.retry_delay, stored.timeout)
        assert (lent.available_at, lent.reserved_at) == (stored.available_at, stored.reserved_at)
        assert (lent.attempts, lent.claim_seq, lent.is_cancel_requested) == (1, 1, False)
        working.turn(3)
        assert driver.stats().completed == 4

    def test_a_settlement_that_came_too_late_spoils_no_other(self, driver: SQLAlchemyDriver) -> None:
        driver.enqueue([new_job() for _ in range(3)])
        working = Working(driver)
        working.turn(3)
        first, second, third = working.done
        driver.settle([second])
        late = Settlement(id=third.id, claim_seq=third.claim_seq + 1, reserved_by=third.reserved_by, verb=Verb.COMPLETE)
        answers = driver.settle([first, second, late])
        assert [a.status for a in answers] == [SettleStatus.APPLIED, SettleStatus.REPEATED, SettleStatus.STALE]
        assert driver.stats().completed == 2

    def test_claims_of_several_numbers_and_holders_are_settled_together(self, driver: SQLAlchemyDriver) -> None:
        driver.enqueue([new_job("a"), new_job("b"), new_job("b")])
        one, other = Working(driver, ["a", "b"]), Working(driver, ["b"])
        one.turn(2)
        (again,) = [s for s in one.done if driver.get([s.id])[0].queue == "b"]
        back = Settlement(id=again.id, claim_seq=again.claim_seq, reserved_by=again.reserved_by, verb=Verb.RELEASE)
        driver.settle([back])
        other.turn(2)
        done = [s for s in one.done if s is not again] + other.done
        assert {(s.claim_seq, s.reserved_by) for s in done} == {(1, one.worker), (1, other.worker), (2, other.worker)}
        assert [answer.status for answer in driver.settle(done)] == [SettleStatus.APPLIED] * 3
        assert (driver.stats("a").completed, driver.stats("b").completed) == (1, 2)


def test_a_job_on_its_last_attempt_that_a_prefetch_passed_over_is_the_first_for_a_free_slot(store_url: str) -> None:
    """Else it would wait for as long as others come after it."""
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    last = new_job(max_retries=0)
    for batch in ([last], [new_job() for _ in range(BATCH)]):
        driver.enqueue(batch)
    working = Working(driver)
    for _ in range(2):
        lent = driver.claim(working.worker, ["q"], slots=0, limit=10)
        assert len(lent) == 10
        assert last.id not in {job.id for job in lent}
    assert [job.id for job in driver.claim(working.worker, ["q"], slots=1, limit=1)] == [last.id]
    driver.close()
