"""What many jobs at once cost each database, counted in statements, and that none is lost or doubled by the haste."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pymysql
import pytest
from msgspec.structs import asdict, replace
from sqlalchemy import event

from protojobs.entropy import fresh_id
from protojobs.port.records import BATCH_JOBS_MAX, Enqueued, NewJob
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.sqlite import dialect
from protojobs_sqlalchemy.verbs.inserting import check_new

# BEGIN and COMMIT, and what the dialect needs besides to store a thousand jobs.
STATEMENTS_MAX = {
    "sqlite": 13,  # ten INSERTs of a hundred, PRAGMA synchronous
    "postgresql": 1,
    "mariadb": 1,
}

ONE_AFTER_ANOTHER = {"sqlite": 3, "postgresql": 1, "mariadb": 1}  # SQLite's are BEGIN, INSERT and COMMIT


@pytest.fixture
def driver(store_url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(store_url)
    driver.setup()
    yield driver
    driver.close()


def jobs_of_one_kind(count: int) -> list[NewJob]:
    return [
        NewJob(id=fresh_id(), queue="q", job_name="n", job_class="m.C", data=f'{{"n":{n},"s":"\\\\ \\" é ☃ {{}},\'"}}')
        for n in range(count)
    ]


def jobs_of_many_kinds(count: int) -> list[NewJob]:
    """Each field differs somewhere, and each has something that a text of an array must quote."""
    moment = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    return [
        replace(
            job,
            queue=f'q "{n % 3}", \\',
            job_name=f"n{{{n % 4}}}",
            job_class="null" if n % 2 else "m.C",
            priority=n % 5 - 2,
            max_retries=n % 2,
            retry_delay=n / 8,
            retry_policy='{"factor":3}' if n % 7 == 0 else None,
            timeout=n / 4,
            delay=n % 3 * 1_000.5,
            available_at=moment if n % 11 == 0 else None,
            meta='{"trace":"a, \\"b\\""}' if n % 2 else None,
        )
        for n, job in enumerate(jobs_of_one_kind(count))
    ]


class TestManyAtOnce:
    @pytest.mark.parametrize("kinds", [jobs_of_one_kind, jobs_of_many_kinds])
    def test_a_thousand_take_few_statements(
        self, driver: SQLAlchemyDriver, kinds: Callable[[int], list[NewJob]]
    ) -> None:
        driver.enqueue(kinds(2))
        with counted(driver) as asked:
            driver.enqueue(kinds(BATCH_JOBS_MAX))
        assert driver.stats().total == BATCH_JOBS_MAX + 2
        assert 1 <= len(asked) <= STATEMENTS_MAX[driver.engine.dialect.name], [statement[:80] for statement in asked]

    @pytest.mark.parametrize("kinds", [jobs_of_one_kind, jobs_of_many_kinds])
    @pytest.mark.parametrize("count", [1, 2, 230])
    def test_each_arrives_with_every_field_as_it_was_sent(
        self, driver: SQLAlchemyDriver, kinds: Callable[[int], list[NewJob]], count: int
    ) -> None:
        jobs = kinds(count)
        assert driver.enqueue(jobs) == [Enqueued(id=job.id) for job in jobs]
        stored = {record.id: record for record in driver.get([job.id for job in jobs])}
        sent_as = set(asdict(jobs[0])) & set(asdict(stored[jobs[0].id])) - {"available_at"}
        for job in jobs:
            record = stored[job.id]
            assert {name: getattr(record, name) for name in sent_as} == {name: getattr(job, name) for name in sent_as}
            waits_s = (record.available_at - record.created_at).total_seconds()
            assert record.available_at == job.available_at or abs(waits_s - job.delay) < 1e-5

    @pytest.mark.parametrize("kinds", [jobs_of_one_kind, jobs_of_many_kinds])
    @pytest.mark.parametrize(
        "known",
        [slice(None, None, 3), slice(0, 100), slice(229, 230), slice(None)],
        ids=["some", "first", "last", "all"],
    )
    def test_those_that_are_there_already_are_told_apart_wherever_they_stand(
        self, driver: SQLAlchemyDriver, kinds: Callable[[int], list[NewJob]], known: slice
    ) -> None:
        jobs = kinds(230)
        driver.enqueue(jobs[known])
        there = {job.id for job in jobs[known]}
        answers = driver.enqueue([*jobs, jobs[0]])  # one stands there twice
        assert [answer.duplicate_of for answer in answers[:-1]] == [job.id if job.id in there else None for job in jobs]
        assert answers[-1].duplicate_of == jobs[0].id
        assert driver.stats().total == len(jobs)

    def test_what_is_too_much_for_a_packet_is_sent_in_several_and_stored_together(
        self, make_store_url: Callable[[str], str]
    ) -> None:
        driver = SQLAlchemyDriver(make_store_url("mariadb"))
        driver.setup()
        large = f'"{"x" * 800_000}"'
        jobs = [replace(job, data=large) for job in jobs_of_one_kind(5)]
        with counted(driver) as asked:
            assert driver.enqueue(jobs) == [Enqueued(id=job.id) for job in jobs]
        assert max(map(len, asked)) < 1_000_000
        verbs = [re.findall("START|SAVEPOINT|INSERT|COMMIT", statement)[0] for statement in asked]
        assert verbs == ["START", "SAVEPOINT", *["INSERT"] * 5, "COMMIT"]
        answers = driver.enqueue([*jobs_of_one_kind(1), *jobs])
        assert [answer.duplicate_of for answer in answers] == [None, *[job.id for job in jobs]]
        assert {record.data for record in driver.get([job.id for job in jobs])} == {large}
        driver.close()


class TestOneAtATime:
    def test_a_push_like_the_last_one_sends_its_statements_and_nothing_else(self, driver: SQLAlchemyDriver) -> None:
        with counted(driver) as asked:
            driver.enqueue(jobs_of_one_kind(1))
            asked.clear()
            driver.enqueue(jobs_of_one_kind(1))
        assert len(asked) == ONE_AFTER_ANOTHER[driver.engine.dialect.name], [statement[:80] for statement in asked]

    def test_a_file_is_looked_at_once_for_many_pushes(
        self, make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[str] = []
        driver = SQLAlchemyDriver(make_store_url("sqlite"))
        driver.setup()

        def look(path: str, _names: object) -> str:
            looked.append(path)
            return "sqlite/test"

        monkeypatch.setattr(dialect, "_address", look)
        monkeypatch.setattr(dialect, "_ADDRESS_S", 600.0)
        for _ in range(5):
            driver.enqueue(jobs_of_one_kind(1))
        driver.close()
        assert len(looked) == 1


@contextmanager
def counted(driver: SQLAlchemyDriver) -> Iterator[list[str]]:
    """The statements that reach the database; those that wake workers after the commit apart."""
    seen: list[str] = []

    def trace(raw: sqlite3.Connection, _record: object) -> None:
        raw.set_trace_callback(seen.append)

    with pytest.MonkeyPatch.context() as patch:
        if driver.engine.dialect.name == "sqlite":
            driver.close()  # its connections are made anew, and tell
            event.listen(driver._connections.engine, "connect", trace)
        patch.setattr(psycopg.Cursor, "execute", noting(psycopg.Cursor.execute, 0, seen))
        patch.setattr(psycopg.Cursor, "executemany", noting(psycopg.Cursor.executemany, 0, seen))
        command = pymysql.connections.Connection._execute_command  # pyright: ignore[reportPrivateUsage]
        patch.setattr(pymysql.connections.Connection, "_execute_command", noting(command, 1, seen))
        driver.get([])  # connects
        seen.clear()
        yield seen
    if driver.engine.dialect.name == "sqlite":
        event.remove(driver._connections.engine, "connect", trace)
        driver.close()
    # A notification may be sent along with the jobs, where none was sent just before.
    seen[:] = [statement for statement in seen if "pg_notify" not in statement or "INSERT INTO" in statement]


def noting(method: Callable[..., object], place: int, seen: list[str]) -> Callable[..., object]:
    def noted(self: object, *arguments: object, **options: object) -> object:
        assert method.__name__ != "executemany", "it sends a statement for each row"
        seen.append(str(arguments[place]))
        return method(self, *arguments, **options)

    return noted


def test_a_payload_with_a_control_character_as_it_is_comes_back(driver: SQLAlchemyDriver) -> None:
    """No JSON has one, and payloads of one kind are put into one text with such a character between them."""
    jobs = [replace(job, data=f'"{n}\x1f","\\{{"') for n, job in enumerate(jobs_of_one_kind(3))]
    driver.enqueue(jobs)
    stored = {job.id: job.data for job in driver.get([job.id for job in jobs])}
    assert stored == {job.id: job.data for job in jobs}


def test_none_at_all_is_nothing_to_refuse() -> None:
    check_new([])
