"""Looking costs the same however many jobs there are, and finds the same whichever way it goes."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from protojobs import JobQueue
from protojobs.entropy import fresh_id
from protojobs.errors import OptionInvalid
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.records import JobFilter
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Use
from protojobs_sqlalchemy.inspecting import finding
from protojobs_sqlalchemy.mariadb import live
from protojobs_sqlalchemy.tables.tables import PLAIN as tables
from protojobs_sqlalchemy.verbs import administration
from protojobs_sqlalchemy.verbs.counting import count

FEW, MANY = 3_000, 12_000
QUEUES = 20  # q00 ..., and `short` with ten pending jobs, the oldest of all
GROUPS = 7
NOTHING_KEPT = {"completed_job_retention": 0, "failed_job_retention": 0}  # but what may be pushed again
STATEMENTS_MAX = 6  # for a list of queues; the port's users build pages of a dozen
Verb = Callable[[SQLAlchemyDriver], object]

VERBS: dict[str, Verb] = {
    "queues": lambda driver: driver.queues(limit=5, counted_max=20),
    "queues behind one": lambda driver: driver.queues(after="q15", limit=50, counted_max=20),
    "stats": lambda driver: driver.stats(counted_max=50),
    "stats of a queue": lambda driver: driver.stats("q01", counted_max=20),
    "groups": lambda driver: driver.failure_groups(counted_max=20),
    "a group": lambda driver: driver.failed_alike("f3", limit=10),
    "failed by the ids of jobs": lambda driver: driver.get_failed(
        [failure.job_id for failure in driver.failed(limit=5).jobs]
    ),
    "what a worker holds": lambda driver: driver.held("w"),
    "workers": lambda driver: driver.workers(),
    "prune where nothing is old enough": lambda driver: JobQueue(driver, NOTHING_KEPT).prune(),
    "failed of a queue": lambda driver: driver.failed(queue="q04", limit=10),
}
FINDS = {
    "cancelled": JobFilter(states=(JobState.CANCELLED,)),
    "cancelled in a queue": JobFilter(states=(JobState.CANCELLED,), queue="q00"),
    "processing": JobFilter(states=(JobState.PROCESSING,)),
    "processing or cancelled": JobFilter(states=(JobState.PROCESSING, JobState.CANCELLED)),
    "moving": JobFilter(states=(JobState.MOVING,)),
    "pending in a short queue": JobFilter(states=(JobState.PENDING,), queue="short"),
    "completed in a queue without": JobFilter(states=(JobState.COMPLETED,), queue="short"),
    "failed in a queue without": JobFilter(states=(JobState.FAILED,), queue="short"),
    "all of a short queue": JobFilter(queue="short"),
}


def finder(which: JobFilter) -> Verb:
    return lambda driver: driver.find(which, chars_max=10)


ALL = VERBS | {f"find {name}": finder(which) for name, which in FINDS.items()}


def job_row(now: datetime, queue: str, status: str, **other: object) -> dict[str, object]:
    """A row of `jobs`; those of the tables that have none of its columns take what they know."""
    is_finished = status in FINISHED
    return {
        "id": fresh_id(),
        "queue": queue,
        "job_class": "c",
        "job_name": "n",
        "data": "{}",
        "attempts": 1,
        "max_retries": 3,
        "timeout": 60.0,
        "status": status,
        "created_at": now,
        "available_at": now - timedelta(seconds=5),
        "processed_at": now if is_finished else None,
        "priority": 0,
        "retry_delay": 60.0,
        "claim_seq": 1,
        "crashes": 0,
        "returns": 0,
        "reclaims": 0,
        "reserved_by": "w" if status == "processing" else None,
        "moving_token": "t" if status == "moving" else None,
    } | other


def fill_rare(driver: SQLAlchemyDriver) -> None:
    """The oldest jobs: a few of each of the states and queues that are looked for."""
    now = driver.now()
    rows = [job_row(now, "q00", "cancelled") for _ in range(3)]
    rows += [job_row(now, "q00", "processing") for _ in range(5)]
    rows += [job_row(now, "short", "pending", available_at=now - timedelta(days=1)) for _ in range(10)]
    store(driver, rows)


def fill(driver: SQLAlchemyDriver, jobs: int) -> None:
    """So many pending, completed and failed jobs."""
    now = driver.now()
    rows: list[dict[str, object]] = []
    for n in range(jobs):
        status = ("pending", "pending", "pending", "completed", "failed")[n % 7 % 5]
        rows.append(job_row(now, f"q{n % QUEUES:02}", status, priority=n % 3))
    store(driver, rows)


def store(driver: SQLAlchemyDriver, rows: list[dict[str, object]]) -> None:
    """Insert rows of `jobs` with what belongs to them, and let the planner look."""
    failed = [row for row in rows if row["status"] == "failed"]
    failures = [
        {name: row[name] for name in ("id", "queue", "job_class", "job_name", "data", "attempts")}
        | {"job_id": row["id"], "exception": "e", "failed_at": row["processed_at"], "fingerprint": f"f{n % GROUPS}"}
        for n, row in enumerate(failed)
    ]
    counts = Counter((row["queue"], row["status"]) for row in rows if row["status"] in FINISHED)
    with driver._connections.engine.begin() as conn:
        conn.execute(insert(tables.jobs), rows)
        if failures:
            conn.execute(insert(tables.failed_jobs), failures)
        count(conn, driver._dialect, {(str(queue), str(status)): number for (queue, status), number in counts.items()})
    analyze(driver)


def analyze(driver: SQLAlchemyDriver) -> None:
    with driver._connections.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        is_mysql = conn.dialect.name in ("mariadb", "mysql")
        for table in ("jobs", "failed_jobs", "rollups") if is_mysql else ("",):
            conn.execute(text(f"ANALYZE TABLE {table}" if table else "ANALYZE"))


@contextmanager
def statements(driver: SQLAlchemyDriver) -> Iterator[list[tuple[str, Any]]]:
    """What the driver asks by SQLAlchemy, with its values; filled while the block runs."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        seen.append((statement, values))

    event.listen(driver._connections.engine, "before_cursor_execute", note)
    yield seen
    event.remove(driver._connections.engine, "before_cursor_execute", note)


