"""Dashboard: the ASGI application. Nothing of it is global, so that one process may mount several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from protojobs import JobQueue
from protojobs.clock import within
from protojobs.errors import Forbidden, ProtojobsError
from protojobs.inspector import Inspector, Role, Viewer
from protojobs_dashboard import api, forms
from protojobs_dashboard.actions import ACTIONS, Action
from protojobs_dashboard.assets import serve_asset
from protojobs_dashboard.auth import Auth
from protojobs_dashboard.examining import Examination
from protojobs_dashboard.failures import status_of
from protojobs_dashboard.guards import Guard, viewer_of
from protojobs_dashboard.live import Live
from protojobs_dashboard.page import POLLS, Look, Page
from protojobs_dashboard.pages import errors, jobs, overview, queues, schedules, system, workers

__all__ = ["PAGES", "Dashboard"]

REQUEST_S = 20.0  # what is asked of the store for one request gives up within so long
READY_S = 5.0
_COUNTED_MAX = 1_000

PAGES: dict[str, Callable[[Page], Response]] = {
    "/": overview.overview,
    "/jobs": jobs.jobs,
    "/jobs/{id}": jobs.job,
    "/jobs/{id}/why": jobs.why,
    "/errors": errors.errors,
    "/errors/{fingerprint}": errors.error,
    "/queues": queues.queues,
    "/queue": queues.queue,
    "/workers": workers.workers,
    "/worker": workers.worker,
    "/schedules": schedules.schedules,
    "/schedule": schedules.schedule,
    "/operations": system.operations,
    "/operations/{id}": system.operation,
    "/system": system.system,
    "/doctor": system.doctor,
    "/audit": system.audit,
}


class Dashboard:
    """A queue's dashboard as an ASGI application: `app.mount("/ops/jobs", Dashboard(queue, auth=...))`.

    Without `auth` (a callable from the request to a Viewer, or None) it serves this machine only. `redact` names fields
    of the jobs' data that nobody sees: `password`, `*.token`. `is_read_only` lets nobody act; with `streams=False`
    pages poll. It opens the store with the first request, and needs no lifespan.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        auth: Auth | None = None,
        title: str = "protojobs",
        redact: Sequence[str] = (),
        is_read_only: bool = False,
        streams: bool = True,
    ) -> None:
        self.queue = queue
        self.auth = auth
        self.live = Live(self._figures)
        # Without a viewer of its own it may nothing: each request sees the store as its own viewer.
        inspector = Inspector(queue, Viewer("", Role.NONE), redact=redact)
        self._look = Look(title=title, inspector=inspector, live=self.live, examination=Examination(), streams=streams)
        self.routes = self._routes()
        inside = Starlette(routes=self.routes, exception_handlers={HTTPException: self._http_failed})
        inside.router.redirect_slashes = False  # it would build an address from the Host header
        self._app: ASGIApp = Guard(inside, auth=auth, is_read_only=is_read_only)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._app(scope, receive, send)

    def _routes(self) -> list[BaseRoute]:
        return [
            Route("/livez", _alive),
            Route("/readyz", self._ready),
            Route("/static/{version}/{name:path}", serve_asset),
            Route("/events", self._events),
            *(Route(f"/{action.name}", self._form(action), methods=["POST"]) for action in ACTIONS),
            *(Route(f"/api/v1/{action.name}", self._call(action), methods=["POST"]) for action in ACTIONS),
            *(Route(f"/api/v1{path}", self._read(read)) for path, read in api.READS.items()),
            *(Route(path, self._page(view)) for path, view in PAGES.items()),
        ]

    # --------------------------------------------------------------------------------------------- from verbs to routes

    def _page(self, view: Callable[[Page], Response]) -> Callable[[Request], Response]:
        return lambda request: self._served(request, view)

    def _form(self, action: Action) -> Callable[[Request], Response]:
        return lambda request: self._served(request, lambda page: self._done(forms.submitted(page, action)))

    def _read(self, read: Callable[[Page], object]) -> Callable[[Request], Response]:
        return lambda request: self._called(request, lambda page: api.answered(page, read))

    def _call(self, action: Action) -> Callable[[Request], Response]:
        return lambda request: self._called(request, lambda page: self._done(api.acted(page, action)))

    def _done(self, answer: Response) -> Response:
        self.live.touch()
        return answer

    def _served(self, request: Request, view: Callable[[Page], Response]) -> Response:
        page = Page(request, self._look)
        try:
            with within(REQUEST_S):
                return view(page)
        except ProtojobsError as error:
            return page.render("failed.html", status=status_of(error), error=error, is_live=False)

    def _called(self, request: Request, view: Callable[[Page], Response]) -> Response:
        try:
            with within(REQUEST_S):
                return view(Page(request, self._look))
        except ProtojobsError as error:
            return api.failed(error)

    def _http_failed(self, request: Request, error: Exception) -> Response:
        """An address that there is not, or a method that it does not take."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = error.headers if isinstance(error, HTTPException) else None
        words = "There is no such page." if status == 404 else "That cannot be done with this address."
        answer = PlainTextResponse(f"{words}\n", status, headers)
        if "/api/v1/" in request.url.path:
            return api.not_found() if status == 404 else answer
        if viewer_of(request).role is Role.NONE:
            return answer
        return Page(request, self._look).render(
            "missing.html", status=status, what=words, back="/", words="Overview", is_live=False
        )

    # ------------------------------------------------------------------------------------------ probes and signals

    def _ready(self, request: Request) -> Response:
        """Whether the store answers. Says no more, since anybody may ask."""
        try:
            with within(READY_S):
                self.queue.driver.stats(counted_max=1)
        except ProtojobsError:
            return PlainTextResponse("the store does not answer\n", 503)
        return PlainTextResponse("ok\n")

    async def _events(self, request: Request) -> Response:
        viewer = viewer_of(request)
        if viewer.role not in (Role.READ, Role.OPERATE):
            return api.failed(Forbidden("You may not look at these jobs."))
        if not self._look.streams or request.scope.get(POLLS) or self.live.is_full:
            return Response(status_code=204)  # they poll
        seen = request.headers.get("last-event-id", "")
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        return StreamingResponse(self.live.stream(seen), headers=headers, media_type="text/event-stream")

    def _figures(self) -> Hashable:
        """Cheap, and different after whatever shows on a page: counts, and who holds how many jobs."""
        driver = self.queue.driver
        with within(READY_S):
            stats, held = (
                driver.stats(counted_max=_COUNTED_MAX),
                [(worker.id, worker.processing) for worker in driver.workers()],
            )
        return (*(getattr(stats, name) for name in stats.__struct_fields__), *held)


async def _alive(_request: Request) -> Response:
    """That this process serves; neither the store is asked nor a thread, which may all wait for it."""
    return PlainTextResponse("ok\n")
