"""A log line for what happens to each job: trouble as warnings and errors, the rest as information."""

from __future__ import annotations

import logging
import traceback

from protojobs.events import (
    Event,
    JobCancelled,
    JobEvent,
    JobFailed,
    JobLate,
    JobProcessed,
    JobProcessing,
    JobReclaimed,
    JobReleased,
    JobRetrying,
    JobSnoozed,
)
from protojobs.hooks.hooks import Hooks
from protojobs.jobs.fingerprints import last_line

__all__ = ["is_told", "log_event"]

MESSAGE_CHARS_MAX = 500  # of an exception, in one line; failed_jobs has the whole
_log = logging.getLogger("protojobs.worker")
_TROUBLE = frozenset({"unknown_name", "undecodable", "transform"})  # why a job goes back that somebody must see to
_LEVELS: dict[type[Event], int] = {
    JobProcessing: logging.INFO,
    JobProcessed: logging.INFO,
    JobRetrying: logging.WARNING,
    JobFailed: logging.ERROR,
    JobCancelled: logging.INFO,
    JobSnoozed: logging.INFO,
    JobReleased: logging.INFO,
    JobLate: logging.WARNING,
    JobReclaimed: logging.WARNING,
}


def is_told(hooks: Hooks, kind: type[Event]) -> bool:
    """Whether anybody hears of such events, or a line would be written; ask before making one."""
    return hooks.listens(kind.event_name) or (kind in _LEVELS and _log.isEnabledFor(_LEVELS[kind]))


def log_event(event: JobEvent) -> None:
    """Write the event's line, with job_id, attempt, job_name and queue as fields of the record."""
    level = _LEVELS[type(event)]
    if isinstance(event, JobReleased) and event.reason in _TROUBLE:
        level = logging.WARNING
    if not _log.isEnabledFor(level):
        return
    extra = {"job_id": event.job_id, "attempt": event.attempt, "job_name": event.job_name, "queue": event.queue}
    if isinstance(event, JobFailed):
        extra["exception"] = event.error  # the traceback that failed_jobs keeps; it begins in the job's own code
    try:
        _log.log(level, "%s: %s", event.job_name, _text(event), extra=extra)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  (a handler or a filter of the application's; we are in the claim loop)
        traceback.print_exc()


def _text(event: JobEvent) -> str:
    match event:
        case JobProcessing():
            return "started"
        case JobProcessed():
            return f"done in {event.duration_s:.3f} s"
        case JobRetrying():
            when = f"{event.available_at:%Y-%m-%d %H:%M:%S}Z" if event.available_at else "later"
            return f"failed, runs again at {when}: {_short(event.error)}"
        case JobFailed():
            return f"failed for good: {_short(event.error)}"
        case JobCancelled():
            return f"cancelled: {event.reason}"
        case JobSnoozed():
            return "snoozed"
        case JobReleased(reason="unknown_name"):
            return "put back: no job of this name has been imported here"
        case JobReleased():
            return f"put back: {event.reason}{_why(event.error)}"
        case JobLate():
            when = f"{event.late_s:.1f} s after the last good heartbeat of its claim"
            return f"its result came after its claim had ended, {when}, and was not recorded; the job runs elsewhere"
        case _:
            return "taken back: its worker has not been heard of for its lease"


def _why(error: str) -> str:
    return f": {_short(error)}" if error else ""


def _short(error: str) -> str:
    """Of the text that was made in the job's own thread: the exception's own code may not run in the claim loop."""
    return last_line(error)[:MESSAGE_CHARS_MAX]