def cost(driver: SQLAlchemyDriver, verb: Callable[[SQLAlchemyDriver], object]) -> int:
    """Steps of SQLite's machine in hundreds, or rows that MariaDB's handlers read, for a verb of one read step."""
    verb(driver)  # opens the connection, which the next call takes again, and fills caches
    return steps(driver, verb) if driver._connections.engine.dialect.name == "sqlite" else rows_read(driver, verb)


def steps(driver: SQLAlchemyDriver, verb: Callable[[SQLAlchemyDriver], object]) -> int:
    count = 0

    def one_more() -> int:
        nonlocal count
        count += 1
        return 0

    ((conn, _),) = driver._connections._pools[Use.CALL]._idle  # pyright: ignore[reportPrivateUsage]
    raw = conn.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.set_progress_handler(one_more, 100)
    verb(driver)
    raw.set_progress_handler(None, 0)
    return count


def rows_read(driver: SQLAlchemyDriver, verb: Callable[[SQLAlchemyDriver], object]) -> int:
    ((conn, _),) = driver._connections._pools[Use.CALL]._idle  # pyright: ignore[reportPrivateUsage]
    reads = text("SHOW SESSION STATUS LIKE 'Handler_read%'")

    def so_far() -> int:
        return sum(int(row[1]) for row in conn.execute(reads))

    before = so_far()
    of_looking = so_far() - before
    verb(driver)
    return so_far() - before - 2 * of_looking


@contextmanager
def made(url: str) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(url)
    driver.setup()
    yield driver
    driver.close()


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_what_a_verb_reads_does_not_grow_with_the_jobs(make_store_url: Callable[[str], str], kind: str) -> None:
    with made(make_store_url(kind)) as driver:
        fill_rare(driver)
        fill(driver, FEW)
        before = {name: cost(driver, verb) for name, verb in ALL.items()}
        fill(driver, MANY - FEW)
        after = {name: cost(driver, verb) for name, verb in ALL.items()}
    grown = {name: (before[name], after[name]) for name in ALL if after[name] > 1.5 * before[name] + 10}
    assert grown == {}
    assert min(before["queues"], before["stats"], before["groups"]) > 0


def test_on_postgresql_every_verb_walks_an_index(make_store_url: Callable[[str], str]) -> None:
    with made(make_store_url("postgresql")) as driver:
        fill_rare(driver)
        fill(driver, FEW)
        plans: dict[str, str] = {}
        for name, verb in ALL.items():
            with statements(driver) as asked:
                verb(driver)
            with driver._connections.engine.connect() as conn:
                for statement, values in asked:
                    if "FROM" in statement and not statement.startswith("EXPLAIN"):
                        rows = conn.exec_driver_sql(f"EXPLAIN {statement}", values).scalars()
                        plans[f"{name}: {statement}"] = "\n".join(rows)
    assert len(plans) > len(ALL)
    read = {line.strip() for plan in plans.values() for line in plan.splitlines() if "Seq Scan" in line}
    assert {line.split(" on ")[1].split()[0] for line in read} == {"counters"}  # all of it, to add up its few rows
    of_queues = next(plan for name, plan in plans.items() if name.startswith("queues: ") and "WITH RECURSIVE" in name)
    assert of_queues.count(" using jobs_ready") == of_queues.count(" on jobs")
    held = next(plan for name, plan in plans.items() if name.startswith("what a worker holds"))
    assert " using jobs_processing" in held
    groups = next(plan for name, plan in plans.items() if "WITH RECURSIVE alike" in name)
    assert groups.count(" using failed_jobs_alike") == groups.count(" on failed_jobs")


