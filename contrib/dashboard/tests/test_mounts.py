"""The dashboard inside other people's sites: pages, links, actions, assets and signals, below a path."""

from __future__ import annotations

import asyncio
import re
import threading
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from protojobs.errors import ConfigurationError
from protojobs.inspector import Role, Viewer
from protojobs_dashboard import Dashboard, django_urls, mount_flask

OWN = {"Sec-Fetch-Site": "same-origin"}
ROOT = "/ops/jobs"


def check(get, post, store) -> None:
    """What holds wherever it is mounted. `get(path)` and `post(path, data)` answer (status, headers, text)."""
    status, _, text = get(f"{ROOT}/")
    assert status == 200
    links = re.findall(r'(?:href|src|action|hx-get|hx-sse:connect)="([^"]*)"', text)
    assert len(links) > 15 and all(link.startswith((ROOT, "#")) for link in links), links
    status, headers, style = get(next(link for link in links if link.endswith("style.css")))
    assert status == 200 and headers["content-type"].startswith("text/css") and "immutable" in headers["cache-control"]
    assert get(f"{ROOT}/jobs/{store.failed[0]}")[0] == 200
    assert get(f"{ROOT}/api/v1/jobs?q=state:failed")[0] == 200
    assert get(f"{ROOT}/nowhere")[0] == 404
    status, headers, _ = post(f"{ROOT}/queues/pause", {"queue": "emails", "back": "/queue?name=emails"})
    assert status == 303
    assert headers["location"] == f"{ROOT}/queue?name=emails&did=queues%2Fpause&done=1&refused=0"
    assert get(headers["location"])[0] == 200
    assert any(info.is_paused for info in store.queue.queues() if info.name == "emails")


def by_client(client):
    def get(path: str):
        answer = client.get(path)
        return answer.status_code, answer.headers, answer.text

    def post(path: str, data: dict[str, str]):
        answer = client.post(path, data=data, headers=OWN)
        return answer.status_code, answer.headers, answer.text

    return get, post


def test_starlette_mounts_it(store, serve):
    client = serve(Starlette(routes=[Mount(ROOT, Dashboard(store.queue))]))
    check(*by_client(client), store)
    assert serve(Starlette(routes=[Mount(ROOT, Dashboard(store.queue))]), "10.0.0.7").get(f"{ROOT}/").status_code == 403


def test_fastapi_mounts_several(store, make_store, serve):
    from fastapi import FastAPI

    other = make_store("memory://")
    app = FastAPI()
    app.mount(ROOT, Dashboard(store.queue, title="First"))
    app.mount("/other", Dashboard(other.queue, title="Second"))
    client = serve(app)
    check(*by_client(client), store)
    assert "First" in client.get(f"{ROOT}/").text and "Second" in client.get("/other/").text
    assert not any(info.is_paused for info in other.queue.queues() if info.name == "emails")
    other.queue.close()


def test_flask_mounts_it_with_polling(store):
    from flask import Flask

    app = Flask("site")

    @app.get("/")
    def index() -> str:
        return "the site"

    mount_flask(app, ROOT, Dashboard(store.queue))
    client = app.test_client()

    def get(path: str):
        answer = client.get(path)
        return answer.status_code, answer.headers, answer.text

    def post(path: str, data: dict[str, str]):
        answer = client.post(path, data=data, headers=OWN)
        return answer.status_code, answer.headers, answer.text

    check(get, post, store)
    assert client.get("/").text == "the site" and client.get("/ops/jobsite").status_code == 404
    assert 'id="signals"' not in client.get(f"{ROOT}/").text
    assert client.get(f"{ROOT}/events").status_code == 204
    assert client.get(f"{ROOT}/", environ_base={"REMOTE_ADDR": "10.0.0.7"}).status_code == 403
    for path in ("ops", "/ops/", ""):
        with pytest.raises(ConfigurationError):
            mount_flask(app, path, Dashboard(store.queue))


@pytest.fixture
def django_site():
    """A Django site whose only application is the dashboard; `give(dashboard)` puts it there."""
    import sys
    import types

    import django
    from django.conf import settings
    from django.urls import clear_url_caches, include, path

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="protojobs_test_urls", SECRET_KEY="tests", MIDDLEWARE=[])
        django.setup()

    def give(dashboard: Dashboard) -> None:
        urls = types.ModuleType("protojobs_test_urls")
        urls.urlpatterns = [path("ops/jobs/", include(django_urls(dashboard)))]  # type: ignore[attr-defined]
        sys.modules["protojobs_test_urls"] = urls
        clear_url_caches()

    yield give
    sys.modules.pop("protojobs_test_urls", None)
    clear_url_caches()


