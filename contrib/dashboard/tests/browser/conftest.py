"""A shop that is at work, its dashboard on a port of this machine, and a browser that tells of every complaint."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from protojobs import JobQueue, Scheduler, StopToken, create_driver
from protojobs.port.observing import MINUTE, Observes, Result, Rollup
from protojobs.port.records import WorkerInfo
from protojobs_dashboard import Dashboard

WAIT_MS = 10_000  # for anything that a page is to show
SERVE_S = 10.0
MENDED = threading.Event()  # the mail server is back: what failed succeeds now


JOBS = """
from protojobs import job

@job(name="shop.welcome", queue="emails", max_retries=0)
def welcome(email: str) -> str:
    if not MENDED.is_set() and email.startswith("bad"):
        raise ConnectionError(f"mail.example.com does not answer for {email}")
    return f"sent to {email}"

@job(name="shop.resize", queue="images", max_retries=0)
def resize(image: str, width: int) -> None:
    if not MENDED.is_set() and width > 5_000:
        raise ValueError(f"{width} pixels are too wide")

@job(name="shop.report", queue="reports")
def report(month: str) -> None: ...
"""


def jobs_of_the_shop() -> ModuleType:
    """The module `shop.jobs`, as if it lay where an application lies: its tracebacks stand in the docs' pictures."""
    module = ModuleType("shop.jobs")
    module.__dict__["MENDED"] = MENDED
    sys.modules["shop.jobs"] = module
    exec(compile(JOBS, "/srv/shop/jobs.py", "exec"), module.__dict__)
    linecache.cache["/srv/shop/jobs.py"] = (len(JOBS), None, JOBS.splitlines(keepends=True), "/srv/shop/jobs.py")
    return module


SHOP = jobs_of_the_shop()
welcome, resize, report = SHOP.welcome, SHOP.resize, SHOP.report


class Shop:
    """A store with jobs in every state, failures of two causes, schedules, notes of an hour, and idle workers."""

    def __init__(self, url: str) -> None:
        driver = create_driver(url)
        driver.setup()
        MENDED.clear()
        self.queue = JobQueue(driver, {"concurrency": 4, "retry_delay": 0.0, "shutdown_grace": 1.0})
        self.queue.push_many([welcome.bind(email=f"bad{at}@example.com") for at in range(8)])
        self.queue.push_many([resize.bind(image=f"{at}.png", width=9_000 + at) for at in range(4)])
        self.queue.push_many([welcome.bind(email=f"jo{at}@example.com") for at in range(30)])
        self.queue.work("emails", 100)
        self.queue.work("images", 100)
        self.queue.push_many([report.bind(month=f"2026-{month:02}") for month in range(1, 8)])
        self.queue.later(3600, report.bind(month="2026-11"))
        scheduler = Scheduler(self.queue)
        scheduler.daily(report.bind(month="last"), at="07:00", id="monthly-report", timezone="Europe/Berlin")
        scheduler.hourly(resize.bind(image="new", width=10), id="new-images")
        self.worker = "0193f0aa-0000-7000-8000-000000000001"
        driver.register(
            WorkerInfo(id=self.worker, host="web-1", pid=4711, queues=("reports",), concurrency=4, lease_s=3_600.0)
        )
        driver.claim(self.worker, ["reports"], slots=2, limit=2)
        self._remember(driver)
        self.queue.pause("images")

    def _remember(self, driver: object) -> None:
        """An hour of a busy shop, for the charts."""
        assert isinstance(driver, Observes)
        minute = self.queue.driver.now().replace(second=0, microsecond=0)
        rollups = [
            Rollup(
                period_s=MINUTE,
                began_at=minute - timedelta(minutes=at),
                queue=queue,
                job_name=name,
                result=result,
                count=count + (7 * at) % 13,
                wait_s=1.5,
                run_s=9.0,
                waits={64: count, 70: 2},
                runs={72: count, 84: 2},
            )
            for at in range(1, 60)
            for queue, name in (("", ""), ("emails", "shop.welcome"))
            for result, count in ((Result.COMPLETED, 40), (Result.FAILED, 2))
        ]
        driver.record(self.worker, rollups, [])
        driver.sample_depths()

    def working(self, *names: str) -> Working:
        """`with shop.working("emails"):` a worker is at these queues."""
        return Working(self.queue, names)


