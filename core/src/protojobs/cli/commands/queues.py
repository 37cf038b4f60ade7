"""`protojobs queues`: list, pause, resume and clear queues."""

from __future__ import annotations

from collections.abc import Iterator

import click

from protojobs.cli.acting.confirmation import YES, confirm
from protojobs.cli.acting.selection import inspector_of
from protojobs.cli.exits import CommandFailed, Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.other_tools import ForeignNamesGroup
from protojobs.cli.session import Session
from protojobs.cli.showing.queue_rows import COUNTS, counts, queue_item
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.text import counted
from protojobs.errors import did_you_mean
from protojobs.inspector import Inspector
from protojobs.port.records import Cleared, QueueInfo

__all__ = ["command"]

_COLUMNS = (Column("queue"), Column("state", "state"), *(Column(name, "number") for name in COUNTS))
_PAGE, _LISTED_MAX = 1_000, 10_000
_NAME = click.argument("name")


@click.group("queues", cls=ForeignNamesGroup, short_help="List, pause, resume and clear queues.")
def command() -> None:
    """List, pause, resume and clear queues."""


@command.command("list", cls=StoreCommand)
@click.pass_obj
def list_queues(session: Session) -> None:
    """List the queues that have jobs or are paused, by name.

    Columns: queue, active or paused, and the numbers of `protojobs stats`.
    """
    queues = list(_all(inspector_of(session)))
    rows: list[list[Cell]] = [
        [info.name, "paused" if info.is_paused else "active", *counts(info.stats).values()] for info in queues
    ]
    session.out.items("queues.list@1", [queue_item(info) for info in queues], _COLUMNS, rows)
    if not queues:
        session.out.note("There are no queues: a queue is there once a job is pushed to it.")


@command.command("pause", cls=StoreCommand, short_help="Stop handing out a queue's jobs.")
@_NAME
@click.pass_obj
def pause(session: Session, name: str) -> None:
    """Stop handing out a queue's jobs, on every worker. Running jobs go on; pushing goes on."""
    inspector = inspector_of(session)
    names = [info.name for info in _all(inspector)]
    has_changed = inspector.pause(name)
    _show_change(session, name, is_paused=True, has_changed=has_changed)
    if name not in names:
        session.out.note(f'Note that "{name}" has no jobs yet. {did_you_mean(name, names)}'.rstrip())


@command.command("resume", cls=StoreCommand)
@_NAME
@click.pass_obj
def resume(session: Session, name: str) -> None:
    """Hand out a paused queue's jobs again."""
    inspector = inspector_of(session)
    paused = [info.name for info in _all(inspector) if info.is_paused]
    has_changed = inspector.resume(name)
    _show_change(session, name, is_paused=False, has_changed=has_changed)
    if not has_changed and (meant := did_you_mean(name, paused)):
        session.out.note(meant)


@command.command("clear", cls=StoreCommand, short_help="Delete a queue's jobs, but for running ones.")
@_NAME
@YES
@click.pass_obj
def clear(session: Session, name: str, yes: bool) -> None:
    """Delete a queue's pending, finished and failed jobs; those being processed stay. Counts and asks first."""
    inspector = inspector_of(session)
    queue = inspector.queue(name)
    if queue is None:
        meant = did_you_mean(name, [info.name for info in _all(inspector)])
        raise CommandFailed(Exit.NOT_FOUND, f'There is no queue "{name}".', mend=meant or "protojobs queues list")
    stats = queue.stats
    numbers = counts(stats)
    examples = [
        f"{numbers[state]:,} {state}" for state in ("pending", "completed", "failed", "cancelled") if numbers[state]
    ]
    if stats.processing:
        examples.append(f"({stats.processing:,} being processed stay)")
    about = "about " if stats.is_estimate else ""
    done = Cleared()
    if doomed := stats.total - stats.processing:
        confirm(
            session.out, f'Delete {about}{counted(doomed, "job")} of queue "{name}" for good:', examples, is_agreed=yes
        )
        done = inspector.clear(name)
    item: dict[str, Cell] = {"queue": name, "pending": done.pending, "completed": done.completed, "failed": done.failed}
    item |= {"cancelled": done.cancelled, "total": done.total}
    session.out.item("queues.clear@1", item, list(item.items()))


def _all(inspector: Inspector) -> Iterator[QueueInfo]:
    """The queues by name, at most 10,000."""
    after, seen = "", 0
    while (page := inspector.queues(after=after, limit=_PAGE)) and seen < _LISTED_MAX:
        yield from page
        after, seen = page[-1].name, seen + len(page)


def _show_change(session: Session, name: str, *, is_paused: bool, has_changed: bool) -> None:
    state = "paused" if is_paused else "active"
    item: dict[str, Cell] = {"queue": name, "is_paused": is_paused, "has_changed": has_changed}
    session.out.item("queues.pause@1", item, [("queue", name), ("state", state)])
    if not has_changed:
        session.out.note(f'"{name}" was {"paused already" if is_paused else "not paused"}.')
