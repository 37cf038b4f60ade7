"""Whatever a store holds is inert on every page: no element, no attribute and no invisible character comes from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from protojobs import Job, JobQueue, create_driver
from protojobs.inspector import Role, Viewer
from protojobs.port.lifecycle import Verb
from protojobs.port.observing import ActionNote, AttemptNote, DepthSample, Result, Rollup
from protojobs.port.records import NewJob, Settlement, WorkerInfo
from protojobs.port.schedules import Schedule
from protojobs_dashboard import Dashboard

MARK = "pwned"
MARKUP = f"<script>{MARK}</script><img src=x onerror={MARK}>\"'><svg onload={MARK}>{{{{7*7}}}}</textarea></pre></title>"
INVISIBLE = "a\u202egnp.exe\u2066\u200f\u200b\ufeff\u0085b"
CONTROL = "\x00\x07\x1b[31m\x7f"
HALF = "\udc80"
LONG = "N" * 10_000
RIGHT_TO_LEFT = "שלום عليكم"
NAMES = [MARKUP, INVISIBLE, LONG, RIGHT_TO_LEFT, "../../etc", "a/b?c#d%2F&e", " blank ", "*", "javascript:alert(1)"]
DATA = [
    json.dumps({MARKUP: MARKUP, "n": 2**63, "rtl": INVISIBLE}, ensure_ascii=False),
    "[" * 10_000 + "]" * 10_000,
    "{broken" + MARKUP,
    '{"big": 123456789012345678901234567890, "e": 1e999, "dup": 1, "dup": 2}',
    "",
]
ERROR = f'Traceback (most recent call last):\n  File "{MARKUP}"\nValueError: {MARKUP} {INVISIBLE} {CONTROL}'
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
ROUTE_PAGES = (
    "/",
    "/jobs",
    "/errors",
    "/queues",
    "/workers",
    "/schedules",
    "/operations",
    "/system",
    "/audit",
    "/doctor",
)


def filled(url: str, *, odd: bool) -> JobQueue:
    """A store with all that below the checks of `push`: others may write to it, too."""
    driver = create_driver(url)
    driver.setup()
    names = NAMES if odd else [name[:90] for name in NAMES]
    error = ERROR + (HALF if odd else "")
    if not odd:
        error = error.replace("\x00", "")
    jobs = [
        NewJob(
            id=f"01890000-0000-7000-8000-{number:012x}",
            queue=names[number % len(names)],
            job_name=names[(number + 3) % len(names)],
            job_class=names[(number + 1) % len(names)],
            data=DATA[number % len(DATA)] if odd else DATA[number % len(DATA)].replace("\x00", ""),
            meta=json.dumps({MARKUP: INVISIBLE}) if number % 2 else None,
            max_retries=0,
        )
        for number in range(18)
    ]
    driver.enqueue(jobs)
    driver.register(
        WorkerInfo(id="w<b>1", host=names[0][:80], pid=1, queues=tuple(names), concurrency=20, lease_s=600.0)
    )
    claimed = driver.claim("w<b>1", names, slots=12, limit=12)
    assert len(claimed) == 12
    driver.settle(
        [
            Settlement(
                id=one.id,
                claim_seq=one.claim_seq,
                reserved_by=one.reserved_by,
                verb=Verb.FAIL,
                error=error,
                fingerprint=f"{number % 2:016x}",
            )
            for number, one in enumerate(claimed[:8])
        ]
    )
    now = driver.now()
    notes = [
        AttemptNote(
            job_id=one.id,
            attempt=1,
            claim_seq=one.claim_seq,
            worker="w<b>1",
            result=Result.FAILED,
            started_at=now,
            ended_at=now,
            error=error,
        )
        for one in claimed[:3]
    ]
    at = now.replace(second=0, microsecond=0)
    rollups = [
        Rollup(period_s=60, began_at=at, queue=queue, job_name=name, result=Result.FAILED, count=1, wait_s=1, run_s=1)
        for queue, name in (("", ""), (names[0], ""), ("", names[0]), (names[0], names[0]))
    ]
    driver.record("w<b>1", rollups, notes)
    driver.sample_depths()
    driver.note_action(
        ActionNote(
            id="01890000-0000-7000-8000-0000000000ff", at=now, actor=MARKUP, action=MARKUP[:40], target=INVISIBLE
        )
    )
    for number, name in enumerate(names[:4]):
        driver.save_schedule(
            Schedule(
                id=f"{name[:80]}{number}",
                spec=MARKUP[:90] if number else "every 60",
                timezone=MARKUP[:60] if number > 1 else "UTC",
                queue=name,
                job_name=name,
                job_class=name,
                data=DATA[0],
                next_due_at=now,
            ),
            version=0,
        )
    return JobQueue(driver)


def addresses(client) -> list[str]:
    """Every page, and every page that those lead to: whatever the links are that names were made into."""
    found = dict.fromkeys(ROUTE_PAGES)
    for path in ROUTE_PAGES:
        text = client.get(path).text
        found |= dict.fromkeys(
            link.replace("&amp;", "&").replace("&#39;", "'") for link in re.findall(r'<a [^>]*?href="(/[^"]*)"', text)
        )
    return list(found)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_hostile_data_is_inert_on_every_page(kind, serve, read, examined, sqlite_url):
    queue = filled("memory://" if kind == "memory" else sqlite_url, odd=kind == "memory")
    client = serve(Dashboard(queue, auth=lambda _request: Viewer(MARKUP[:60], Role.OPERATE, INVISIBLE)))
    assert 'data-testid="findings"' in examined(client)
    visited = addresses(client)
    assert len(visited) > 60
    visited.remove("/doctor?again=yes")  # leads back
    if kind == "sqlite":  # what differs is what it answers, not what a page makes of it
        visited = [*ROUTE_PAGES, *visited[len(ROUTE_PAGES) :: 5]]
    harmless = {"class", "id", "href", "value", "title", "name", "aria-label", "content", "datetime", "hx-get"}
    for path in visited:
        answer = client.get(path)
        assert answer.status_code in (200, 400, 404), (path, answer.text[-500:])
        page = read(answer.text)
        assert page.open == [], path
        assert HIDDEN.search(page.text) is None, (path, HIDDEN.search(page.text))
        assert len(page.all("script")) == 4, path
        assert not page.all("img") and not page.all("iframe"), path
        for tag, found in page.elements:
            for name, value in found.items():
                assert MARK not in name, (path, tag, found)
                assert MARK not in value or name in harmless, (path, tag, found)
                assert name not in ("onerror", "onload", "style", "srcdoc"), (path, tag, found)
                if name in ("href", "action", "formaction", "src"):
                    assert value.startswith(("/", "#")) and not value.startswith("//"), (path, tag, found)
        assert len(answer.content) < 1_000_000, path
    queue.close()


def test_hostile_data_comes_through_the_api_as_it_is(serve, odd_queue):
    client = serve(Dashboard(odd_queue))
    for path in ("jobs?limit=50", "errors", "queues", "workers", "schedules", "audit", "overview", "depths", "rates"):
        answer = client.get(f"/api/v1/{path}")
        assert answer.status_code == 200 and answer.json() is not None, path
        assert answer.headers["content-type"] == "application/json"
    jobs = client.get("/api/v1/jobs?limit=50").json()["jobs"]
    assert {job["job_name"] for job in jobs} == set(NAMES)


@pytest.fixture(scope="module")
def odd_queue() -> Iterator[JobQueue]:
    queue = filled("memory://", odd=True)
    yield queue
    queue.close()


@pytest.mark.parametrize("name", [INVISIBLE, MARKUP, "../../etc", "a/b?c#d%2F&e", " blank ", RIGHT_TO_LEFT, LONG])
def test_a_queue_with_an_odd_name_is_paused_and_resumed_from_its_page(name, serve, read, odd_queue):
    client = serve(Dashboard(odd_queue))
    page = read(client.get("/queue", params={"name": name}).text)
    fields = {field["name"]: field["value"] for field in page.all("input", type="hidden") if field["name"] == "queue"}
    assert fields == {"queue": name}
    if len(name.encode()) > 100 or "\u0085" in name:  # no name that this version would give a queue
        assert client.post("/queues/pause", data=fields, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 400
    else:
        assert client.post("/queues/pause", data=fields, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
        assert name in {info.name for info in odd_queue.queues() if info.is_paused}


class Anything(Job):
    name = "hostile.anything"

    def handle(self, data): ...


@pytest.mark.parametrize("name", ["*", "a*", 'a"b', "a\\", 'a, "b" *'])
def test_the_links_of_a_queue_lead_to_its_own_jobs_whatever_its_name_holds(name, serve, read):
    queue = JobQueue(create_driver("memory://"))
    for other in (name, "ab", 'a*"b'):
        queue.push(Anything().on_queue(other))
    client = serve(Dashboard(queue))
    for page in (client.get("/queue", params={"name": name}), client.get("/queues")):
        links = [
            one["href"]
            for one in read(page.text).all("a")
            if "/jobs?q=state%3Aready" in one["href"] and "queue" in one["href"]
        ]
        shown = [client.get("/api/v1/jobs", params={"q": parse_qs(urlsplit(link).query)["q"][0]}) for link in links]
        found = [{job["queue"] for job in answer.json()["jobs"]} for answer in shown]
        assert {name} in found and all(len(queues) == 1 for queues in found)
    queue.close()


def test_hostile_samples_of_depth_are_drawn_as_text():
    from datetime import UTC, datetime

    from protojobs_dashboard.pages.drawn import depths

    samples = [
        DepthSample(at=datetime(2026, 1, 1, tzinfo=UTC), queue=name, ready=2**63, scheduled=0, processing=0)
        for name in NAMES
    ]
    chart = depths(samples)
    drawing = chart.__html__()
    assert "<script" not in drawing and "onload" not in drawing.replace("onload=pwned&gt;", "")
    assert [layer.name for layer in chart.layers][-1] == "all others"
