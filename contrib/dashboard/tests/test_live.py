"""Signals: one look a second for all streams together, nothing but a version in them; else pages poll."""

from __future__ import annotations

import asyncio
import threading

import pytest

from protojobs.errors import StoreUnavailable
from protojobs.testing import ManualClock
from protojobs_dashboard import Dashboard, live
from protojobs_dashboard.live import STREAMS_MAX, Live


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.0)


def test_the_version_is_one_more_with_every_change():
    clock, figures, looks = ManualClock(), [1], []

    def look() -> int:
        looks.append(1)
        return figures[0]

    async def story() -> list[int]:
        one = Live(look, clock)
        versions = [await one.version(), await one.version()]
        clock.advance(1.0)
        versions.append(await one.version())
        figures[0] = 2
        versions.append(await one.version())  # nobody looks twice in a second
        clock.advance(1.0)
        versions.append(await one.version())
        return versions

    assert asyncio.run(story()) == [1, 1, 1, 1, 2]
    assert len(looks) == 3


def test_many_streams_look_once():
    release, looks = threading.Event(), []

    def look() -> int:
        looks.append(1)
        assert release.wait(20)
        return 1

    async def story() -> list[int]:
        one = Live(look, ManualClock())
        waiting = [asyncio.ensure_future(one.version()) for _ in range(20)]
        while sum(task.done() for task in waiting) < 19:
            await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*waiting)

    assert sorted(asyncio.run(story())) == [*[0] * 19, 1]
    assert len(looks) == 1


def test_an_outage_and_its_end_are_changes():
    clock, is_down = ManualClock(), [False]

    def look() -> int:
        if is_down[0]:
            raise StoreUnavailable("It does not answer.")
        return 1

    async def story() -> list[int]:
        one = Live(look, clock)
        versions = []
        for down in (False, True, True, False):
            is_down[0] = down
            versions.append(await one.version())
            clock.advance(1.0)
        return versions

    assert asyncio.run(story()) == [1, 2, 2, 3]


def test_a_stream_says_changed_and_beats_and_ends(quick, monkeypatch):
    clock, figures = ManualClock(), [0]

    async def no_wait(_seconds: float) -> None:
        figures[0] += clock.monotonic() < 1
        clock.advance(5.0)

    monkeypatch.setattr(live.anyio, "sleep", no_wait)

    async def story() -> tuple[list[str], int, int]:
        one = Live(lambda: figures[0], clock)
        told, during = [], 0
        async for event in one.stream():
            told.append(event)
            during = max(during, one.streams)
        return told, during, one.streams

    clock = ManualClock()
    told, during, after = asyncio.run(story())
    assert told[0] == "retry: 3000\nid: 1\nevent: changed\ndata: 1\n\n"  # since the page was made
    assert told[1] == "id: 2\nevent: changed\ndata: 2\n\n"
    assert told.count(": beat\n\n") == len(told) - 2 > 10
    assert (during, after) == (1, 0)


def test_whoever_comes_back_with_an_older_version_is_told_at_once():
    async def first(seen: str) -> str:
        stream = Live(lambda: 1, ManualClock()).stream(seen)
        try:
            return await anext(stream)
        finally:
            await stream.aclose()

    assert "event: changed" in asyncio.run(first("7"))
    assert "event: hello" in asyncio.run(first("1"))
    assert "event: changed" in asyncio.run(first(""))


def served(dashboard: Dashboard, count: int) -> list[dict[str, object]]:
    """The first messages that the application sends on /events; then the browser goes away."""
    sent: list[dict[str, object]] = []
    gone = asyncio.Event

    async def story() -> None:
        left = gone()

        async def receive() -> dict[str, object]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)
            if len(sent) >= count:
                left.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/events",
            "raw_path": b"/events",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await asyncio.wait_for(dashboard(scope, receive, send), 20)  # type: ignore[arg-type]

    asyncio.run(story())
    return sent


def test_the_stream_is_served_unbuffered_and_ends_with_its_reader(store, quick):
    dashboard = Dashboard(store.queue)
    start, first = served(dashboard, 2)[:2]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}  # type: ignore[union-attr]
    assert start["status"] == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no" and headers["cache-control"] == "no-store"
    assert first["body"].startswith(b"retry: 3000\nid: 1\nevent: changed")  # type: ignore[attr-defined]
    assert dashboard.live.streams == 0


def test_a_push_changes_the_figures(store, quick):
    async def story() -> tuple[int, int]:
        dashboard = Dashboard(store.queue)
        before = await dashboard.live.version()
        store.queue.push(store.ok.bind(n=1))
        return before, await dashboard.live.version()

    assert asyncio.run(story()) == (1, 2)


def test_what_is_done_here_is_a_change_that_no_figure_need_show(store, serve, quick):
    dashboard = Dashboard(store.queue)
    before = asyncio.run(dashboard.live.version())
    fields, own = {"queue": "emails"}, {"Sec-Fetch-Site": "same-origin"}
    assert serve(dashboard).post("/queues/pause", data=fields, headers=own).status_code == 303
    assert asyncio.run(dashboard.live.version()) > before


def test_beyond_so_many_streams_pages_poll(store, serve, read):
    dashboard = Dashboard(store.queue)
    dashboard.live.streams = STREAMS_MAX
    assert serve(dashboard).get("/events").status_code == 204


def test_without_streams_no_page_asks_for_one(store, serve, read):
    client = serve(Dashboard(store.queue, streams=False))
    page = read(client.get("/").text)
    assert not page.all("div", id="signals")
    assert page.all("div", id="live-region")[0]["hx-get"] == "/"
    assert client.get("/events").status_code == 204
    assert read(serve(Dashboard(store.queue)).get("/").text).all("div", id="signals")