class Working:
    """A worker on a thread, until the end of the block."""

    def __init__(self, queue: JobQueue, names: tuple[str, ...]) -> None:
        self._stop = StopToken()
        self._thread = threading.Thread(target=lambda: queue.work(*names, stop=self._stop), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.stop()
        self._thread.join(SERVE_S)
        assert not self._thread.is_alive()


@dataclass
class Site:
    """The dashboard as it is served."""

    url: str
    shop: Shop
    complaints: list[str] = field(default_factory=list)

    def failed_job(self) -> str:
        """One that has failed."""
        return self.shop.queue.driver.failed(limit=1).jobs[0].job_id

    def fingerprint(self) -> str:
        """The cause of its failure."""
        return self.shop.queue.driver.failed(limit=1).jobs[0].fingerprint

    def pages(self) -> dict[str, str]:
        """Name -> address of every page that there is."""
        return {
            "overview": "/",
            "jobs": "/jobs",
            "failed-jobs": "/jobs?q=state:failed",
            "bad-query": "/jobs?q=stat:failed",
            "job": f"/jobs/{self.failed_job()}",
            "errors": "/errors",
            "error": f"/errors/{self.fingerprint()}",
            "queues": "/queues",
            "queue": "/queue?name=emails",
            "workers": "/workers",
            "worker": f"/worker?id={self.shop.worker}",
            "schedules": "/schedules",
            "schedule": "/schedule?id=monthly-report",
            "operations": "/operations",
            "system": "/system",
            "doctor": "/doctor",
            "audit": "/audit",
            "missing": "/nothing-here",
        }


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """`serve()`: the dashboard of a new shop, on a free port; keywords go to Dashboard."""
    running: list[tuple[uvicorn.Server, threading.Thread, JobQueue]] = []

    def start(**options: object) -> Site:
        shop = Shop(f"sqlite:///{tmp_path / f'shop-{len(running)}.db'}")
        app = Dashboard(shop.queue, title="Shop", **options)  # type: ignore[arg-type]
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait = threading.Event()
        for _ in range(int(SERVE_S / 0.05)):
            if server.started:
                break
            wait.wait(0.05)
        assert server.started, "the dashboard does not serve"
        port = server.servers[0].sockets[0].getsockname()[1]
        running.append((server, thread, shop.queue))
        return Site(f"http://127.0.0.1:{port}", shop)

    yield start
    for server, thread, queue in running:
        server.should_exit = True
        thread.join(SERVE_S)
        queue.close()


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    """The dashboard of a shop."""
    return serve()


@pytest.fixture
def mended() -> Iterator[threading.Event]:
    """Set it, and what has failed succeeds when it is tried again."""
    yield MENDED
    MENDED.clear()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What drives the browser."""
    with sync_playwright() as found:
        yield found


expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The browser that `python3 dev.py test-browser` has found or installed. As root it cannot have its sandbox."""
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    path = os.environ.get("PROTOJOBS_CHROMIUM")
    assert path, "no browser is named; python3 dev.py test-browser finds or installs one"
    browser = playwright.chromium.launch(executable_path=path, args=options)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """`context(...)`: a new profile; keywords go to Playwright. What the browser complains about fails the test."""
    made: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: object) -> BrowserContext:
        one = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        one.set_default_timeout(WAIT_MS)
        one.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (e) => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}`));"
        )
        one.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        one.on("weberror", lambda error: complaints.append(str(error.error)))
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()
    asked = "the server responded with a status of 4"  # what a test asked for on purpose: no such page, a wrong query
    assert [said for said in complaints if asked not in said] == []


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    """A window of 1280 to 900 pixels."""
    return context().new_page()


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """`axe(page)`: what a person with another way of reading would stumble over, by axe-core's rules."""
    checker = Axe()

    def violations(page: Page) -> list[str]:
        found = checker.run(page).response["violations"]
        return [f"{one['id']}: {one['help']} ({node['html'][:120]})" for one in found for node in one["nodes"]]

    return violations


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots go: the docs' folder when PROTOJOBS_SCREENSHOTS names it, else a temporary one."""
    named = os.environ.get("PROTOJOBS_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
