"""`protojobs jobs`: list, show, watch and cancel jobs, and print their results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import click

from protojobs.cli.acting.bulk import Bulk
from protojobs.cli.acting.confirmation import YES
from protojobs.cli.acting.selection import (
    DRY_RUN,
    IDS_AT_ONCE,
    WHERE,
    check_where,
    ids_of,
    inspector_of,
    listings,
    query_of,
)
from protojobs.cli.exits import CommandFailed, Exit, exit_of_many
from protojobs.cli.option_types import duration
from protojobs.cli.options import StoreCommand
from protojobs.cli.other_tools import ForeignNamesGroup
from protojobs.cli.session import Session
from protojobs.cli.showing.output import decoded, plain_values
from protojobs.cli.showing.tables import Cell, Column, plain
from protojobs.cli.showing.text import escaped_lines, iso, pretty_json
from protojobs.clock import SYSTEM_CLOCK
from protojobs.jobs.fingerprints import last_line
from protojobs.port.lifecycle import FINISHED, JobState
from protojobs.port.observing import AttemptNote
from protojobs.port.records import CancelAnswer, JobRecord

__all__ = ["command"]

_COLUMNS = (
    Column("id", "id"),
    Column("queue"),
    Column("name"),
    Column("state", "state"),
    Column("attempts", "number"),
    Column("when", "time"),
)
_STATES = ", ".join(state.value for state in JobState)
_ALL = Bulk("cancel", "Cancel", "job", "cancelled", "jobs.cancel_all@1")
_CANCELLED = {
    CancelAnswer.CANCELLED: Exit.OK,
    CancelAnswer.REQUESTED: Exit.OK,
    CancelAnswer.FINISHED: Exit.CONFLICT,
    CancelAnswer.MISSING: Exit.NOT_FOUND,
}


@click.group("jobs", cls=ForeignNamesGroup, short_help="List, show and cancel jobs.")
def command() -> None:
    """List, show and cancel jobs."""


@command.command("list", cls=StoreCommand)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([s.value for s in JobState]),
    metavar="STATE",
    help=f"{_STATES}. Repeatable.",
)
@click.option("--queue", metavar="QUEUE", help="Only of this very queue; `*` is an ordinary character.")
@click.option("--name", metavar="NAME", help="Only jobs of this name; `*` stands for any characters.")
@WHERE
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), metavar="N", help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on where another list ended.")
@click.pass_obj
def list_jobs(  # noqa: PLR0913  (the options)
    session: Session,
    states: Sequence[str],
    queue: str | None,
    name: str | None,
    where: str,
    limit: int,
    cursor: str | None,
) -> None:
    """List jobs, newest first; failed ones by when they failed.

    Columns: id, queue, name, state, attempts, and when it is due (pending), was taken (processing) or has ended.
    """
    inspector = inspector_of(session)
    query = query_of(where, states=states, queue=queue, name=name)
    jobs: list[JobRecord] = []
    for page in listings(inspector, query, limit=limit, cursor=cursor, is_whole=session.is_json):
        jobs += page.jobs
        cursor = page.cursor
    rows: list[list[Cell]] = [
        [job.id, job.queue, job.job_name, job.status.value, job.attempts, _moment(job)] for job in jobs
    ]
    session.out.items("jobs.list@1", jobs, _COLUMNS, rows, now=inspector.now, cursor=cursor)
    if not jobs:
        session.out.note("No jobs match." if query else "There are no jobs.")
    elif cursor is not None and not session.is_json:
        session.out.note(f"There are more: --cursor {cursor}")


@command.command("show", cls=StoreCommand, short_help="Show everything about one job.")
@click.argument("job_id", metavar="ID")
@click.pass_obj
def show(session: Session, job_id: str) -> None:
    """Show everything about one job: its settings, times, data, the attempts that went wrong, and the traceback of a
    failed one.
    """
    inspector = inspector_of(session)
    view = inspector.job(job_id)
    if view is None:
        raise CommandFailed(Exit.NOT_FOUND, f'There is no job "{job_id}".', mend="protojobs jobs list")
    job, failure = view.job, view.failure
    blocks = [("data", pretty_json(job.data))]
    if view.result is not None:
        blocks.append(("result", pretty_json(view.result)))
    if job.meta:
        blocks.append(("meta", pretty_json(job.meta)))
    if view.attempts:
        blocks.append(("attempts", "\n".join(map(_attempt, view.attempts))))
    if failure is not None:
        blocks.append(("exception", failure.exception))
    more: dict[str, object] = {"attempts_noted": [plain_values(note) for note in view.attempts]}
    more |= {"result": decoded(view.result)} if view.result is not None else {}
    more |= {"failed_id": failure.id, "exception": failure.exception} if failure else {}
    fields = [*_fields(job), ("failed id", failure.id if failure else None)]
    session.out.item("jobs.show@1", job, fields, blocks=blocks, now=inspector.now, more=more)


@command.command("result", cls=StoreCommand, short_help="Print what a job has returned.")
@click.argument("job_id", metavar="ID")
@click.option("--wait", type=duration, metavar="TIME", help="Wait until the job has ended, at most so long: 30s, 5m.")
@click.pass_obj
def result(session: Session, job_id: str, wait: float | None) -> None:
    """Print what a job has returned, as JSON. The job must say `store_result=True`.

    Exit code 4 and the reason on stderr where there is no result: it has not ended, has failed or was cancelled, or
    keeps none; 3 where there is no such job.
    """
    inspector, queue = inspector_of(session), session.queue()
    if wait is not None:
        queue.wait_for(job_id, wait)
    queue.result(job_id)  # raises, and says why, where there is none
    view = inspector.job(job_id)
    text = "null" if view is None or view.result is None else view.result
    if session.is_json:
        session.out.item("jobs.result@1", {"id": job_id}, (), more={"result": decoded(text)})
    else:
        for line in escaped_lines(pretty_json(text)):
            click.echo(line)


@command.command("watch", cls=StoreCommand, short_help="Show a job's state and progress until it has ended.")
@click.argument("job_id", metavar="ID")
@click.option("--for", "within", type=duration, metavar="TIME", help="Stop watching after so long: 30s, 5m.")
@click.pass_obj
def watch(session: Session, job_id: str, within: float | None) -> Exit:
    """Show a job's state and progress, a line for each change, until it has ended.

    Columns: time, state, attempt, progress, reason. Exit code 0 once it has completed, else 4.
    """
    state = JobState.PENDING
    for job in session.queue().watch(job_id, within):
        state = job.status
        if session.is_json:
            click.echo(json.dumps({"at": iso(SYSTEM_CLOCK.now()), **cast("dict[str, object]", plain_values(job))}))
            continue
        done = "" if job.progress is None else f"{job.progress:.0%}"
        row: list[Cell] = [SYSTEM_CLOCK.now(), state.value, f"attempt {job.attempts}", done, job.reason or ""]
        click.echo("\t".join(plain(cell) for cell in row).rstrip())
    return Exit.OK if state is JobState.COMPLETED else Exit.CONFLICT


@command.command("cancel", cls=StoreCommand, short_help="Cancel pending or running jobs.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--reason", default="", help="Why, for people; kept with the job.")
@WHERE
@DRY_RUN
@YES
@click.pass_obj
def cancel(session: Session, ids: Sequence[str], reason: str, where: str, dry_run: bool, yes: bool) -> int:
    """Cancel jobs: pending ones at once; for processing ones the worker is asked to. `-` reads ids from stdin.

    Prints each id with what was done: cancelled, requested, finished (it had ended before) or missing. With --where it
    counts and asks first.
    """
    inspector = inspector_of(session)
    if check_where(where) and (ids or reason):
        raise click.UsageError("--where goes without ids and --reason.", click.get_current_context())
    if where:
        return _ALL.run(session, inspector, where, is_agreed=yes, is_dry_run=dry_run)
    if not ids or dry_run:
        raise click.UsageError("Give the ids of jobs, or --where.", click.get_current_context())
    wanted = ids_of(ids)
    answers: list[CancelAnswer] = []
    for start in range(0, len(wanted), IDS_AT_ONCE):
        answers += inspector.cancel(wanted[start : start + IDS_AT_ONCE], reason=reason)
    pairs = [(job_id, answer.value) for job_id, answer in zip(wanted, answers, strict=True)]
    items = [{"id": job_id, "answer": answer} for job_id, answer in pairs]
    session.out.items("jobs.cancel@1", items, (Column("id", "id"), Column("answer")), pairs)
    if CancelAnswer.REQUESTED in answers:
        session.out.note("requested: the job is running; its worker stops it at its next heartbeat, if it can.")
    return exit_of_many([_CANCELLED[answer] for answer in answers])


def _attempt(note: AttemptNote) -> str:
    took_s = (note.ended_at - note.started_at).total_seconds()
    why = f": {last_line(note.error)}" if note.error else ""
    return f"{note.attempt}  {iso(note.started_at)}  {took_s:.3f} s  {note.result.value}{why}"


def _moment(job: JobRecord) -> Cell:
    if job.status in FINISHED:
        return job.processed_at
    return job.reserved_at if job.status is JobState.PROCESSING else job.available_at


def _fields(job: JobRecord) -> list[tuple[str, Cell]]:
    return [
        ("id", job.id),
        ("state", job.status.value),
        ("queue", job.queue),
        ("name", job.job_name),
        ("class", job.job_class),
        ("priority", job.priority),
        ("attempts", f"{job.attempts} of {job.max_retries + 1}"),
        ("retry delay", f"{job.retry_delay:g} s"),
        ("retry policy", job.retry_policy),
        ("timeout", f"{job.timeout:g} s" if job.timeout else "none"),
        ("created", job.created_at),
        ("due", job.available_at),
        ("taken", job.reserved_at),
        ("taken by", job.reserved_by or None),
        ("ended", job.processed_at),
        ("progress", None if job.progress is None else f"{job.progress:.0%}"),
        ("cancel asked", job.cancel_requested_at),
        ("reason", job.reason or None),
        ("lent", job.claim_seq),
        ("returns", job.returns or None),
        ("reclaims", job.reclaims or None),
        ("crashes", job.crashes or None),
    ]
