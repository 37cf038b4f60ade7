"""Actions by form, as people do them: ask where it is dangerous, do it, and send the browser on to a page."""

from __future__ import annotations

from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from protojobs.errors import OptionInvalid, PayloadError
from protojobs_dashboard.actions import Action, Answer, Given
from protojobs_dashboard.failures import status_of
from protojobs_dashboard.guards import body_of
from protojobs_dashboard.page import Page

__all__ = ["submitted"]

FIELDS_MAX = 1_100  # a thousand ticked jobs, and the rest


def submitted(page: Page, action: Action) -> Response:
    """Do it, and go to the page that shows it; or ask first."""
    given = _given(page)
    if action.ask is not None and page.may_act and not given.maybe("confirmed"):
        return _asked(page, action, given)
    if action.ask is not None and page.may_act:
        question = action.ask(page.inspector, given)
        if question.typed and given.maybe("typed") != question.typed:
            return _asked(page, action, given, "That is not its name.")
    try:
        answer = action.perform(page.inspector, given)
    except PayloadError as error:
        if not action.again:
            raise
        return page.render(action.again, status=status_of(error), error=error, given=given, is_live=False)
    return RedirectResponse(_next(page, action, given, answer), 303)


def _asked(page: Page, action: Action, given: Given, fault: str = "") -> Response:
    assert action.ask is not None
    question = action.ask(page.inspector, given)
    again = {"typed", "confirmed", *question.seen}
    kept = [(name, value) for name, values in given.fields.items() for value in values if name not in again]
    kept += question.seen.items()
    back = _own(given.maybe("back")) or "/jobs"
    return page.render(
        "confirm.html",
        status=400 if fault else 200,
        action=action,
        question=question,
        kept=kept,
        back=back,
        fault=fault,
        is_live=False,
    )


def _given(page: Page) -> Given:
    try:
        text = body_of(page.request).decode()
        return Given(parse_qs(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise OptionInvalid("This is no form of ours.", mend=f"It has at most {FIELDS_MAX} fields, in UTF-8.") from None


def _next(page: Page, action: Action, given: Given, answer: Answer) -> str:
    """The page to go to. Where they came from, if that is a page of ours."""
    told = {"did": action.name, "done": answer.done, "refused": answer.refused}
    to = answer.to or _own(given.maybe("back")) or "/"
    path, _, query = to.partition("?")
    params = [(key, value) for key, value in parse_qsl(query) if key not in told]
    return f"{page.root}{path}?{urlencode([*params, *told.items()])}"


def _own(path: str) -> str:
    """The path, if it is one inside the dashboard; a link of somebody else's may not lead away from it."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return ""
    is_own = path.startswith("/") and not path.startswith("//") and not parts.scheme and not parts.netloc
    return path if is_own and path.isprintable() and "\\" not in path and " " not in path else ""
