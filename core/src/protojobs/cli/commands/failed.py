"""`protojobs failed`: list, show, retry and forget failed jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict, TypeVar, Unpack

import click

from protojobs.cli.acting.bulk import Bulk
from protojobs.cli.acting.confirmation import YES, confirm
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
from protojobs.cli.options import StoreCommand
from protojobs.cli.other_tools import ForeignNamesGroup
from protojobs.cli.session import Session
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.text import counted, pretty_json
from protojobs.inspector import ForgetAnswer
from protojobs.jobs.fingerprints import last_line
from protojobs.port.records import FailedJob, RetryAnswer

__all__ = ["command"]

_F = TypeVar("_F", bound=Callable[..., object])

_COLUMNS = (
    Column("id", "id"),
    Column("queue"),
    Column("name"),
    Column("attempts", "number"),
    Column("failed", "time"),
    Column("error"),
)
_EXAMPLES = 5
_EXITS = {RetryAnswer.REQUEUED: Exit.OK, RetryAnswer.CONFLICT: Exit.CONFLICT, RetryAnswer.MISSING: Exit.NOT_FOUND}
_FORGOTTEN = {ForgetAnswer.FORGOTTEN: Exit.OK, ForgetAnswer.MISSING: Exit.NOT_FOUND}
_RETRY_ALL = Bulk("retry", "Run again", "failed job", "requeued", "failed.retry_all@1")
_FORGET_ALL = Bulk("forget", "Forget", "failed job", "forgotten", "failed.forget_all@1")
_QUEUE = click.option("--queue", metavar="QUEUE", help="Only of this very queue; `*` is an ordinary character.")
_ALL_HELP = "All failed jobs, or all of --queue; counts and asks first."


class _Selection(TypedDict):
    """Which failed jobs are meant, and whether somebody has agreed already."""

    ids: Sequence[str]
    is_all: bool
    queue: str | None
    where: str
    dry_run: bool
    yes: bool


def _selection_options(function: _F) -> _F:
    for option in (
        YES,
        DRY_RUN,
        WHERE,
        _QUEUE,
        click.option("--all", "is_all", is_flag=True, help=_ALL_HELP),
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        function = option(function)
    return function


@click.group("failed", cls=ForeignNamesGroup, short_help="List, show, retry and forget failed jobs.")
def command() -> None:
    """List, show, retry and forget failed jobs: those whose last attempt failed.

    An ID is that of the failed_jobs row (as `failed list` prints it) or that of the job.
    """


@command.command("list", cls=StoreCommand)
@_QUEUE
@WHERE
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), metavar="N", help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on where another list ended.")
@click.pass_obj
def list_failed(session: Session, queue: str | None, where: str, limit: int, cursor: str | None) -> None:
    """List failed jobs, newest first.

    Columns: id, queue, name, attempts, when it failed, and the last line of its traceback.
    """
    inspector = inspector_of(session)
    query = query_of(where, states=("failed",), queue=queue)
    jobs: list[FailedJob] = []
    for page in listings(inspector, query, limit=limit, cursor=cursor, is_whole=session.is_json):
        jobs += [page.failures[job.id] for job in page.jobs]
        cursor = page.cursor
    rows: list[list[Cell]] = [
        [job.id, job.queue, job.job_name, job.attempts, job.failed_at, last_line(job.exception)] for job in jobs
    ]
    session.out.items("failed.list@1", jobs, _COLUMNS, rows, now=inspector.now, cursor=cursor)
    if not jobs and where:
        session.out.note("No failed jobs match.")
    elif not jobs:
        session.out.note("There are no failed jobs." if queue is None else f'There are no failed jobs in "{queue}".')
    elif cursor is not None and not session.is_json:
        session.out.note(f"There are more: --cursor {cursor}")


@command.command("show", cls=StoreCommand)
@click.argument("failed_id", metavar="ID")
@click.pass_obj
def show(session: Session, failed_id: str) -> None:
    """Show one failed job with its data and the whole traceback."""
    inspector = inspector_of(session)
    job = inspector.failure(failed_id)
    if job is None:
        raise CommandFailed(Exit.NOT_FOUND, f'There is no failed job "{failed_id}".', mend="protojobs failed list")
    fields: list[tuple[str, Cell]] = [
        ("id", job.id),
        ("job id", job.job_id),
        ("queue", job.queue),
        ("name", job.job_name),
        ("class", job.job_class),
        ("attempts", job.attempts),
        ("failed", job.failed_at),
        ("fingerprint", job.fingerprint or None),
    ]
    blocks = [("data", pretty_json(job.data)), ("exception", job.exception)]
    session.out.item("failed.show@1", job, fields, blocks=blocks, now=inspector.now)


@command.command("retry", cls=StoreCommand, short_help="Run failed jobs again.")
@_selection_options
@click.pass_obj
def retry(session: Session, **selected: Unpack[_Selection]) -> int:
    """Run failed jobs again, each with its own settings and all its attempts. `-` reads ids from stdin.

    Prints each id with what was done: requeued, conflict (it is not failed any more) or missing.
    """
    inspector = inspector_of(session)
    if (query := _query(selected)) is not None:
        return _RETRY_ALL.run(session, inspector, query, is_agreed=selected["yes"], is_dry_run=selected["dry_run"])
    wanted = ids_of(selected["ids"])
    answers = [answer for part in _parts(wanted) for answer in inspector.retry(part)]
    results = [(one, answer.value, _EXITS[answer]) for one, answer in zip(wanted, answers, strict=True)]
    return _show_results(session, "failed.retry@1", results)


@command.command("forget", cls=StoreCommand, short_help="Delete failed jobs for good.")
@_selection_options
@click.pass_obj
def forget(session: Session, **selected: Unpack[_Selection]) -> int:
    """Delete failed jobs for good, the job and its failed_jobs row. `-` reads ids from stdin.

    Prints each id with what was done: forgotten or missing.
    """
    inspector = inspector_of(session)
    if (query := _query(selected)) is not None:
        return _FORGET_ALL.run(session, inspector, query, is_agreed=selected["yes"], is_dry_run=selected["dry_run"])
    wanted = ids_of(selected["ids"])
    if "-" in selected["ids"]:
        jobs = filter(None, map(inspector.failure, wanted[:_EXAMPLES]))
        what = f"Forget: {counted(len(wanted), 'failed job')}."
        confirm(session.out, what, map(_line_of, jobs), is_agreed=selected["yes"])
    answers = [answer for part in _parts(wanted) for answer in inspector.forget(part)]
    results = [(one, answer.value, _FORGOTTEN[answer]) for one, answer in zip(wanted, answers, strict=True)]
    return _show_results(session, "failed.forget@1", results)


def _query(selected: _Selection) -> str | None:
    """The query of those that are meant, where they are not named by their ids."""
    ids, is_all, queue, where = selected["ids"], selected["is_all"], selected["queue"], check_where(selected["where"])
    context = click.get_current_context()
    if ids and (is_all or where):
        raise click.UsageError("Give ids, or --all, or --where.", context)
    if not ids and not is_all and not where:
        raise click.UsageError("Give the ids of failed jobs, or --all, or --where.", context)
    if ids and (queue is not None or selected["dry_run"]):
        raise click.UsageError("--queue and --dry-run go with --all or --where.", context)
    return None if ids else query_of(where, states=("failed",), queue=queue)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))


def _show_results(session: Session, schema: str, results: Sequence[tuple[str, str, Exit]]) -> int:
    items = [{"id": one, "answer": answer} for one, answer, _ in results]
    rows = [(one, answer) for one, answer, _ in results]
    session.out.items(schema, items, (Column("id", "id"), Column("answer")), rows)
    return exit_of_many([code for _, _, code in results])


def _line_of(job: FailedJob) -> str:
    return f"{job.id}  {job.queue}  {job.job_name}  {last_line(job.exception)[:80]}"
