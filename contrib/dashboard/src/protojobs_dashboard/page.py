"""One request as a page sees it: who asks, what for, and the way from a template to an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from protojobs.errors import OptionInvalid, shown
from protojobs.inspector import Inspector, Role
from protojobs.querying import quoted
from protojobs_dashboard import text
from protojobs_dashboard.actions import notice
from protojobs_dashboard.assets import asset_path
from protojobs_dashboard.examining import Examination
from protojobs_dashboard.guards import viewer_of
from protojobs_dashboard.live import Live

__all__ = ["POLLS", "Look", "Page", "url_of"]

POLLS = "protojobs_dashboard.polls"  # in the scope: whoever serves this cannot stream
PARAM_CHARS_MAX = 16_000  # a name of a foreign store may be long


class Look(Struct, frozen=True, kw_only=True):
    """What all pages of one dashboard share."""

    title: str
    inspector: Inspector
    live: Live
    examination: Examination
    streams: bool


class Page:
    """What a view is given."""

    def __init__(self, request: Request, look: Look) -> None:
        self.request = request
        self.look = look
        self.viewer = viewer_of(request)
        self.inspector = look.inspector.seen_by(self.viewer)

    @property
    def may_act(self) -> bool:
        """Whether buttons are shown. What is allowed, the Inspector decides."""
        return self.viewer.role is Role.OPERATE

    @cached_property
    def now(self) -> datetime:
        """Store time; one round trip, unless a view has set what it knows already."""
        return self.inspector.now()

    @property
    def root(self) -> str:
        """Where the dashboard is mounted."""
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    @property
    def here(self) -> str:
        """This page inside the dashboard, for coming back to it."""
        path = self.request.scope["path"].removeprefix(self.root) or "/"
        query = urlencode([(key, value) for key, value in self.request.query_params.multi_items() if key in _KEPT])
        return quote(path) + (f"?{query}" if query else "")

    @property
    def fresh(self) -> str:
        """Where the region that changes is fetched again."""
        return self.root + self.here

    @property
    def section(self) -> str:
        """The menu entry that this page belongs to."""
        first = self.here.partition("?")[0].split("/")[1]
        return _SECTIONS.get(first, f"/{first}")

    @property
    def is_part(self) -> bool:
        """Whether only the region that changes is asked for."""
        return self.request.headers.get("hx-request") == "true"

    def param(self, name: str, default: str = "") -> str:
        """A parameter of the address."""
        value = self.request.query_params.get(name, default)
        if len(value) > PARAM_CHARS_MAX:
            raise OptionInvalid(f"{name} has {len(value)} characters.", mend=f"At most {PARAM_CHARS_MAX} are allowed.")
        return value

    def number(self, name: str, default: int, *, minimum: int = 1, maximum: int) -> int:
        """A whole number of the address."""
        given = self.param(name)
        if not given:
            return default
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
        if not minimum <= number <= maximum:
            raise OptionInvalid(f"{name} is {shown(given, 40)}.", mend=f"It goes from {minimum} to {maximum}.")
        return number

    def url(self, path: str, **params: object) -> str:
        """The address of a page of ours; parameters that are empty are left out."""
        return url_of(self.root, path, params)

    def _asset(self, name: str) -> str:
        return self.root + asset_path(name)

    def _age(self, moment: datetime | None) -> Markup:
        return text.age(moment, self.now)

    def _when(self, moment: datetime | None) -> Markup:
        return text.when(moment, self.now)

    def _notice(self) -> str:
        try:
            numbers = [self.number(name, 0, minimum=0, maximum=999_999_999) for name in ("done", "refused")]
            return notice(self.param("did"), *numbers)
        except OptionInvalid:  # an address that we have not made
            return ""

    def render(self, template: str, *, status: int = 200, **values: object) -> Response:
        """The page; or of it the part that changes, where a page that is open fetches it again."""
        context: dict[str, object] = {
            "page": self,
            "frame": "part.html" if self.is_part else "layout.html",
            "url": self.url,
            "asset": self._asset,
            "age": self._age,
            "when": self._when,
            "duration": text.duration,
            "notice": self._notice(),
            "is_live": True,
            "is_streamed": self.look.streams and not self.request.scope.get(POLLS),
            **values,
        }
        body = _environment().get_template(template).render(context)
        return HTMLResponse(body, status, {"Vary": "HX-Request"})


_SECTIONS = {"queue": "/queues", "worker": "/workers", "schedule": "/schedules", "doctor": "/system"}

# What stays in the address when a page is left for an action and come back to.
_KEPT = frozenset({"q", "cursor", "name", "id", "minutes", "after", "limit"})


def url_of(root: str, path: str, params: Mapping[str, object]) -> str:
    """An address inside the dashboard."""
    given = [(key, str(value)) for key, value in params.items() if value not in (None, "")]
    query = urlencode(given, errors="replace")
    return root + path + (f"?{query}" if query else "")


def _segment(value: object) -> str:
    return quote(str(value), safe="", errors="replace")


def _first_line(value: str) -> str:
    """The last line that says something: of a traceback the exception itself."""
    return next((line.strip() for line in reversed(value.splitlines()) if line.strip()), "")


_FILTERS: Mapping[str, Callable[..., object]] = {
    "editable": text.editable,
    "exact": text.exact,
    "short": text.short,
    "seconds": text.seconds,
    "compact": text.compact,
    "counted": text.counted,
    "percent": text.percent,
    "laid_out": text.laid_out,
    "segment": _segment,
    "error_line": _first_line,
    "quoted": quoted,
}
_made: list[Environment] = []


def _environment() -> Environment:
    if not _made:
        environment = Environment(
            loader=PackageLoader("protojobs_dashboard"),
            autoescape=True,
            finalize=text.visible,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(_FILTERS)
        _made.append(environment)
    return _made[0]
