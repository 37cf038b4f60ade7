"""`protojobs failed`: list, show, retry, forget."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import click
import msgspec

from protojobs.cli.asking import YES, confirm
from protojobs.cli.exits import CommandFailed, Exit, exit_of_many
from protojobs.cli.failures import failed_pages, find_failed, last_line
from protojobs.cli.jobs import pretty
from protojobs.cli.options import StoreCommand, StoreGroup, given_ids
from protojobs.cli.output import Cell, Column
from protojobs.cli.session import Session
from protojobs.cli.text import counted
from protojobs.protocols import Store
from protojobs.records import FailedJob, RetryAnswer

__all__ = ["command"]

_COLUMNS = (
    Column("id", "id"),
    Column("queue"),
    Column("name"),
    Column("attempts", "number"),
    Column("failed", "time"),
    Column("error"),
)
_EXAMPLES = 5
_FORGOTTEN = "forgotten"
_EXITS = {RetryAnswer.REQUEUED: Exit.OK, RetryAnswer.CONFLICT: Exit.CONFLICT, RetryAnswer.MISSING: Exit.NOT_FOUND}
_QUEUE = click.option("--queue", metavar="QUEUE", help="Only of this queue.")
_IDS = click.argument("ids", metavar="[ID]...", nargs=-1)


@click.group("failed", cls=StoreGroup, short_help="List, show, retry and forget failed jobs.")
def command() -> None:
    """List, show, retry and forget failed jobs: those whose last attempt failed.

    An ID is that of the failed_jobs row (as `failed list` prints it) or that of the job.
    """


@command.command("list", cls=StoreCommand)
@_QUEUE
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), metavar="N", help="At most so many."
)
@click.option("--cursor", metavar="CURSOR", help="Go on where another list ended.")
@click.pass_obj
def list_failed(session: Session, queue: str | None, limit: int, cursor: str | None) -> None:
    """List failed jobs, newest first.

    Columns: id, queue, name, attempts, when it failed, and the last line of its traceback.
    """
    store = session.store()
    jobs: list[FailedJob] = []
    while True:  # a page may be short and go on
        page = store.failed(queue=queue, limit=min(limit - len(jobs), 500), cursor=cursor)
        jobs += page.jobs
        cursor = page.cursor
        if cursor is None or len(jobs) >= limit:
            break
    rows: list[list[Cell]] = [
        [job.id, job.queue, job.job_name, job.attempts, job.failed_at, last_line(job.exception)] for job in jobs
    ]
    session.out.items("failed.list@1", jobs, _COLUMNS, rows, now=store.now, cursor=cursor)
    if not jobs:
        session.out.note("There are no failed jobs." if queue is None else f'There are no failed jobs in "{queue}".')
    elif cursor is not None and not session.is_json:
        session.out.note(f"There are more: --cursor {cursor}")


@command.command("show", cls=StoreCommand)
@click.argument("failed_id", metavar="ID")
@click.pass_obj
def show(session: Session, failed_id: str) -> None:
    """Show one failed job with its data and the whole traceback."""
    store = session.store()
    job = find_failed(store, [failed_id]).get(failed_id)
    if job is None:
        raise _missing(failed_id)
    fields: list[tuple[str, Cell]] = [
        ("id", job.id),
        ("job id", job.job_id),
        ("queue", job.queue),
        ("name", job.job_name),
        ("class", job.job_class),
        ("attempts", job.attempts),
        ("failed", job.failed_at),
    ]
    blocks = [("data", pretty(job.data)), ("exception", job.exception)]
    session.out.item("failed.show@1", job, fields, blocks=blocks, now=store.now)


@command.command("retry", cls=StoreCommand, short_help="Run failed jobs again.")
@_IDS
@click.option("--all", "is_all", is_flag=True, help="All failed jobs, or all of --queue; counts and asks first.")
@_QUEUE
@YES
@click.pass_obj
def retry(session: Session, ids: Sequence[str], is_all: bool, queue: str | None, yes: bool) -> int:
    """Run failed jobs again, each with its own settings and all its attempts. `-` reads ids from stdin.

    Prints each id with what was done: requeued, conflict (it is not failed any more) or missing.
    """
    _check(ids, queue, is_all=is_all)
    jobs = session.queue()
    if is_all:
        again = _Bulk(
            "Run again", "failed.retry_all@1", tuple(RetryAnswer), lambda rows: Counter(jobs.retry_failed(rows))
        )
        return again.run(session, jobs.driver, queue, is_agreed=yes)
    wanted = given_ids(ids)
    found = find_failed(jobs.driver, wanted)
    told = dict(zip(found, jobs.retry_failed([row.id for row in found.values()]), strict=True))
    answers = [(one, told.get(one, RetryAnswer.MISSING)) for one in wanted]
    return _answered(session, "failed.retry@1", [(one, answer.value, _EXITS[answer]) for one, answer in answers])


@command.command("forget", cls=StoreCommand, short_help="Delete failed jobs for good.")
@_IDS
@click.option("--all", "is_all", is_flag=True, help="All failed jobs, or all of --queue; counts and asks first.")
@_QUEUE
@YES
@click.pass_obj
def forget(session: Session, ids: Sequence[str], is_all: bool, queue: str | None, yes: bool) -> int:
    """Delete failed jobs for good, the job and its failed_jobs row. `-` reads ids from stdin.

    Prints each id with what was done: forgotten or missing.
    """
    _check(ids, queue, is_all=is_all)
    jobs = session.queue()
    if is_all:
        away = _Bulk(
            "Forget", "failed.forget_all@1", (_FORGOTTEN,), lambda rows: Counter({_FORGOTTEN: jobs.forget_failed(rows)})
        )
        return away.run(session, jobs.driver, queue, is_agreed=yes)
    wanted = given_ids(ids)
    found = find_failed(jobs.driver, wanted)
    if "-" in ids:
        confirm(
            session.out,
            f"Forget {counted(len(found), 'failed job')}.",
            map(_words, islice(found.values(), _EXAMPLES)),
            is_agreed=yes,
        )
    jobs.forget_failed([row.id for row in found.values()])
    answers = [(one, _FORGOTTEN, Exit.OK) if one in found else (one, "missing", Exit.NOT_FOUND) for one in wanted]
    return _answered(session, "failed.forget@1", answers)


def _check(ids: Sequence[str], queue: str | None, *, is_all: bool) -> None:
    if is_all and ids:
        raise click.UsageError("Give ids or --all, not both.", click.get_current_context())
    if not is_all and not ids:
        raise click.UsageError("Give the ids of failed jobs, or --all.", click.get_current_context())
    if queue is not None and not is_all:
        raise click.UsageError("--queue goes with --all.", click.get_current_context())


class _Bulk(msgspec.Struct, frozen=True):
    """Something done to all failed jobs: its words, its JSON's name, what may come of it, and the doing of a page."""

    verb: str
    schema: str
    answers: tuple[str, ...]
    act: Callable[[list[str]], Counter[str]]

    def run(self, session: Session, store: Store, queue: str | None, *, is_agreed: bool) -> int:
        """Count, show, ask; then act page by page, newest first. What fails meanwhile is left for the next time."""
        done: Counter[str] = Counter()
        if count := store.stats(queue).failed:
            where = "" if queue is None else f' of queue "{queue}"'
            examples = [_words(job) for job in store.failed(queue=queue, limit=_EXAMPLES).jobs]
            if count > len(examples):
                examples.append(f"and {count - len(examples):,} more")
            confirm(session.out, f"{self.verb}: {counted(count, 'failed job')}{where}.", examples, is_agreed=is_agreed)
            for page in _with_progress(failed_pages(store, queue), count):
                done += self.act([job.id for job in page])
        item = {str(answer): done[answer] for answer in self.answers}
        session.out.item(self.schema, item, list(item.items()))
        return Exit.PARTLY if done[RetryAnswer.CONFLICT] else Exit.OK


def _with_progress(pages: Iterator[Sequence[FailedJob]], count: int) -> Iterator[Sequence[FailedJob]]:
    if not sys.stderr.isatty():
        yield from pages
        return
    with click.progressbar(length=count, file=sys.stderr) as bar:
        for page in pages:
            yield page
            bar.update(len(page))


def _answered(session: Session, schema: str, answers: Sequence[tuple[str, str, Exit]]) -> int:
    items = [{"id": one, "answer": answer} for one, answer, _ in answers]
    rows = [(one, answer) for one, answer, _ in answers]
    session.out.items(schema, items, (Column("id", "id"), Column("answer")), rows)
    return exit_of_many([code for _, _, code in answers])


def _words(job: FailedJob) -> str:
    return f"{job.id}  {job.queue}  {job.job_name}  {last_line(job.exception)[:80]}"


def _missing(failed_id: str) -> CommandFailed:
    return CommandFailed(Exit.NOT_FOUND, f'There is no failed job "{failed_id}".', mend="protojobs failed list")
