"""What every request passes before a page sees it: who, from where, for whom, how much; and the headers of the answer.

Closed by default: without an `auth` only this machine is served, under a name of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Protocol, cast
from urllib.parse import urlsplit

import anyio.to_thread
from msgspec.structs import replace
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protojobs.inspector import Role, Viewer
from protojobs_dashboard.auth import Auth, client_address, is_loopback

__all__ = ["BODY_BYTES_MAX", "NO_AUTH_MEND", "ON_THREAD", "Guard", "OnThread", "body_of", "viewer_of"]

BODY_BYTES_MAX = 4 * 1024 * 1024  # a job's data of one megabyte, written as a form, takes three
NO_AUTH_MEND = (
    "Give it an auth: Dashboard(queue, auth=BasicAuth({...})), TokenAuth or TrustedHeader, or a function of your own"
    " from the request to a Viewer; on the command line set PROTOJOBS_DASHBOARD_AUTH=user:password."
)
OPEN_PATHS = ("/static/", "/livez", "/readyz")  # nothing of the store is in them
SAFE_METHODS = frozenset({"GET", "HEAD"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
ON_THREAD = "protojobs_dashboard.on_thread"  # in the scope: how the site around it runs what may wait for its database
_VIEWER, _BODY = "protojobs_dashboard.viewer", "protojobs_dashboard.body"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_log = logging.getLogger("protojobs.dashboard")


class OnThread(Protocol):
    """Runs an auth on a thread."""

    def __call__(self, auth: Auth, request: Request, /) -> Awaitable[Viewer | None | Awaitable[Viewer | None]]:
        """What the auth returns, also where that is a coroutine."""
        ...


class Guard:
    """ASGI middleware around the whole dashboard."""

    def __init__(self, app: ASGIApp, *, auth: Auth | None, is_read_only: bool) -> None:
        self._app = app
        self._auth = auth
        self._is_read_only = is_read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or answer why not."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = _with_headers(send)
        refusal = await self._refusal(request)
        if refusal is None:
            await self._app(scope, receive, answer)
        else:
            await refusal(scope, receive, answer)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        """Why this is not served; None when it is, and then the viewer and the body lie in the scope."""
        path = _path(request)
        is_open = request.method in SAFE_METHODS and (path.startswith(OPEN_PATHS[0]) or path in OPEN_PATHS)
        if is_open:
            return None
        if self._auth is None and (refusal := _off_loopback(request)) is not None:
            return refusal
        viewer = await self._viewer(request)
        if viewer is None:
            challenge = getattr(self._auth, "challenge", "")
            headers = {"WWW-Authenticate": challenge} if challenge else None
            return _refused(401, "Nobody that this dashboard knows. Sign in, and come again.", headers)
        request.scope[_VIEWER] = viewer
        if request.method in SAFE_METHODS:
            return None
        if _is_cross_site(request, path):
            _log.warning("refused %s %r of %s: it comes from elsewhere", request.method, path, viewer.name)
            return _refused(403, "Changes are taken from the dashboard's own pages only (Sec-Fetch-Site, Origin).")
        return await _read_body(request)

    async def _viewer(self, request: Request) -> Viewer | None:
        if self._auth is None:
            viewer: Viewer | None = Viewer("local", Role.OPERATE, client_address(request))
        else:
            # On a thread: it may ask a database. Of a coroutine function only the coroutine is made there.
            run = cast("OnThread", request.scope.get(ON_THREAD, anyio.to_thread.run_sync))
            found = await run(self._auth, request)
            viewer = await found if isinstance(found, Awaitable) else found
        if viewer is None:
            return None
        role = Role.READ if self._is_read_only and viewer.role is Role.OPERATE else viewer.role
        return replace(viewer, role=role, address=viewer.address or client_address(request))


def viewer_of(request: Request) -> Viewer:
    """Who is looking. Only behind the guard; everybody else may nothing."""
    viewer = request.scope.get(_VIEWER)
    return viewer if isinstance(viewer, Viewer) else Viewer("", Role.NONE)


def body_of(request: Request) -> bytes:
    """The body that the guard has read."""
    body = request.scope.get(_BODY, b"")
    return body if isinstance(body, bytes) else b""


def _off_loopback(request: Request) -> Response | None:
    """Without an auth: the connection must come from this machine, through no proxy, to a name of this machine.

    The name is the browser's: a page of elsewhere whose own name leads to 127.0.0.1 (DNS rebinding) cannot change it.
    """
    words = ""
    if not is_loopback(client_address(request)):
        words = "This dashboard has no auth, so it serves only this machine."
    elif any(header in request.headers for header in _FORWARDED):
        words = "This dashboard has no auth, so it does not serve through a proxy."
    elif not is_loopback(_host_name(request.headers.get("host", ""))):
        words = "This dashboard has no auth, so it answers to localhost and 127.0.0.1 only."
    return _refused(403, f"{words} {NO_AUTH_MEND}") if words else None


def _is_cross_site(request: Request, path: str) -> bool:
    """A change must come from our own pages; what a browser says of its request cannot be forged by another page."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site != "same-origin"
    if origin is not None:
        return _netloc(origin) != request.headers.get("host", "").lower()
    # No browser sends neither. A script's JSON could not come from a page of elsewhere without asking before.
    return not (path.startswith("/api/") and _is_json(request))


async def _read_body(request: Request) -> Response | None:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                return _refused(413, f"The request is larger than {BODY_BYTES_MAX} bytes.", {"Connection": "close"})
            chunks.append(chunk)
    except ClientDisconnect:
        return _refused(400, "The request has no end.")
    request.scope[_BODY] = b"".join(chunks)
    return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


def _refused(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(words + "\n", status, headers)


def _path(request: Request) -> str:
    """The path inside the dashboard, wherever it is mounted."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    inside = path.removeprefix(root) if path.startswith(root) else path
    return str(inside) or "/"


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None  # "null" has none
    except ValueError:
        return None


def _host_name(host: str) -> str:
    """The name in a Host header; nothing where the header holds more than a name and a port, as `[::1].evil.example`
    does, of which Python reads `::1`.
    """
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return ""
    return name if host.lower() == (f"[{name}]" if ":" in name else name) + port else ""


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
