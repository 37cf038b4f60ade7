"""Log lines on stderr, as text or JSON: how `worker` and `scheduler` set up logging."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from protojobs.cli.showing.text import escaped, escaped_lines, iso
from protojobs.clock import SYSTEM_CLOCK
from protojobs.logs import JobFields

__all__ = ["FORMATS", "LEVELS", "json_line", "level_of", "logging_to_stderr", "say_json"]

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("text", "json")
AUDIT = "protojobs.audit"  # who has done what, by the dashboard or its API: to be kept, however quiet the rest is
_ORDINARY = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def level_of(name: str | None, verbosity: int) -> int:
    """The level: by name, else warnings, with -v information about each job, with -vv everything."""
    if name is not None:
        return logging.getLevelNamesMapping()[name.upper()]
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]


@contextmanager
def logging_to_stderr(level: int, form: str, *, quiet_others: bool, names_process: bool = False) -> Generator[None]:
    """All logging of the process goes to stderr, for the time being. An application may still set up its own.

    What a job's own code logs carries its id, attempt, name and queue. Audit lines pass at any level.
    `quiet_others`: below warnings only protojobs and its jobs are heard (`ctx.log`), and no libraries.
    `names_process`: each line carries the pid, for several processes that write to one stderr.
    """
    handler = logging.StreamHandler(sys.stderr)
    pid = os.getpid() if names_process else None
    handler.addFilter(JobFields())
    handler.setFormatter(_JsonLines(pid) if form == "json" else _TextLines(pid))
    root, ours, audit = (logging.getLogger(name) for name in (None, "protojobs", AUDIT))
    before = root.level, ours.level, audit.level
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING) if quiet_others else level)
    ours.setLevel(level)
    audit.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        audit.setLevel(before[2])


def say_json(message: str, **facts: object) -> None:
    """Write a line to stderr that is none of logging's, such as the banner, in the form of the others."""
    click.echo(json_line(message, **facts), err=True)


def json_line(message: str, **facts: object) -> str:
    """That line."""
    time = iso(SYSTEM_CLOCK.now())
    return json.dumps({"time": time, "level": "info", "logger": "protojobs.cli", "message": escaped(message), **facts})


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class _TextLines(logging.Formatter):
    """`2026-11-24T13:40:35.123456Z WARNING shop: text [job 0193... attempt 2, mail.welcome in emails]`, maybe a pid.

    A line that begins with the job's name, as those of the worker do, does not say it again.
    """

    def __init__(self, pid: int | None) -> None:
        super().__init__()
        self._process = "" if pid is None else f" [pid {pid}]"

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        parts = [f"{iso(_moment(record))} {record.levelname:7} {record.name}: {escaped(message)}"]
        parts += [_which_job(record, message), self._process]
        exception = getattr(record, "exception", "")
        if record.exc_info and record.exc_info[0]:
            exception = self.formatException(record.exc_info)
        parts += [f"\n    {line}" for line in escaped_lines(exception.rstrip())] if exception else []
        return "".join(parts)


def _which_job(record: logging.LogRecord, message: str) -> str:
    fields = vars(record)
    if not (job_id := fields.get("job_id")):
        return ""
    attempt = fields.get("attempt")  # none yet: it has just been fired
    job = f"job {job_id}{f' attempt {attempt}' if attempt else ''}"
    name, queue = fields.get("job_name"), fields.get("queue")
    if name and queue and not message.startswith(f"{name}:"):
        job += f", {name} in {queue}"
    return f" [{escaped(job)}]"


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever the record has beside (job_id, attempt)."""

    def __init__(self, pid: int | None) -> None:
        super().__init__()
        self._process: dict[str, object] = {} if pid is None else {"pid": pid}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": iso(_moment(record)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._process,
        }
        for name, value in vars(record).items():
            if name not in _ORDINARY:
                line[name] = value if isinstance(value, str | int | float | bool | None) else str(value)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