def test_clearing_a_queue_looks_at_so_many_jobs_of_others_at_once(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administration, "WALKED_MAX", 20)
    for kind in ("sqlite", "postgresql", "mariadb"):
        with made(make_store_url(kind)) as driver:
            now = driver.now()
            moments = [now - timedelta(seconds=500 - n) for n in range(200)]
            rows = [
                job_row(now, "small" if n in (55, 56, 155) else "large", "cancelled", processed_at=ended_at)
                for n, ended_at in enumerate(moments)
            ]
            store(driver, [*rows, job_row(now, "small", "failed"), job_row(now, "small", "pending")])
            rounds = [driver.clear("small")]
            while rounds[-1].has_more:
                rounds.append(driver.clear("small"))
            assert [done.total for done in rounds] == [2, 0, 2, 0, 0, 0, 0, 1], kind
            assert not rounds[-1].has_more
            assert driver.stats("small").total == 0
            assert driver.stats("large").total == 197
            assert driver.clear("large", limit=5).cancelled == 5
            assert JobQueue(driver, NOTHING_KEPT).clear("large").cancelled == 192


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_pending_jobs_of_a_queue_are_found_before_many_newer_ones_of_others(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(finding, "EXAMINED_MAX", 10)
    with made(make_store_url(kind)) as driver:
        now = driver.now()
        waiting = [job_row(now, "waiting", "pending") for _ in range(30)]
        store(driver, waiting)
        store(driver, [job_row(now, "other", "completed") for _ in range(40)])
        which = JobFilter(queue="waiting", states=(JobState.PENDING,))
        page = driver.find(which, limit=20)
        assert [job.id for job in page.jobs] == sorted((str(row["id"]) for row in waiting), reverse=True)[:20]
        rest = driver.find(which, limit=20, cursor=page.cursor)
        assert (len(rest.jobs), rest.cursor) == (10, None)


@pytest.mark.parametrize("counted_max", [5, 100_000])
def test_a_list_of_queues_is_a_handful_of_statements(store_url: str, counted_max: int) -> None:
    with made(store_url) as driver:
        now = driver.now()
        store(driver, [job_row(now, f"q{n % 100:03}", "pending", priority=n % 2) for n in range(1_000)])
        with statements(driver) as asked:
            found = driver.queues(counted_max=counted_max)
    assert [queue.name for queue in found] == [f"q{n:03}" for n in range(100)]
    assert {queue.stats.is_estimate for queue in found} == {counted_max < 10}
    assert len(asked) <= STATEMENTS_MAX


def test_mysql_counts_step_by_step_what_mariadb_counts_at_once(
    make_store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with made(make_store_url("mariadb")) as driver:
        fill_rare(driver)
        fill(driver, 300)
        at_once = driver.queues(after="q03", limit=7, counted_max=10)
        monkeypatch.setattr(live, "takes_blocks", lambda _: False)
        step_by_step = driver.queues(after="q03", limit=7, counted_max=10)
    assert [queue.name for queue in at_once] == [f"q{n:02}" for n in range(4, 11)]
    assert [(q.name, q.stats) for q in step_by_step] == [(q.name, q.stats) for q in at_once]


@pytest.mark.parametrize("examined_max", [7, 5_000])
def test_the_same_is_found_by_every_way(store_url: str, monkeypatch: pytest.MonkeyPatch, examined_max: int) -> None:
    """With a bound of 7 most pages walk the ids, and some filters change over from page to page as jobs run out."""
    monkeypatch.setattr(finding, "EXAMINED_MAX", examined_max)
    chance = random.Random(7)
    with made(store_url) as driver:
        now = driver.now()
        states = [*(state.value for state in JobState), "pending", "completed"]
        rows = [
            job_row(now, chance.choice("ab"), chance.choice(states), job_name=chance.choice("nm")) for _ in range(40)
        ]
        store(driver, rows)
        for states_, queue, name in product(
            [(), *((state,) for state in JobState), (JobState.PENDING, JobState.FAILED), tuple(FINISHED)],
            [None, "a"],
            [None, "m"],
        ):
            which = JobFilter(states=states_, queue=queue, job_name=name)
            expected = [str(row["id"]) for row in reversed(rows) if fits(row, which)]
            assert pages(driver, which) == expected, which


def fits(row: dict[str, object], which: JobFilter) -> bool:
    return (
        (not which.states or JobState(str(row["status"])) in which.states)
        and which.queue in (None, row["queue"])
        and which.job_name in (None, row["job_name"])
    )


def pages(driver: SQLAlchemyDriver, which: JobFilter) -> list[str]:
    found: list[str] = []
    cursor = None
    for _ in range(60):
        page = driver.find(which, limit=4, cursor=cursor)
        found += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("more pages than jobs")


@pytest.mark.parametrize("name", ["a\x00b", "half \udc80"])
def test_a_name_that_no_store_can_keep_is_refused_alike_everywhere(store_url: str, name: str) -> None:
    with made(store_url) as driver:
        now = driver.now()
        for ask in (
            lambda: driver.find(JobFilter(queue=name)),
            lambda: driver.find(JobFilter(job_name=name)),
            lambda: driver.failed(queue=name),
            lambda: driver.stats(name),
            lambda: driver.queues(after=name),
            lambda: driver.failed_alike(name),
            lambda: driver.rollups(60, now, now, queue=name),
            lambda: driver.depths(now, now, queue=name),
        ):
            with pytest.raises(OptionInvalid, match="is no name"):
                ask()