def test_django_serves_it_under_wsgi_with_polling(store, django_site):
    from django.test import Client

    django_site(Dashboard(store.queue))
    client = Client(enforce_csrf_checks=True, headers={"Host": "localhost"})

    def get(path: str):
        answer = client.get(path)
        return answer.status_code, {name.lower(): value for name, value in answer.items()}, answer.content.decode()

    def post(path: str, data: dict[str, str]):
        form = "application/x-www-form-urlencoded"
        answer = client.generic("POST", path, urlencode(data), content_type=form, headers={"Host": "localhost", **OWN})
        return answer.status_code, {name.lower(): value for name, value in answer.items()}, answer.content.decode()

    check(get, post, store)
    assert 'id="signals"' not in client.get(f"{ROOT}/").content.decode()
    assert client.get(f"{ROOT}/events").status_code == 204
    assert client.get(f"{ROOT}/", REMOTE_ADDR="10.0.0.7").status_code == 403
    assert client.post(f"{ROOT}/queues/pause", {"queue": "emails"}).status_code == 403
    huge = client.generic("POST", f"{ROOT}/queues/pause", b"x" * (4 * 1024 * 1024 + 1), headers=OWN)
    assert huge.status_code == 413


def test_django_serves_it_under_asgi_with_signals(store, django_site):
    from django.test import AsyncClient

    def auth(request: Request) -> Viewer | None:
        name = request.scope["django.request"].headers.get("x-user")
        return Viewer(name, Role.READ) if name else None

    async def story() -> None:
        client = AsyncClient(headers={"Host": "localhost"})
        assert (await client.get(f"{ROOT}/")).status_code == 401
        ann = {"X-User": "ann"}
        page = await client.get(f"{ROOT}/", headers=ann)
        assert page.status_code == 200 and "ann" in page.content.decode()
        assert f'hx-sse:connect="{ROOT}/events"' in page.content.decode()
        refused = await client.post(
            f"{ROOT}/queues/pause",
            "queue=emails",
            content_type="application/x-www-form-urlencoded",
            headers={**ann, **OWN},
        )
        assert refused.status_code == 403
        stream = await client.get(f"{ROOT}/events", headers=ann)
        assert stream.status_code == 200 and stream["Content-Type"].startswith("text/event-stream")
        told: asyncio.Queue[bytes] = asyncio.Queue()

        async def reading() -> None:  # as Django's handler does, whose task is cancelled when the browser goes away
            async for chunk in stream:
                told.put_nowait(chunk)

        reader = asyncio.ensure_future(reading())
        assert (await told.get()).startswith(b"retry: 3000\nid: 1\nevent: changed")
        assert dashboard.live.streams == 1
        reader.cancel()
        await asyncio.wait({reader})
        assert dashboard.live.streams == 0

    dashboard = Dashboard(store.queue, auth=auth)
    django_site(dashboard)
    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_auth_is_asked_on_the_thread_whose_connections_django_closes(store, serve, django_site, kind, is_async):
    from asgiref.sync import sync_to_async
    from django.core.handlers.asgi import ASGIHandler
    from django.core.signals import request_finished
    from django.test import Client

    asked: list[int] = []
    looked_after: list[int] = []

    def user(_request: Request) -> Viewer:
        asked.append(threading.get_ident())
        return Viewer("ann", Role.READ)

    async def user_async(request: Request) -> Viewer:
        return await sync_to_async(user)(request)

    def closing(**_given: object) -> None:
        looked_after.append(threading.get_ident())

    django_site(Dashboard(store.queue, auth=user_async if is_async else user))
    request_finished.connect(closing)
    try:  # Django's own client for ASGI ends a request on another thread than its handler does
        client = serve(ASGIHandler()) if kind == "asgi" else Client(headers={"Host": "localhost"})
        answer = client.get(f"{ROOT}/queues")
    finally:
        request_finished.disconnect(closing)
    assert answer.status_code == 200
    assert len(asked) == 1 and looked_after == asked
