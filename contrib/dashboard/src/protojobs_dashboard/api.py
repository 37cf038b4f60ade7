"""The JSON API below /api/v1/: the same verbs as the pages, through the same Inspector and the same guard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from protojobs.errors import OptionInvalid, ProtojobsError
from protojobs_dashboard.actions import Action, Given
from protojobs_dashboard.failures import status_of
from protojobs_dashboard.guards import body_of
from protojobs_dashboard.page import Page

__all__ = ["READS", "acted", "answered", "failed", "not_found"]

LIMIT_MAX = 200


def _jobs(page: Page) -> object:
    return page.inspector.jobs(page.param("q"), limit=_limit(page), cursor=page.param("cursor") or None)


def _errors(page: Page) -> object:
    return page.inspector.errors(limit=_limit(page))


def _error(page: Page) -> object:
    fingerprint = page.request.path_params["fingerprint"]
    return page.inspector.error(fingerprint, limit=_limit(page), cursor=page.param("cursor") or None)


def _queues(page: Page) -> object:
    return page.inspector.queues(after=page.param("after"), limit=_limit(page))


def _schedule(page: Page) -> object:
    found = page.inspector.schedule(page.param("id"))
    return None if found is None else {"schedule": found, "next": page.inspector.next_times(found, 10)}


def _series(page: Page) -> object:
    return page.inspector.series(_minutes(page), queue=page.param("queue"), job_name=page.param("job"))


def _rates(page: Page) -> object:
    return page.inspector.rates(_minutes(page), by="queue" if page.param("by") == "queue" else "job_name")


# path below /api/v1 -> what it answers; None is answered with 404
READS: Mapping[str, Callable[[Page], object]] = {
    "/overview": lambda page: page.inspector.overview(),
    "/jobs": _jobs,
    "/jobs/count": lambda page: page.inspector.count(page.param("q")),
    "/jobs/{id}": lambda page: page.inspector.job(page.request.path_params["id"]),
    "/jobs/{id}/explain": lambda page: page.inspector.explain(page.request.path_params["id"]),
    "/errors": _errors,
    "/errors/{fingerprint}": _error,
    "/queues": _queues,
    "/queue": lambda page: page.inspector.queue(page.param("name")),
    "/workers": lambda page: page.inspector.workers(),
    "/worker": lambda page: page.inspector.worker(page.param("id")),
    "/schedules": lambda page: page.inspector.schedules(limit=_limit(page), cursor=page.param("cursor") or None),
    "/schedule": _schedule,
    "/series": _series,
    "/rates": _rates,
    "/depths": lambda page: page.inspector.depths(_minutes(page), queue=page.param("queue") or None),
    "/operations": lambda page: page.inspector.operations(),
    "/operations/{id}": lambda page: page.inspector.operation(page.request.path_params["id"]),
    "/system": lambda page: page.inspector.system(),
    "/doctor": lambda page: page.inspector.doctor(),
    "/audit": lambda page: page.inspector.audit(limit=_limit(page), cursor=page.param("cursor") or None),
}


def answered(page: Page, read: Callable[[Page], object]) -> Response:
    """What was asked for, as JSON."""
    value = read(page)
    return _json(value) if value is not None else not_found()


def acted(page: Page, action: Action) -> Response:
    """Do it at once: a program is not asked whether it is sure."""
    return _json(action.perform(page.inspector, _given(page.request)).value)


def failed(error: ProtojobsError) -> Response:
    """Why not, as JSON."""
    facts = {"code": type(error).__name__, "message": error.message, "mend": error.mend}
    return _json({"error": facts}, status_of(error))


def not_found() -> Response:
    """There is no such thing."""
    return _json({"error": {"code": "NotFound", "message": "There is no such thing.", "mend": ""}}, 404)


def _given(request: Request) -> Given:
    try:
        value = cast("object", msgspec.json.decode(body_of(request) or b"{}"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise OptionInvalid(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise OptionInvalid("The body is no JSON object.", mend='Send {"ids": [...]} or the like.')
    given = cast("dict[str, object]", value)
    return Given({name: _texts(name, one) for name, one in given.items()})


def _texts(name: str, value: object) -> list[str]:
    values: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str)]
    if len(texts) != len(values):
        raise OptionInvalid(f'"{name}" is neither a text nor a list of texts.')
    return texts


def _json(value: object, status: int = 200) -> Response:
    # All but ASCII is escaped: halves of surrogate pairs, which UTF-8 cannot carry, come through as well.
    text = json.dumps(msgspec.to_builtins(value, str_keys=True))
    return Response(text + "\n", status, media_type="application/json")


def _limit(page: Page) -> int:
    return page.number("limit", 50, maximum=LIMIT_MAX)


def _minutes(page: Page) -> int:
    return page.number("minutes", 60, maximum=10_080)
