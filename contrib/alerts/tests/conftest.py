"""What the tests of the alerts share: a store whose time stands still, and somebody who catches webhooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from protojobs import JobQueue, job
from protojobs.jobs.definition import REGISTRY
from protojobs.testing import ManualClock
from protojobs_memory import MemoryDriver


@pytest.fixture(autouse=True)
def _own_jobs_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(clock: ManualClock) -> MemoryDriver:
    return MemoryDriver(clock=clock)


@pytest.fixture
def queue(driver: MemoryDriver, clock: ManualClock) -> JobQueue:
    return JobQueue(driver, {"retry_delay": 0.0})


@pytest.fixture
def fail(queue: JobQueue) -> Callable[..., None]:
    """`fail(3, KeyError("x"), name="order.pack")`: so many jobs fail for good."""

    def run(count: int = 1, error: Exception | None = None, name: str = "order.pack", where: str = "default") -> None:
        def broken() -> None:
            raise error or ValueError("the secret is 42")

        queue.push_many([job(name=name, max_retries=0, queue=where)(broken).bind() for _ in range(count)])
        queue.work(where, count)

    return run


class Catcher:
    """A webhook that answers as it is told, one answer after the other and then 204, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.got = threading.Condition()
        catcher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with catcher.got:
                    code = catcher.answers.pop(0) if catcher.answers else 204
                    catcher.bodies.append(body)
                    catcher.headers.append(dict(self.headers))
                    catcher.got.notify_all()
                self.send_response(code)
                if code // 100 == 3:
                    self.send_header("Location", f"{catcher.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def wait_for(self, count: int) -> list[dict[str, object]]:
        """The first so many bodies, once they are there."""
        with self.got:
            assert self.got.wait_for(lambda: len(self.bodies) >= count, timeout=30), self.bodies
            return [json.loads(body) for body in self.bodies[:count]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def catcher() -> Iterator[Catcher]:
    catcher = Catcher()
    yield catcher
    catcher.close()
