"""What a worker says on stderr: log lines as text or JSON, and a line for each job that needs one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

from protojobs import events
from protojobs.cli.text import escaped, escaped_lines, iso
from protojobs.events import Event, JobEvent, Listener

__all__ = ["LEVELS", "FORMATS", "job_lines", "level_of", "logging_to_stderr"]

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("text", "json")
_ORDINARY = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_log = logging.getLogger("protojobs.worker")


def level_of(name: str | None, verbosity: int) -> int:
    """The level: by name, else warnings, with -v information about each job, with -vv everything."""
    if name is not None:
        return logging.getLevelNamesMapping()[name.upper()]
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]


@contextmanager
def logging_to_stderr(level: int, form: str, *, quiet_others: bool) -> Generator[None]:
    """All logging of the process goes to stderr, for the time being. An application may still set up its own.

    `quiet_others`: below warnings only protojobs and its jobs are heard (`ctx.log`), and no libraries.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    root, ours = logging.getLogger(), logging.getLogger("protojobs")
    before = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING) if quiet_others else level)
    ours.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])


@contextmanager
def job_lines(level: int) -> Generator[None]:
    """Log what happens to jobs: trouble always, each run from level INFO on. Costs nothing for what is not logged."""
    wanted = _TROUBLE | (_EACH_RUN if level <= logging.INFO else {})
    for name, listener in wanted.items():
        events.on(name, listener)
    try:
        yield
    finally:
        for name, listener in wanted.items():
            events.off(name, listener)


def _line(level: int, event: Event, text: str, **more: str) -> None:
    job = cast("JobEvent", event)
    extra = {"job_id": job.job_id, "attempt": job.attempt, "job_name": job.job_name, "queue": job.queue, **more}
    _log.log(level, "%s: %s", job.job_name, text, extra=extra)


def _processing(event: Event) -> None:
    _line(logging.INFO, event, "started")


def _processed(event: Event) -> None:
    _line(logging.INFO, event, f"done in {event.get('duration_s', 0.0):.3f} s")


def _retrying(event: Event) -> None:
    due = event.get("available_at")
    when = iso(due) if isinstance(due, datetime) else "later"
    _line(logging.WARNING, event, f"failed, runs again at {when}: {_short(event.get('exception'))}")


def _failed(event: Event) -> None:
    # `error` is the traceback that failed_jobs keeps: it begins in the job's own code.
    _line(logging.ERROR, event, f"failed for good: {_short(event.get('exception'))}", exception=str(event.get("error")))


def _cancelled(event: Event) -> None:
    _line(logging.INFO, event, f"cancelled: {event.get('reason')}")


def _snoozed(event: Event) -> None:
    _line(logging.INFO, event, "snoozed")


def _released(event: Event) -> None:
    if event.get("reason") == "unknown_name":
        _line(logging.WARNING, event, "put back: no such job is known here; name its module with --app")
    else:
        _line(logging.INFO, event, f"put back: {event.get('reason')}")


_TROUBLE: dict[str, Listener] = {"job.retrying": _retrying, "job.failed": _failed, "job.released": _released}
_EACH_RUN: dict[str, Listener] = {
    "job.processing": _processing,
    "job.processed": _processed,
    "job.cancelled": _cancelled,
    "job.snoozed": _snoozed,
}


def _short(error: object) -> str:
    return f"{type(error).__name__}: {error}" if str(error or "") else type(error).__name__


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class _TextLines(logging.Formatter):
    """`2026-11-24T13:40:35.123456Z WARNING protojobs.worker: text [job 0193... attempt 2]`."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{iso(_moment(record))} {record.levelname:7} {record.name}: {escaped(record.getMessage())}"]
        if job_id := getattr(record, "job_id", None):
            parts.append(f" [job {escaped(str(job_id))} attempt {getattr(record, 'attempt', '?')}]")
        exception = getattr(record, "exception", "")
        if record.exc_info and record.exc_info[0]:
            exception = self.formatException(record.exc_info)
        parts += [f"\n    {line}" for line in escaped_lines(exception.rstrip())] if exception else []
        return "".join(parts)


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever the record has beside (job_id, attempt)."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": iso(_moment(record)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _ORDINARY:
                line[name] = value if isinstance(value, str | int | float | bool | None) else str(value)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
