"""The dashboard inside a Django or Flask site. Starlette and FastAPI need nothing of this: there it is just mounted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from starlette.requests import Request

from protojobs.errors import ConfigurationError, shown
from protojobs.inspector import Viewer
from protojobs_dashboard.app import Dashboard
from protojobs_dashboard.auth import Auth
from protojobs_dashboard.guards import BODY_BYTES_MAX, ON_THREAD, OnThread
from protojobs_dashboard.page import POLLS

if TYPE_CHECKING:
    from flask import Flask
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DJANGO_REQUEST", "django_urls", "mount_flask"]

DJANGO_REQUEST = "django.request"  # where an auth finds Django's own request: request.scope["django.request"].user

END_S = 5.0  # in which the dashboard notices that its reader has gone
_WsgiApp = Callable[..., Iterable[bytes]]


class _DjangoRequest(Protocol):
    """What of Django's request is used here; Django itself has no types."""

    method: str | None
    scheme: str | None
    path: str
    body: bytes
    headers: Mapping[str, str]
    META: Mapping[str, str]

    def get_host(self) -> str: ...


class _DjangoResponse(Protocol):
    def __setitem__(self, header: str, value: str) -> None: ...


_DjangoView = Callable[[_DjangoRequest, str], Awaitable[_DjangoResponse]]


def mount_flask(app: Flask, path: str, dashboard: Dashboard) -> None:
    """Serve the dashboard below `path` of a Flask application. Pages poll: a stream would hold a thread of the server.

    It stands beside Flask's own routes, so that Flask's sessions and `before_request` do not guard it: give it an auth.
    Needs the extra `wsgi`.
    """
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigurationError(f"{shown(path)} is no path to mount at.", mend='Write it like "/ops/jobs".')
    try:
        from a2wsgi import ASGIMiddleware
    except ImportError as error:
        raise ConfigurationError(
            "Flask takes the dashboard through a2wsgi.", mend='pip install "protojobs-dashboard[wsgi]"'
        ) from error
    to_wsgi = cast("Callable[[ASGIApp], _WsgiApp]", ASGIMiddleware)  # it has its own names for the ASGI types
    within = to_wsgi(_polling(dashboard))
    before = cast("_WsgiApp", app.wsgi_app)

    def wsgi(environ: MutableMapping[str, object], start_response: object) -> Iterable[bytes]:
        asked = str(environ.get("PATH_INFO", ""))
        if asked != path and not asked.startswith(f"{path}/"):
            return before(environ, start_response)
        script = str(environ.get("SCRIPT_NAME", ""))
        return within({**environ, "SCRIPT_NAME": script + path, "PATH_INFO": asked[len(path) :] or "/"}, start_response)

    app.wsgi_app = wsgi  # type: ignore[method-assign]  # as Flask's documentation says to wrap it


def django_urls(dashboard: Dashboard) -> list[object]:
    """Patterns for `path("ops/jobs/", include(django_urls(dashboard)))`, under ASGI (live) and under WSGI (polling).

    Django's middleware runs around it, and an auth finds Django's user in `request.scope["django.request"].user`.
    """
    urls = import_module("django.urls")
    re_path = cast("Callable[[str, object], object]", urls.re_path)
    return [re_path(r"^(?P<inside>.*)$", _django_view(dashboard))]


def _polling(app: ASGIApp) -> ASGIApp:
    async def polling(scope: Scope, receive: Receive, send: Send) -> None:
        environ = cast("dict[str, object]", scope.get("wsgi_environ", {}))
        address = environ.get("REMOTE_ADDR")
        if scope.get("client") is None and isinstance(address, str) and address:  # the adapter wants a port as well
            scope = {**scope, "client": (address, 0)}
        await app({**scope, POLLS: True}, receive, send)

    return polling


