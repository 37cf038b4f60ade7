"""What a turn costs PostgreSQL: statements, pages of the index, and how the driver's own sessions are set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, event, text

from protojobs import JobQueue
from protojobs.entropy import fresh_id
from protojobs.port.lifecycle import Verb
from protojobs.port.records import ClaimedJob, NewJob, Pruned, Settlement, WorkerInfo
from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.dialect import Mode, TurnRequest, Use
from protojobs_sqlalchemy.postgresql import statements
from protojobs_sqlalchemy.postgresql.dialect import PostgreSQLDialect
from protojobs_sqlalchemy.postgresql.turn import claim_values, raw_of
from protojobs_sqlalchemy.tables.tables import PLAIN
from protojobs_sqlalchemy.verbs import lanes as lanes_module
from protojobs_sqlalchemy.verbs.lanes import Lanes

QUEUE = "q"
BATCH = 200


@pytest.fixture
def driver(make_store_url: Callable[[str], str]) -> Iterator[SQLAlchemyDriver]:
    driver = SQLAlchemyDriver(make_store_url("postgresql"))
    driver.setup()
    yield driver
    driver.close()


@pytest.fixture
def worker(driver: SQLAlchemyDriver) -> str:
    worker = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=(QUEUE,), concurrency=4, lease_s=60)
    driver.register(worker)
    return worker.id


@pytest.fixture
def said(driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the driver's hot path sends, each a line."""
    sent: list[str] = []
    execute: Callable[..., object] = psycopg.Connection.execute

    def noted(self: object, query: object, *values: object, **options: object) -> object:
        if " jobs" in str(query) and "INSERT INTO jobs" not in str(query):
            sent.append(str(query))
        return execute(self, query, *values, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", noted)
    return sent


def push(driver: SQLAlchemyDriver, count: int, *, priority: int = 0, max_retries: int = 3) -> None:
    like = NewJob(
        id="", queue=QUEUE, job_name="n", job_class="c", data="{}", priority=priority, max_retries=max_retries
    )
    for first in range(0, count, 1_000):
        driver.enqueue([replace(like, id=fresh_id()) for _ in range(first, min(count, first + 1_000))])


def completed(claims: list[ClaimedJob] | tuple[ClaimedJob, ...]) -> list[Settlement]:
    return [Settlement(id=c.id, claim_seq=c.claim_seq, reserved_by=c.reserved_by, verb=Verb.COMPLETE) for c in claims]


def test_an_idle_worker_s_claim_is_one_statement_whether_it_finds_something_or_not(
    driver: SQLAlchemyDriver, worker: str, said: list[str]
) -> None:
    assert driver.claim(worker, [QUEUE], slots=4, limit=40) == []
    assert len(said) == 1
    push(driver, 3)
    said.clear()
    claims = driver.claim(worker, [QUEUE], slots=4, limit=40)
    assert (len(claims), len(said)) == (3, 1)
    said.clear()
    assert driver.settle_and_claim(worker, completed(claims), [QUEUE], slots=4, limit=40).claimed == ()
    assert len(said) == 1


def test_a_busy_worker_s_turns_are_one_statement_each_once_the_lanes_are_known(
    driver: SQLAlchemyDriver, worker: str, said: list[str]
) -> None:
    push(driver, 1_000)
    push(driver, 200, priority=3)
    sent: list[int] = []
    claims: tuple[ClaimedJob, ...] = ()
    for _ in range(6):
        said.clear()
        claims = driver.settle_and_claim(worker, completed(claims), [QUEUE], slots=4, limit=100).claimed
        assert len(claims) == 100
        sent.append(len(said))
    # The second turn reads the lanes; a machine that was away for a second reads them once more.
    assert sent[:2] == [1, 2]
    assert sum(sent) <= 8


@pytest.fixture
def trips(driver: SQLAlchemyDriver, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An entry for each time that this thread waits for the server: whatever for, a commit too.

    The driver's own threads are left out: one of them tells of jobs that were pushed, whenever it comes to it.
    """
    waited: list[object] = []
    own = threading.get_ident()
    wait: Callable[..., object] = psycopg.Connection.wait

    def noted(self: object, generator: object, *rest: object, **options: object) -> object:
        if threading.get_ident() == own:
            waited.append(generator)
        return wait(self, generator, *rest, **options)

    monkeypatch.setattr(psycopg.Connection, "wait", noted)
    monkeypatch.setattr(lanes_module, "_FRESH_S", 3_600.0)  # else a machine that was away reads the lanes again
    return waited


STRICT = [["urgent", "bulk", "quiet"]]
# As `protojobs worker urgent=5 bulk=1 quiet=1` asks them: the same ones, in another order from claim to claim.
BY_WEIGHT = [["urgent", "bulk", "quiet"]] * 5 + [["bulk", "quiet", "urgent"], ["quiet", "urgent", "bulk"]]


@pytest.mark.parametrize(("orders", "lends"), [(STRICT, {"urgent"}), (BY_WEIGHT, {"urgent", "bulk"})])
def test_a_claim_by_weight_is_one_round_trip_as_one_in_strict_order_is(
    driver: SQLAlchemyDriver, worker: str, trips: list[object], orders: list[list[str]], lends: set[str]
) -> None:
    """What the driver remembers of the queues serves whatever order they are asked in."""
    driver.settle_and_claim(worker, (), ["another"], slots=4, limit=5)  # which opens its connection
    for queue in ("urgent", "bulk"):
        like = NewJob(id="", queue=queue, job_name="n", job_class="c", data="{}")
        driver.enqueue([replace(like, id=fresh_id()) for _ in range(120)])
    claims: tuple[ClaimedJob, ...] = ()
    counted: list[int] = []
    lent: set[str] = set()
    for turn in range(14):
        queues = orders[turn % len(orders)]
        trips.clear()
        claims = driver.settle_and_claim(worker, completed(claims), queues, slots=4, limit=5).claimed
        counted.append(len(trips))
        assert len(claims) == 5
        lent |= {claim.queue for claim in claims}
    assert counted == [1, 2] + [1] * 12  # the second turn reads the lanes
    assert lent == lends


def test_an_idle_worker_with_weights_asks_in_one_round_trip(
    driver: SQLAlchemyDriver, worker: str, trips: list[object]
) -> None:
    assert driver.claim(worker, ["another"], slots=4, limit=40) == []  # which opens its connection
    for queues in BY_WEIGHT:
        trips.clear()
        assert driver.claim(worker, queues, slots=4, limit=40) == []
        assert len(trips) == 1


def test_jobs_on_their_last_attempt_are_looked_past_in_a_second_statement(
    driver: SQLAlchemyDriver, worker: str, said: list[str]
) -> None:
    push(driver, 10, max_retries=0)
    push(driver, 10)
    claims = driver.claim(worker, [QUEUE], slots=2, limit=8)
    assert [c.max_retries for c in claims] == [0, 0, 3, 3, 3, 3, 3, 3]
    assert len(said) == 2


def test_completions_of_two_workers_are_settled_each_by_its_own_claim(driver: SQLAlchemyDriver, worker: str) -> None:
    other = WorkerInfo(id=fresh_id(), host="h", pid=1, queues=(QUEUE,), concurrency=4, lease_s=60)
    driver.register(other)
    push(driver, 4)
    claims = driver.claim(worker, [QUEUE], slots=2, limit=2) + driver.claim(other.id, [QUEUE], slots=2, limit=2)
    answers = driver.settle_and_claim(worker, completed(claims), [QUEUE], slots=2, limit=2).settled
    assert [answer.status for answer in answers] == ["applied"] * 4
    assert driver.stats().completed == 4


def test_a_claim_stays_flat_behind_the_dead_rows_that_an_open_transaction_keeps(
    driver: SQLAlchemyDriver, worker: str
) -> None:
    push(driver, 12_000)
    request = TurnRequest(worker=worker, queues=[QUEUE], slots=BATCH, limit=BATCH)
    assert isinstance(dialect := driver._dialect, PostgreSQLDialect)  # pyright: ignore[reportPrivateUsage]
    remembered = dialect._lanes._known  # pyright: ignore[reportPrivateUsage]
    with driver._connections.engine.connect() as reader:
        reader.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.exec_driver_sql("SELECT count(*) FROM queues")
        claims: tuple[ClaimedJob, ...] = ()
        touched: list[int] = []
        for turn in range(50):
            claims = driver.settle_and_claim(worker, completed(claims), [QUEUE], slots=BATCH, limit=BATCH).claimed
            if turn in (3, 49):
                touched.append(pages_of_a_claim(driver, request, remembered[QUEUE,]))
        touched.append(pages_of_a_claim(driver, request, None))
        reader.exec_driver_sql("ROLLBACK")
    early, late, without_floors = touched
    assert late <= 1.2 * early
    assert without_floors > 1.5 * late  # so it does measure what the floors pass over


def test_a_plan_that_was_made_while_the_table_was_empty_looks_jobs_up(driver: SQLAlchemyDriver, worker: str) -> None:
    with driver._connections.engine.begin() as conn:
        conn.execute(text("ANALYZE jobs"))
    gone = [Settlement(id=fresh_id(), claim_seq=1, reserved_by=worker, verb=Verb.COMPLETE)]
    for _ in range(8):  # psycopg prepares a statement when it sends it for the sixth time
        driver.settle_and_claim(worker, gone, [QUEUE], slots=4, limit=4)
    plan = "\n".join(driver._connections.run(kept_plan, Mode.SINGLE, use=Use.WORK))  # pyright: ignore[reportPrivateUsage]
    assert "Index Cond: (id = ANY (ARRAY[said.id]))" in plan
    assert "Seq Scan on jobs" not in plan


def kept_plan(conn: Connection) -> list[str]:
    """The plan of the turn's statement that this connection keeps; its values do not matter."""
    raw = raw_of(conn)
    query = "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements WHERE statement ~ 'done AS.*lent AS'"
    ((name, count),) = raw.execute(query, prepare=False).fetchall()
    values = ", ".join(["NULL"] * count)
    rows = raw.execute(f"EXPLAIN EXECUTE {name} ({values})".encode(), prepare=False).fetchall()
    return [str(row[0]) for row in rows]


def pages_of_a_claim(driver: SQLAlchemyDriver, request: TurnRequest, known: Lanes | None) -> int:
    """The pages that finding the next batch touches; the claim itself is undone."""
    statement = statements.CLAIM if known else statements.CLAIM_ANEW
    with driver._connections.engine.connect() as conn:
        raw = raw_of(conn)
        values = claim_values(request, known) | {"offset": timedelta()}
        (row,) = raw.execute(PLAIN.names.sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"), values).fetchall()
        raw.rollback()
    found = [node for node in nodes(row[0][0]["Plan"]) if node.get("Index Name") == "jobs_ready"]
    return max(int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"]) for node in found)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def test_a_batch_is_pruned_by_one_statement_that_walks_an_index_and_answers_with_counts(
    driver: SQLAlchemyDriver, worker: str
) -> None:
    push(driver, 600)
    claims = driver.claim(worker, [QUEUE], slots=600, limit=600)
    driver.settle(completed(claims))
    seen: list[tuple[str, dict[str, object]]] = []

    @event.listens_for(driver._connections.engine, "before_cursor_execute")
    def _note(_conn: object, _cursor: object, statement: str, values: dict[str, object], *_: object) -> None:
        if "FROM jobs" in statement:
            seen.append((statement, values))

    pruned = driver.prune(completed_older_than=0.0, limit=500)
    assert (pruned.completed, pruned.has_more, len(seen)) == (500, True, 1)
    ((statement, values),) = seen
    with driver._connections.engine.connect() as conn:
        plan = "\n".join(str(row[0]) for row in conn.exec_driver_sql(f"EXPLAIN {statement}", values))
    assert plan.count("Index Scan using jobs_finished") == 1
    assert plan.count("Tid Scan on jobs") == 1
    assert "Sort Key: jobs" not in plan
    pruned = driver.prune(completed_older_than=0.0, limit=500)
    assert (pruned.completed, pruned.has_more) == (100, False)
    assert (driver.stats().completed, driver.stats().total) == (0, 0)


def test_a_retention_below_the_resend_window_looks_at_no_job_of_the_last_hour(
    driver: SQLAlchemyDriver, worker: str
) -> None:
    push(driver, 600)
    driver.settle(completed(driver.claim(worker, [QUEUE], slots=600, limit=600)))
    seen: list[tuple[str, dict[str, object]]] = []

    @event.listens_for(driver._connections.engine, "before_cursor_execute")
    def _note(_conn: object, _cursor: object, statement: str, values: dict[str, object], *_: object) -> None:
        if "FROM jobs" in statement:
            seen.append((statement, values))

    assert JobQueue(driver, {"completed_job_retention": 0, "failed_job_retention": 0}).prune() == Pruned()
    event.remove(driver._connections.engine, "before_cursor_execute", _note)
    assert len(seen) == 3  # one for each state
    with driver._connections.engine.connect() as conn:
        plans = [
            conn.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {one}", values).scalar_one() for one, values in seen
        ]
        conn.rollback()
    walks = [node for plan in plans for node in nodes(plan[0]["Plan"]) if node.get("Index Name") == "jobs_finished"]
    assert len(walks) == 3
    assert [(walk["Actual Rows"], walk.get("Rows Removed by Filter", 0)) for walk in walks] == [(0, 0)] * 3


def test_a_heartbeat_passes_none_of_the_jobs_that_its_worker_claimed(driver: SQLAlchemyDriver, worker: str) -> None:
    push(driver, 1_000)
    driver.claim(worker, [QUEUE], slots=900, limit=900)
    plans: list[str] = []
    execute: Callable[..., psycopg.Cursor[Any]] = psycopg.Cursor.execute

    def explained(self: object, query: object, values: object = None, **options: object) -> object:
        if "cancel_requested_at IS NOT NULL" in str(query):
            plans.extend(str(row[0]) for row in execute(self, f"EXPLAIN {query}", values).fetchall())
        return execute(self, query, values, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", explained)
        driver.heartbeat(worker, {})
    assert "Index Scan using jobs_marked on jobs" in plans[0]


def test_the_driver_s_own_sessions_plan_a_hot_statement_once_and_compile_none(driver: SQLAlchemyDriver) -> None:
    with driver._connections.engine.begin() as conn:
        name = conn.exec_driver_sql("SELECT current_database()").scalar_one()
        for setting, value in (("jit", "on"), ("plan_cache_mode", "auto"), ("enable_seqscan", "on")):
            conn.execute(text(f'ALTER DATABASE "{name}" SET {setting} = {value}'))  # as most servers have it
    driver._connections.engine.dispose()
    with driver._connections.engine.connect() as conn:
        found = [conn.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("jit", "plan_cache_mode")]
    assert found == ["off", "force_generic_plan"]
