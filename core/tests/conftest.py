"""What the unit tests of core share: queues on the memory driver, clean registries, and waiting with a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from protojobs import JobQueue, Settings, StopToken, WorkReport, events
from protojobs.events import Event
from protojobs.jobs import resources
from protojobs.jobs.definition import REGISTRY
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver


@pytest.fixture(autouse=True)
def _jobs_and_listeners_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})
    monkeypatch.setattr(REGISTRY, "resources", {})
    monkeypatch.setattr(resources, "DECLARED", REGISTRY.resources)
    monkeypatch.setattr(events, "LISTENERS", {})


@pytest.fixture
def clock() -> ManualClock:
    """The store's clock: stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def make_queue(clock: ManualClock) -> Callable[..., JobQueue]:
    """`make_queue(driver=None, **settings)`: a queue on a memory store of its own, whose time is `clock`'s."""

    def make(driver: MemoryDriver | None = None, **settings: object) -> JobQueue:
        quick: dict[str, object] = {"poll_interval": 0.02, "concurrency": 4}
        given: Callable[..., Settings] = Settings
        return JobQueue(driver or MemoryDriver(clock=clock), given(**{**quick, **settings}))

    return make


@pytest.fixture
def queue(make_queue: Callable[..., JobQueue]) -> JobQueue:
    return make_queue()


@pytest.fixture
def heard() -> Callable[..., list[Event]]:
    """`heard("job.failed", ...)`: the list to which these events are appended from now on."""

    def listen(*names: str) -> list[Event]:
        found: list[Event] = []
        for name in names:
            events.on(name, found.append)
        return found

    return listen


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """`eventually(condition)`: return as soon as it holds; fail after thirty seconds."""

    def wait(condition: Callable[[], object]) -> None:
        ends = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < ends, "this did not happen within 30 s"
            time.sleep(0.002)

    return wait


class Background:
    """A `work()` on a thread of its own; `report` is its answer once it has returned."""

    def __init__(self) -> None:
        self.token = StopToken()
        self.report: WorkReport | None = None
        self.thread: threading.Thread | None = None

    def has_ended_within(self, seconds: float) -> bool:
        assert self.thread is not None
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def join(self) -> WorkReport:
        assert self.thread is not None
        self.thread.join(15)
        assert self.report is not None, "work() did not return"
        return self.report


@pytest.fixture
def working() -> Callable[..., AbstractContextManager[Background]]:
    """`with working(queue, "default") as worker`: a worker that runs meanwhile; it is stopped at the end."""

    @contextmanager
    def run(queue: JobQueue, names: str | list[str] | None = None, max_jobs: int | None = None) -> Iterator[Background]:
        worker = Background()

        def work() -> None:
            worker.report = queue.work(names, max_jobs, stop=worker.token)

        worker.thread = threading.Thread(target=work, name="test-worker", daemon=True)
        worker.thread.start()
        try:
            yield worker
        finally:
            worker.token.stop()
            worker.token.stop()
            worker.thread.join(15)

    return run
