"""What the tests of the dashboard share: a store with something of everything in it, clients, and a reader of pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from protojobs import JobQueue, Scheduler, create_driver, job
from protojobs.inspector import Inspector, Role, Viewer
from protojobs.port.records import WorkerInfo
from protojobs_dashboard import Dashboard

HOST = "http://127.0.0.1:8787"
OWN = {"Sec-Fetch-Site": "same-origin"}
VOID = {"area", "base", "br", "hr", "img", "input", "link", "meta", "path", "rect", "polyline"}


class Read(HTMLParser):
    """A page as a browser's parser sees it: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of every such element."""
        named = {name.replace("_", "-"): value for name, value in wanted.items()}
        return [
            found for one, found in self.elements if one == tag and all(found.get(n) == v for n, v in named.items())
        ]

    def ids(self, testid: str) -> int:
        """How many elements have that data-testid."""
        return sum(1 for _, found in self.elements if found.get("data-testid") == testid)


@job(name="dashboard.ok", queue="emails")
def ok(n: int) -> None: ...


@job(name="dashboard.boom", queue="emails")
def boom(n: int) -> None:
    raise LookupError(f"customer {n} has no address")


class Store:
    """A queue with jobs in every state, a failed one, a schedule, a worker and a line in the audit log."""

    def __init__(self, url: str) -> None:
        driver = create_driver(url)
        driver.setup()
        self.queue = JobQueue(driver, {"max_retries": 0, "concurrency": 1, "retry_delay": 0.0, "shutdown_grace": 1.0})
        self.ok, self.boom = ok, boom
        self.failed = [self.queue.push(boom.bind(n=number)) for number in (1, 2, 3)]
        self.completed = self.queue.push(ok.bind(n=1))
        self.queue.work("emails", 10)
        self.queue.leave()
        self.held = self.queue.push(ok.bind(n=4))
        worker = WorkerInfo(id="w-1", host="web", pid=7, queues=("emails",), concurrency=2, lease_s=600.0)
        driver.register(worker)
        driver.claim("w-1", ["emails"], slots=2, limit=1)
        self.ready = self.queue.push(ok.bind(n=2))
        self.scheduled = self.queue.later(3600, ok.bind(n=3))
        self.schedule = Scheduler(self.queue).hourly(ok.bind(n=5), id="hourly").id
        self.inspector = Inspector(self.queue, Viewer("ann", address="127.0.0.1"))
        self.inspector.pause("reports")
        self.fingerprint = self.inspector.errors()[0].fingerprint
        self.operation_id = ""  # of the fixture `client`

    def paths(self) -> dict[str, str]:
        """Each route of a page -> an address of it that shows something."""
        return {
            "/": "/",
            "/jobs": "/jobs",
            "/jobs/{id}": f"/jobs/{self.failed[0]}",
            "/jobs/{id}/why": f"/jobs/{self.scheduled}/why",
            "/errors": "/errors",
            "/errors/{fingerprint}": f"/errors/{self.fingerprint}",
            "/queues": "/queues",
            "/queue": "/queue?name=emails",
            "/workers": "/workers",
            "/worker": "/worker?id=w-1",
            "/schedules": "/schedules",
            "/schedule": "/schedule?id=hourly",
            "/operations": "/operations",
            "/operations/{id}": f"/operations/{self.operation_id or 'nothing'}",
            "/system": "/system",
            "/doctor": "/doctor",
            "/audit": "/audit",
        }

    def fields(self) -> dict[str, dict[str, object]]:
        """Each action -> what a form or a program sends with it."""
        return {
            "jobs/retry": {"ids": [self.failed[0]]},
            "jobs/cancel": {"ids": [self.scheduled]},
            "jobs/forget": {"ids": [self.failed[1]]},
            "jobs/edit": {"id": self.failed[2], "data": '{"n": 9}'},
            "queues/pause": {"queue": "emails"},
            "queues/resume": {"queue": "reports"},
            "queues/clear": {"queue": "emails"},
            "schedules/run": {"id": "hourly"},
            "schedules/pause": {"id": "hourly"},
            "schedules/resume": {"id": "hourly"},
            "operations/start": {"action": "retry", "query": "state:failed"},
            "operations/stop": {"id": self.operation_id or "nothing"},
        }


def viewer_with(role: Role) -> Callable[[object], Viewer]:
    """An auth that knows everybody, with that role."""
    return lambda _request: Viewer("bob", role)


@pytest.fixture(scope="module")
def seen_store() -> Iterator[Store]:
    """For tests that only look, or try what must not succeed."""
    store = Store("memory://")
    yield store
    store.queue.close()


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store("memory://")
    yield store
    store.queue.close()


@pytest.fixture
def serve() -> Callable[..., TestClient]:
    """`serve(app, address="127.0.0.1")`: a client at that address, which follows no redirect."""

    def made(app: object, address: str = "127.0.0.1", base_url: str = HOST) -> TestClient:
        return TestClient(
            app,  # type: ignore[arg-type]
            base_url=base_url,
            client=(address, 50_000),
            follow_redirects=False,
        )

    return made


@pytest.fixture
def client(store: Store, serve: Callable[..., TestClient]) -> TestClient:
    return client_of(store, serve)


def client_of(store: Store, serve: Callable[..., TestClient]) -> TestClient:
    """A client of its dashboard, with an operation that has been begun there."""
    client = serve(Dashboard(store.queue))
    begun = client.post("/api/v1/operations/start", json={"action": "retry", "query": "queue:nothing"})
    store.operation_id = begun.json()["id"]
    return client


@pytest.fixture
def examined() -> Callable[[TestClient], str]:
    """`examined(client)`: the doctor's page, once he has looked."""

    def shown(client: TestClient) -> str:
        for _ in range(400):
            text = client.get("/doctor").text
            if 'data-testid="examining"' not in text:
                return text
            time.sleep(0.05)
        raise AssertionError("the examination does not end")

    return shown


@pytest.fixture
def with_role(store: Store, serve: Callable[..., TestClient]) -> Callable[[Role], TestClient]:
    return lambda role: serve(Dashboard(store.queue, auth=viewer_with(role)))


@pytest.fixture
def client_for(serve: Callable[..., TestClient]) -> Callable[[Store], TestClient]:
    return lambda store: client_of(store, serve)


@pytest.fixture
def read() -> Callable[[str], Read]:
    return Read


@pytest.fixture
def make_store() -> type[Store]:
    return Store
