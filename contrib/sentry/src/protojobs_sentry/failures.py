"""The event of a failed attempt: what it says, and in which scope it is sent."""

from __future__ import annotations

import sentry_sdk
from msgspec import Struct
from sentry_sdk.scope import Scope, use_isolation_scope, use_scope
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import event_from_exception

from protojobs.errors import JobRaised
from protojobs.events import JobFailed, JobRetrying

__all__ = ["Seen", "event_of", "name_scope", "report"]

TRACEBACK_CHARS_MAX = 8_000  # of a run in a child process, whose traceback is text
_MECHANISM = {"type": "protojobs", "handled": False}


class Seen(Struct, frozen=True):
    """What is kept of a run that has raised, until the store has said what becomes of the job."""

    isolation: Scope
    current: Scope
    event: tuple[Event, Hint] | None  # made where local variables are asked for: the worker lets go of them


def event_of(error: BaseException, *, local_variables: bool) -> tuple[Event, Hint]:
    """The event of an exception, and the hint that `before_send` gets with it."""
    options = dict(sentry_sdk.get_client().options)
    if not local_variables:
        options["include_local_variables"] = False
    options["add_full_stack"] = False  # the rest of the stack is ours
    return event_from_exception(error, client_options=options, mechanism=_MECHANISM)


def name_scope(scope: Scope, job_name: str, queue: str, facts: dict[str, object]) -> None:
    """Make the isolation scope, entered just now, that of one run: with its name, tags and context, without the
    breadcrumbs before it, and in a trace of its own, or all events of a worker would be one trace.
    """
    scope.clear_breadcrumbs()
    sentry_sdk.get_current_scope().clear_breadcrumbs()  # older releases of the SDK note subprocesses there
    scope.set_new_propagation_context()
    scope.set_transaction_name(job_name, source="task")
    scope.set_tag("job_name", job_name)
    scope.set_tag("queue", queue)
    scope.set_context("job", facts)


def report(failure: JobFailed | JobRetrying, seen: Seen | None) -> None:
    """Send the event, in the scope of its run where that was here: not in a child process, nor in one that died."""
    if failure.exception is None:
        return
    if seen is None:
        with sentry_sdk.isolation_scope() as scope:
            name_scope(scope, failure.job_name, failure.queue, {"id": failure.job_id, "attempt": failure.attempt})
            _send(failure, failure.exception, None)
        return
    with use_isolation_scope(seen.isolation), use_scope(seen.current):
        _send(failure, failure.exception, seen.event)


def _send(failure: JobFailed | JobRetrying, error: BaseException, made: tuple[Event, Hint] | None) -> None:
    event, hint = made or event_of(error, local_variables=False)
    if isinstance(failure, JobRetrying):
        event["level"] = "warning"
    if isinstance(error, JobRaised):
        for last in event.get("exception", {"values": []})["values"][-1:]:
            last["type"], last["value"] = error.type_name, error.raised
        event["extra"] = {"traceback": failure.error[-TRACEBACK_CHARS_MAX:]}
    sentry_sdk.capture_event(event, hint)
