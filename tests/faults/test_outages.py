"""Lost answers and stores that are away, by a network that a proxy cuts: pushed once, run once, answered in time.

The long ones, with servers that are killed and frozen, are in scenarios/outage.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults.crew import Crew, wait_for
from faults.history import End
from faults.jobs import Plan, act
from faults.proxy import Mode, Proxy
from protojobs import JobQueue, StopToken, create_driver, events, job
from protojobs.errors import StoreUnavailable
from protojobs.events import Event
from protojobs.jobs.definition import REGISTRY
from protojobs.queue import pushing
from protojobs.worker import planner

pytestmark = pytest.mark.faults  # run by `python3 dev.py faults --short`

SERVERS = ["postgresql", "mariadb", "valkey"]
MakeUrl = Callable[[str], str]
LEASE_S = 1.0
SOON_S = 20.0
CALL_S = 10.0  # no call of a worker to a store takes longer
RESUMES_WITHIN_S = 5.0


@pytest.fixture(autouse=True)
def _jobs_and_listeners_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", dict(REGISTRY._by_name))
    monkeypatch.setattr(events, "LISTENERS", {})


@pytest.fixture
def network(make_store_url: MakeUrl) -> Iterator[Callable[[str], tuple[Proxy, str, JobQueue]]]:
    """`network(kind)`: a proxy, the URL of an empty store behind it, and a queue that goes its own way to it."""
    with contextlib.ExitStack() as stack:

        def make(kind: str) -> tuple[Proxy, str, JobQueue]:
            url = make_store_url(kind)
            parts = urlsplit(url)
            proxy = stack.enter_context(Proxy(parts.hostname or "", parts.port or 0))
            aside = stack.enter_context(JobQueue(create_driver(url), {}))
            aside.driver.setup()
            return proxy, proxy.url(url), aside

        yield make


Network = Callable[[str], tuple[Proxy, str, JobQueue]]


class Working:
    """A `work()` on a thread of its own."""

    def __init__(self, url: str, **settings: object) -> None:
        self.queue = JobQueue(create_driver(url), {"lease": LEASE_S, "concurrency": 2, "shutdown_grace": 5, **settings})
        self.token = StopToken()
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.queue.work(stop=self.token)
        except BaseException as error:
            self.errors.append(error)

    def stop(self) -> None:
        """Stop it; it must not have ended by itself."""
        assert self.thread.is_alive(), self.errors
        self.token.stop()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()
        assert not self.errors
        self.queue.close()


# ---------------------------------------------------------------------------------------------------- lost on the way


@pytest.mark.parametrize("what", ["request", "reply"])
@pytest.mark.parametrize("kind", SERVERS)
def test_wherever_the_connection_breaks_a_job_is_stored_once_and_run_once(
    network: Network, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    """The n-th request, or answer, is lost with its connection, for each n of the life of two jobs."""
    monkeypatch.setattr(planner, "PAUSE_FIRST_S", 0.005)
    monkeypatch.setattr(pushing, "FIRST_PAUSE_S", 0.005)
    proxy, url, aside = network(kind)
    ran: list[int] = []

    @job(name="step", timeout=0)
    def step(n: int) -> None:
        ran.append(n)

    with JobQueue(create_driver(url), {"concurrency": 2}) as queue:
        queue.work("default", 1)  # the connections, the lease
        for nth in range(100):
            ran.clear()
            proxy.lose(what, after=nth)  # type: ignore[arg-type]
            before = proxy.lost
            ids = [queue.push(step.bind(1)), *queue.push_many([step.bind(2)])]
            queue.work("default", 2)
            queue.work("default", 2)  # what a lost claim may have left
            proxy.lose_nothing()
            assert sorted(ran) == [1, 2], nth
            assert [(record.status, record.attempts) for record in aside.driver.get(ids)] == [("completed", 1)] * 2, nth
            if proxy.lost == before:
                break
        assert nth > 3
        assert aside.stats().total == 2 * (nth + 1)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_push_whose_answer_is_swallowed_is_sent_again_and_stored_once(network: Network, kind: str) -> None:
    proxy, url, aside = network(kind)
    with JobQueue(create_driver(url), {"push_timeout": 10}) as queue:
        queue.push(act.bind(Plan(0)))
        proxy.mode = "mute"
        healer = threading.Thread(target=lambda: wait_for("an answer", lambda: proxy.swallowed, SOON_S), daemon=True)
        healer.start()
        pushed: list[str] = []
        pusher = threading.Thread(target=lambda: pushed.append(queue.push(act.bind(Plan(0)))), daemon=True)
        pusher.start()
        healer.join(SOON_S)
        proxy.mode = "pass"  # which resets what has a hole
        pusher.join(SOON_S)
    assert [record.id for record in aside.driver.get(pushed)] == pushed
    assert aside.stats().total == 2


# ---------------------------------------------------------------------------------------------- answered within a time

PUSH_TIMEOUT_S = 1.5
PUSH_WITHIN_S = PUSH_TIMEOUT_S + 1.0


def push_all_ways(queue: JobQueue) -> list[tuple[str, float, BaseException | None]]:
    """Push from several threads and coroutines at once: which way, how long it took, and what it raised."""
    bound = act.bind(Plan(0))
    ways: dict[str, Callable[[], object]] = {
        "push": lambda: queue.push(bound),
        "push_many": lambda: queue.push_many([bound] * 3),
        "later": lambda: queue.later(60, bound),
        "apush": lambda: asyncio.run(queue.apush(bound)),
    }
    came: list[tuple[str, float, BaseException | None]] = []

    def run(name: str) -> None:
        began, raised = time.monotonic(), None
        try:
            ways[name]()
        except BaseException as error:
            raised = error
        came.append((name, time.monotonic() - began, raised))

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert len(came) == len(ways), "some hang"
    return came


def assert_refused_in_time(came: list[tuple[str, float, BaseException | None]]) -> None:
    for name, took_s, error in came:
        assert isinstance(error, StoreUnavailable), (name, error)
        assert len(error.job_ids) == (3 if name == "push_many" else 1), name
        assert took_s <= PUSH_WITHIN_S, (name, took_s)


@pytest.mark.parametrize("mode", ["refuse", "black hole", "slow"])
@pytest.mark.parametrize("kind", SERVERS)
def test_push_answers_in_time_whatever_the_network_does(network: Network, kind: str, mode: str) -> None:
    proxy, url, aside = network(kind)
    with JobQueue(create_driver(url), {"push_timeout": PUSH_TIMEOUT_S}) as known:
        known.push(act.bind(Plan(0)))
        if mode == "slow":
            proxy.delay_s = 20.0
        else:
            proxy.mode = mode  # type: ignore[assignment]
        assert_refused_in_time(push_all_ways(known))
        if mode == "black hole":  # the first push of a process: it has to connect
            with JobQueue(create_driver(url), {"push_timeout": PUSH_TIMEOUT_S}) as fresh:
                assert_refused_in_time(push_all_ways(fresh))
                proxy.cut()
    assert 1 <= aside.stats().total <= 1 + 6  # slow: what went over an open connection was stored


@pytest.mark.parametrize("kind", SERVERS)
def test_more_threads_than_connections_are_answered_in_time(network: Network, kind: str) -> None:
    proxy, url, _ = network(kind)
    took: list[float] = []
    with JobQueue(create_driver(url), {"push_timeout": PUSH_TIMEOUT_S}) as queue:
        queue.push(act.bind(Plan(0)))
        proxy.mode = "black hole"

        def push() -> None:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                queue.push(act.bind(Plan(0)))
            took.append(time.monotonic() - began)

        threads = [threading.Thread(target=push, daemon=True) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON_S)
        proxy.cut()
    assert len(took) == 30
    assert max(took) <= PUSH_WITHIN_S


def test_push_answers_in_time_while_another_process_locks_sqlite(make_store_url: MakeUrl) -> None:
    url = make_store_url("sqlite")
    with JobQueue(create_driver(url), {"push_timeout": PUSH_TIMEOUT_S}) as queue:
        queue.driver.setup()
        with locked(url):
            assert_refused_in_time(push_all_ways(queue))
            with JobQueue(create_driver(url), {"push_timeout": PUSH_TIMEOUT_S}) as fresh:
                assert_refused_in_time(push_all_ways(fresh))
        assert queue.stats().total == 0


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody's write transaction is open."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


# ------------------------------------------------------------------------------------------------- workers in an outage


@contextlib.contextmanager
def cut_off(proxy: Proxy, mode: Mode) -> Iterator[None]:
    proxy.mode = mode
    yield
    proxy.mode = "pass"


@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
def test_an_outage_of_three_leases_runs_nothing_twice_and_ends_within_seconds(
    network: Network, make_store_url: MakeUrl, kind: str
) -> None:
    """Two workers, both cut off; long jobs begin before, new ones become due meanwhile.

    When it is refused, each tells once that it is degraded. Silence may be shorter than the patience of one call.
    """
    if kind == "sqlite":
        url = make_store_url(kind)
        aside = JobQueue(create_driver(url), {})
        aside.driver.setup()
        away = lambda: locked(url)  # noqa: E731
    else:
        proxy, url, aside = network(kind)
        away = lambda: cut_off(proxy, "black hole" if kind == "mariadb" else "refuse")  # noqa: E731
    ran: list[str] = []
    began_at: dict[str, float] = {}
    degraded: list[Event] = []
    events.on("worker.degraded", degraded.append)

    @job(name="step", timeout=0)
    def step(name: str, takes_s: float) -> None:
        ran.append(name)
        began_at[name] = time.monotonic()
        time.sleep(takes_s)  # the job's work

    ids = [aside.push(step.bind(f"long-{n}", 4.5 * LEASE_S)) for n in range(2)]
    workers = [Working(url, concurrency=3) for _ in range(2)]
    wait_for("the workers and the long jobs", lambda: len(aside.workers()) == len(ran) == 2, SOON_S)
    ids += [aside.later(0.5, step.bind(f"new-{n}", 0.0)) for n in range(4)]
    with away():
        time.sleep(3 * LEASE_S)  # the outage
    returned = time.monotonic()
    wait_for("all to be done", lambda: all(r.status == "completed" for r in aside.driver.get(ids)), SOON_S)
    for worker in workers:
        worker.stop()
    assert sorted(ran) == ["long-0", "long-1", "new-0", "new-1", "new-2", "new-3"]
    assert {record.reclaims for record in aside.driver.get(ids)} == {0}
    assert min(began_at[f"new-{n}"] for n in range(4)) - returned <= RESUMES_WITHIN_S
    if kind in ("postgresql", "valkey"):
        wait_for("the events", lambda: len(degraded) >= 2, SOON_S)
    assert len({event.get("worker") for event in degraded}) == len(degraded)
    aside.close()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_worker_process_stops_in_time_on_sigterm_in_the_middle_of_a_black_hole(
    network: Network, tmp_path: Path, kind: str
) -> None:
    proxy, url, aside = network(kind)
    crew = Crew(tmp_path, lease_s=2.0, grace_s=1.0)
    try:
        worker = crew.hire(url, env={"PROTOJOBS_EXIT_BOUND": "2"})
        wait_for("the worker", lambda: crew.ready, SOON_S)
        aside.push(act.bind(Plan(60.0)))
        wait_for("the job", lambda: crew.entries("start"), SOON_S)
        proxy.mode = "black hole"
        time.sleep(0.5)  # in the middle of it
        took_s = crew.stop(worker, within_s=SOON_S)
    finally:
        crew.dismiss()
    assert [entry["end"] for entry in crew.entries("finish")] == [End.CUT.value]
    assert took_s <= CALL_S + 1.0 + 2.0 + 2.0  # the call that is under way, the grace, exit_bound, and the last word
    assert crew.exits == {worker.name: 0}
