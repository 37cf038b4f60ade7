"""`protojobs transfer`: move the backlog of one store to another. Called again, it goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import Output
from protojobs.cli.showing.text import counted
from protojobs.errors import SchemaOutdated
from protojobs.port.driver import Store
from protojobs.port.installed_drivers import create_driver
from protojobs.port.records import Stats
from protojobs.port.urls import masked
from protojobs.transfer import TransferReport, are_one_store, token_for, transfer

__all__ = ["command"]

_LINES = 10  # progress in a pipe: a line for each tenth


@click.command("transfer", cls=StoreCommand, short_help="Move the backlog of one store to another.")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@click.option("--batch", type=click.IntRange(1, 1_000), default=500, show_default=True, help="Jobs in one step.")
@click.option("--token", help="Go on with the transfer of this token.  [default: made from DESTINATION]")
@YES
@click.pass_obj
def command(session: Session, source: str, destination: str, batch: int, token: str | None, yes: bool) -> None:
    """Move every pending, scheduled and failed job, and the schedules, from the store at the URL SOURCE to that at
    DESTINATION.

    Ids, data, settings, attempts, times and tracebacks are kept. Jobs that workers hold stay, and so do finished ones.
    Killed at any moment, nothing is lost and nothing doubled: type the same again, and it goes on.
    """
    if session.url is not None:
        raise click.UsageError("transfer takes two stores as arguments, and no --url.")
    with closing(create_driver(source)) as here, closing(create_driver(destination)) as there:
        source_stats, destination_stats = _counts(here, source), _counts(there, destination)
        _check(here, there)
        name = token or token_for(destination)
        session.out.note(f"{masked(source)}: {_words(source_stats)}")
        session.out.note(f"{masked(destination)}: {_words(destination_stats)}")
        for queue in sorted(_paused(here) - _paused(there)):
            session.out.note(f'Queue "{queue}" is paused at the source only: its jobs will run at the destination.')
        backlog = source_stats.pending + source_stats.failed
        confirm(
            session.out,
            f"Move {counted(backlog, 'job')}, and what an earlier run has left (token {name}).",
            is_agreed=yes,
        )
        report = _carried_out(here, there, name, batch, backlog)
    _show(session.out, report, name)


def _carried_out(here: Store, there: Store, token: str, batch: int, backlog: int) -> TransferReport:
    moved = 0

    def note(number: int) -> None:
        nonlocal moved
        moved = number
        show(number)

    with _progress(backlog) as show:
        try:
            return transfer(here, there, token=token, batch=batch, progress=note)
        except KeyboardInterrupt:
            raise CommandFailed(
                Exit.INTERRUPTED,
                f"Interrupted. {counted(moved, 'job')} moved; up to {batch} are on their way.",
                mend=f"the same again; it goes on with token {token}",
            ) from None


def _show(out: Output, report: TransferReport, token: str) -> None:
    fields = [
        ("moved", report.moved),
        ("already there", report.already_there),
        *([("schedules", report.schedules)] if report.schedules else []),
        ("left pending", report.pending),
        ("left failed", report.failed),
        ("left held", report.processing),
        ("left moving", report.moving),
    ]
    out.item("transfer@1", report, [("token", token), *fields], more={"token": token})
    if report.is_complete:
        return
    why = ["Not all has moved."]
    if report.processing:
        why.append(f"Workers of the source hold {counted(report.processing, 'job')}: stop them.")
    if report.pending or report.failed:
        why.append("The source is still written to: stop that.")
    if report.moving:
        why.append(f"{counted(report.moving, 'job')} belong to a transfer with another token: finish that one.")
    raise CommandFailed(Exit.PARTLY, " ".join(why), mend="the same again, then")


def _counts(driver: Store, url: str) -> Stats:
    try:
        return driver.stats()
    except SchemaOutdated as error:
        raise CommandFailed(Exit.NOT_MIGRATED, error.message, mend=f"protojobs migrate --url {masked(url)}") from error


def _check(here: Store, there: Store) -> None:
    if not (here.capabilities.durable and there.capabilities.durable):
        raise CommandFailed(Exit.USAGE, "A memory store ends with this command, and its jobs with it.")
    if are_one_store(here, there):
        raise CommandFailed(Exit.USAGE, "Source and destination are the same store.")


def _paused(driver: Store) -> set[str]:
    return {queue.name for queue in driver.queues() if queue.is_paused}


def _words(stats: Stats) -> str:
    return (
        f"{stats.pending:,} pending ({stats.scheduled:,} of them later), {stats.failed:,} failed, "
        f"{stats.processing:,} processing, {stats.completed + stats.cancelled:,} finished"
    )


@contextmanager
def _progress(total: int) -> Generator[Callable[[int], None]]:
    """How far it is, on stderr: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    columns = (TextColumn("moving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("moving", total=total)
        yield lambda moved: bar.update(task, completed=moved, total=max(total, moved))


def _lines(total: int) -> Callable[[int], None]:
    step = max(total // _LINES, 1)
    shown = 0

    def show(moved: int) -> None:
        nonlocal shown
        if moved // step > shown:
            shown = moved // step
            click.echo(f"{moved:,} of {max(total, moved):,} jobs", err=True)

    return show
