"""`protojobs jobs`: list, show, cancel."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from protojobs.cli.exits import CommandFailed, Exit, exit_of_many
from protojobs.cli.failures import find_failed
from protojobs.cli.options import StoreCommand, StoreGroup, given_ids
from protojobs.cli.output import Cell, Column
from protojobs.cli.session import Session
from protojobs.lifecycle import FINISHED, JobState
from protojobs.records import CancelAnswer, JobFilter, JobRecord

__all__ = ["command", "pretty"]

_COLUMNS = (
    Column("id", "id"),
    Column("queue"),
    Column("name"),
    Column("state", "state"),
    Column("attempts", "number"),
    Column("when", "time"),
)
_PAGE_MAX = 500
_STATES = ", ".join(state.value for state in JobState)
_CANCELLED = {
    CancelAnswer.CANCELLED: Exit.OK,
    CancelAnswer.REQUESTED: Exit.OK,
    CancelAnswer.FINISHED: Exit.CONFLICT,
    CancelAnswer.MISSING: Exit.NOT_FOUND,
}


@click.group("jobs", cls=StoreGroup, short_help="List, show and cancel jobs.")
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
@click.option("--queue", metavar="QUEUE", help="Only of this queue.")
@click.option("--name", metavar="NAME", help="Only jobs of this name.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), metavar="N", help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on where another list ended.")
@click.pass_obj
def list_jobs(
    session: Session, states: Sequence[str], queue: str | None, name: str | None, limit: int, cursor: str | None
) -> None:
    """List jobs, newest first.

    Columns: id, queue, name, state, attempts, and when it is due (pending), was taken (processing) or has ended.
    """
    store = session.store()
    which = JobFilter(states=tuple(JobState(state) for state in states), queue=queue, job_name=name)
    jobs: list[JobRecord] = []
    while True:  # a page may be short and go on
        page = store.find(which, limit=min(limit - len(jobs), _PAGE_MAX), cursor=cursor)
        jobs += page.jobs
        cursor = page.cursor
        if cursor is None or len(jobs) >= limit:
            break
    rows: list[list[Cell]] = [
        [job.id, job.queue, job.job_name, job.status.value, job.attempts, _moment(job)] for job in jobs
    ]
    session.out.items("jobs.list@1", jobs, _COLUMNS, rows, now=store.now, cursor=cursor)
    if not jobs:
        session.out.note("No jobs match." if states or queue or name else "There are no jobs.")
    elif cursor is not None and not session.is_json:
        session.out.note(f"There are more: --cursor {cursor}")


@command.command("show", cls=StoreCommand, short_help="Show everything about one job.")
@click.argument("job_id", metavar="ID")
@click.pass_obj
def show(session: Session, job_id: str) -> None:
    """Show everything about one job: its settings, times, data, and the traceback of a failed one."""
    store = session.store()
    job = next(iter(store.get([job_id])), None)
    if job is None:
        raise CommandFailed(Exit.NOT_FOUND, f'There is no job "{job_id}".', mend="protojobs jobs list")
    failure = find_failed(store, [job_id]).get(job_id) if job.status is JobState.FAILED else None
    blocks = [("data", pretty(job.data))]
    if job.meta:
        blocks.append(("meta", pretty(job.meta)))
    if failure is not None:
        blocks.append(("exception", failure.exception))
    more = {"failed_id": failure.id, "exception": failure.exception} if failure else None
    fields = [*_fields(job), ("failed id", failure.id if failure else None)]
    session.out.item("jobs.show@1", job, fields, blocks=blocks, now=store.now, more=more)


@command.command("cancel", cls=StoreCommand, short_help="Cancel pending or running jobs.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Why, for people; kept with the job.")
@click.pass_obj
def cancel(session: Session, ids: Sequence[str], reason: str) -> int:
    """Cancel jobs: pending ones at once; for processing ones the worker is asked to. `-` reads ids from stdin.

    Prints each id with what was done: cancelled, requested, finished (it had ended before) or missing.
    """
    store, wanted = session.store(), given_ids(ids)
    answers: list[CancelAnswer] = []
    for start in range(0, len(wanted), _PAGE_MAX):
        answers += store.cancel(wanted[start : start + _PAGE_MAX], reason=reason)
    pairs = [(job_id, answer.value) for job_id, answer in zip(wanted, answers, strict=True)]
    items = [{"id": job_id, "answer": answer} for job_id, answer in pairs]
    session.out.items("jobs.cancel@1", items, (Column("id", "id"), Column("answer")), pairs)
    if CancelAnswer.REQUESTED in answers:
        session.out.note("requested: the job is running; its worker stops it at its next heartbeat, if it can.")
    return exit_of_many([_CANCELLED[answer] for answer in answers])


def pretty(text: str) -> str:
    """JSON with indentation; what is no JSON as it is."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return msgspec.json.format(text, indent=2)


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