def _django_view(dashboard: Dashboard) -> object:
    django = import_module("django.http")
    whole = cast("Callable[..., _DjangoResponse]", django.HttpResponse)
    streamed = cast("Callable[..., _DjangoResponse]", django.StreamingHttpResponse)
    csrf_exempt = cast("Callable[[_DjangoView], object]", import_module("django.views.decorators.csrf").csrf_exempt)

    on_thread = _djangos_thread()

    async def view(request: _DjangoRequest, inside: str) -> _DjangoResponse:
        length = request.headers.get("content-length") or "0"
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:  # before Django reads it into memory
            return whole(f"The request is larger than {BODY_BYTES_MAX} bytes.\n", status=413)
        exchange = _Exchange(request.body)
        scope = {**_django_scope(request, inside), ON_THREAD: on_thread}
        running = asyncio.ensure_future(dashboard(scope, exchange.receive, exchange.send))
        status, headers = await exchange.begun(running)
        if "text/event-stream" in headers.get("content-type", ""):
            response = streamed(exchange.chunks(running), status=status)
        else:
            response = whole(b"".join([chunk async for chunk in exchange.chunks(running)]), status=status)
        for name, value in headers.items():
            if name != "content-length":
                response[name] = value
        return response

    # Its own check (Sec-Fetch-Site, Origin) takes the place of Django's token, which its forms do not have.
    return csrf_exempt(view)


def _djangos_thread() -> OnThread:
    """The thread on which Django runs what is not async, and after each request closes the connections that broke.

    On any other they stay open, and one that the database has closed would fail all that is asked on it from then on.
    """
    to_async = cast("Callable[..., Callable[[], Awaitable[object]]]", import_module("asgiref.sync").sync_to_async)

    def on_thread(auth: Auth, request: Request, /) -> Awaitable[Viewer | None | Awaitable[Viewer | None]]:
        # The lambda, since it refuses coroutine functions.
        asked = to_async(lambda: auth(request), thread_sensitive=True)()
        return cast("Awaitable[Viewer | None | Awaitable[Viewer | None]]", asked)

    return on_thread


def _django_scope(request: _DjangoRequest, inside: str) -> Scope:
    path = request.path
    root = path[: len(path) - len(inside)].rstrip("/")
    address = request.META.get("REMOTE_ADDR")
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method or "GET",
        "scheme": request.scheme or "http",
        "path": f"{root}/{inside}",
        "raw_path": f"{root}/{inside}".encode(),
        "root_path": root,
        "query_string": request.META.get("QUERY_STRING", "").encode("latin-1"),
        "headers": headers,
        "client": (address, 0) if address else None,
        "server": (request.get_host().partition(":")[0], None),
        DJANGO_REQUEST: request,
        POLLS: not hasattr(request, "scope"),  # under WSGI
    }


class _Exchange:
    """One request to an ASGI application, seen from the side of the server."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._sent: asyncio.Queue[Message] = asyncio.Queue(maxsize=16)
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        """The body, once; then nothing until the other side has gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message of the answer; waits while the reader is slow."""
        await self._sent.put(message)

    async def begun(self, running: asyncio.Future[None]) -> tuple[int, dict[str, str]]:
        """The status and the headers. Raises what the application raised before it answered."""
        message = await self._next(running)
        if message is None:
            running.result()
            raise RuntimeError("The dashboard ended without an answer.")
        headers = cast("list[tuple[bytes, bytes]]", message["headers"])
        return int(message["status"]), {name.decode().lower(): value.decode("latin-1") for name, value in headers}

    async def chunks(self, running: asyncio.Future[None]) -> AsyncIterator[bytes]:
        """The answer's body, until its end; a reader that leaves early ends the application too."""
        try:
            while (message := await self._next(running)) is not None:
                yield cast("bytes", message.get("body", b""))
                if not message.get("more_body", False):
                    break
        finally:
            self._gone.set()
            await asyncio.wait({running}, timeout=END_S)
            running.cancel()

    async def _next(self, running: asyncio.Future[None]) -> Message | None:
        """The next message; None when the application has ended and nothing is left."""
        waiting = asyncio.ensure_future(self._sent.get())
        both: set[asyncio.Future[object]] = {
            cast("asyncio.Future[object]", waiting),
            cast("asyncio.Future[object]", running),
        }
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            return None if self._sent.empty() else self._sent.get_nowait()
        finally:
            waiting.cancel()
