"""Findings about what was configured: settings that work against each other, plugins, schedules that nobody fires."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from protojobs.config import Settings
from protojobs.doctor.wording import at, counted, listed, span
from protojobs.port.diagnosis import Finding, Severity
from protojobs.port.schedules import Schedule, SchedulePage

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["of_plugins", "of_schedules", "of_settings"]

LEASE_MIN_S = 10.0  # a machine that is moved, or pages, stands still for seconds
STOP_MAX_S = 80.0  # systemd kills after 90 s, Kubernetes after 30 s, Docker after 10 s, unless told otherwise
MEMORY_MIN = 64 * 1024 * 1024  # a worker with nothing of yours in it has half of that
OVERDUE_S = 60.0  # tickers look every second
_SCHEDULES_PAGE, _SCHEDULES_PAGES_MAX = 100, 20


def of_settings(settings: Settings) -> Iterator[Finding]:
    """Settings that are allowed, and will hurt."""
    unwise = list(_unwise(settings))
    yield from unwise
    if not unwise:
        yield Finding(code="settings", severity=Severity.OK, what="No settings work against each other.")


def _unwise(settings: Settings) -> Iterator[Finding]:
    lease = settings.lease
    if lease < LEASE_MIN_S:
        yield _warning(
            "lease_short",
            f"lease is {lease:g} s.",
            "A worker whose machine stands still for so long loses its jobs to others, which run them a second time.",
            f"Set lease to {LEASE_MIN_S:g} or more; the default is 60.",
        )
    if settings.poll_interval > lease / 2:
        yield _warning(
            "poll_beyond_lease",
            f"poll_interval ({settings.poll_interval:g} s) is more than half of lease ({lease:g} s).",
            "Idle workers look for the jobs of dead ones too seldom, and for new ones where the store cannot ring.",
            "Lower poll_interval; the default is 1.",
        )
    if settings.timeout == 0:
        yield _warning(
            "no_timeout",
            "timeout is 0: unless a job says otherwise, its run may go on for ever.",
            "A run that hangs holds its slot until the worker is stopped.",
            "Set timeout to more than your longest job takes, and timeout=0 on those jobs that need it.",
        )
    if settings.failed_job_retention == 0:
        yield _warning(
            "failed_not_kept",
            "failed_job_retention is 0: failed jobs are deleted within an hour or so.",
            "They cannot be looked at or retried afterwards.",
            "Set failed_job_retention (hours); the default is 168.",
        )
    if settings.shutdown_grace + settings.exit_bound > STOP_MAX_S:
        yield _warning(
            "stop_long",
            f"A stop may take {settings.shutdown_grace + settings.exit_bound:g} s (shutdown_grace + exit_bound).",
            "Process managers kill what has not ended in their own time: systemd after 90 s, Kubernetes after 30 s.",
            "Raise TimeoutStopSec or terminationGracePeriodSeconds above it, or lower shutdown_grace.",
        )
    if 0 < settings.max_memory < MEMORY_MIN:
        yield _warning(
            "memory_small",
            f"max_memory is {settings.max_memory:,} bytes.",
            "A worker has about as much before your own code is imported, and would stop again and again.",
            "Set max_memory to several hundred million bytes, or 0 for no limit.",
        )


def of_plugins(queue: JobQueue) -> Iterator[Finding]:
    """Plugins that cannot be used; nothing where all can."""
    for name, why in queue.hooks.missing.items():
        yield Finding(
            code="plugin_broken",
            severity=Severity.ERROR,
            what=f'The plugin "{name}" of the setting plugins cannot be used here: {why.removesuffix(".")}.',
            why="It may be one that encrypts, so nothing is pushed or run without it.",
            mend=f"Mend it (protojobs plugins), or leave it out: PROTOJOBS_PLUGINS_DISABLED={name}",
        )
    for name, why in queue.hooks.left_out.items():
        yield _warning(
            "plugin_broken",
            f'The installed plugin "{name}" is left out: {why.removesuffix(".")}.',
            "What it does, to jobs or with events, is not done.",
            f"Mend it (protojobs plugins), or disable it: PROTOJOBS_PLUGINS_DISABLED={name}",
        )


def of_schedules(queue: JobQueue) -> Iterator[Finding]:
    """Schedules that are overdue, those that cannot be read, and those whose job is not known here."""
    yield _overdue(queue)
    pages = list(_pages(queue))
    if unreadable := [one for page in pages for one in page.unreadable]:
        yield Finding(
            code="schedule_unreadable",
            severity=Severity.ERROR,
            what=f"{counted(len(unreadable), 'schedule')} cannot be read here: "
            f"{listed([one.id for one in unreadable])}; of the first: {unreadable[0].why}.",
            why="They never fire. A newer release has stored them, or a foreign hand.",
            mend="Upgrade what fires schedules here, or protojobs schedules remove ID.",
        )
    if not any(True for _ in queue.registry):
        return  # no application is imported here: all of its jobs would look unknown
    every = (one for page in pages for one in page.schedules)
    unknown = [one for one in every if queue.registry.find(one.job_name) is None]
    if unknown:
        yield _warning(
            "schedule_job_unknown",
            f"{counted(len(unknown), 'schedule')} of jobs that nobody here knows: {listed(_ids(unknown))}.",
            "What they fire waits until a worker knows the job's name.",
            "Name the module that has the job with --app, or protojobs schedules remove ID.",
        )
    else:
        yield Finding(code="schedule_job_unknown", severity=Severity.OK, what="The job of every schedule is known.")


def _overdue(queue: JobQueue) -> Finding:
    due = queue.driver.due_schedules(_SCHEDULES_PAGE)
    late = [one for one in due.schedules if (due.now - (one.next_due_at or due.now)).total_seconds() > OVERDUE_S]
    if not late:
        return Finding(code="schedules_overdue", severity=Severity.OK, what="No schedule is overdue.")
    first = late[0]
    late_s = (due.now - (first.next_due_at or due.now)).total_seconds()
    is_lost = any((due.now - (one.next_due_at or due.now)).total_seconds() > one.catch_up for one in late)
    return Finding(
        code="schedules_overdue",
        severity=Severity.ERROR if is_lost else Severity.WARNING,
        what=f"{counted(len(late), 'schedule')} should have fired: {listed(_ids(late))}; the first was due at"
        f" {at(first.next_due_at)}, {span(late_s)} ago.",
        why="Nobody ticks. "
        + ("Times beyond catch_up are lost." if is_lost else "Times are lost once beyond catch_up."),
        mend="Start a worker (each ticks, unless it has --no-scheduler) or `protojobs scheduler`.",
    )


def _pages(queue: JobQueue) -> Iterator[SchedulePage]:
    cursor: str | None = None
    for _ in range(_SCHEDULES_PAGES_MAX):
        page = queue.driver.list_schedules(limit=_SCHEDULES_PAGE, cursor=cursor)
        yield page
        if (cursor := page.cursor) is None:
            return


def _ids(schedules: list[Schedule]) -> list[str]:
    return [one.id for one in schedules]


def _warning(code: str, what: str, why: str, mend: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, what=what, why=why, mend=mend)
