"""`protojobs stats`: the number of jobs in each state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import plain_values
from protojobs.cli.showing.queue_rows import COUNTS, counts, queue_item
from protojobs.cli.showing.tables import Cell, Column
from protojobs.cli.showing.watching import WATCH, watched
from protojobs.errors import did_you_mean
from protojobs.port.records import QueueInfo, Stats
from protojobs.queue.queue import JobQueue

__all__ = ["command"]

_COLUMNS = (Column("queue"), *(Column(name, "number") for name in COUNTS))


@click.command("stats", cls=StoreCommand, short_help="How many jobs are in which state.")
@click.argument("queue", required=False)
@WATCH
@click.pass_obj
def command(session: Session, queue: str | None, watch: float | None) -> None:
    """How many jobs are in which state, for each queue and in all, or for one QUEUE.

    Columns: queue, pending (with the scheduled ones), scheduled (not yet due), processing, completed, failed,
    cancelled, total. The last line, TOTAL, is for all queues.
    """
    jobs = session.queue()
    watched(lambda: _show(session, jobs, queue), watch)


def _show(session: Session, jobs: JobQueue, queue: str | None) -> bool:
    stored = jobs.queues()
    if queue is None:
        shown, total = stored, jobs.stats()
    else:
        total = jobs.stats(queue)
        shown = [QueueInfo(name=queue, is_paused=any(q.name == queue and q.is_paused for q in stored), stats=total)]
        if all(info.name != queue for info in stored):
            names = [info.name for info in stored]
            session.out.note(f'There are no jobs in "{queue}". {did_you_mean(queue, names)}'.rstrip())
    if total.is_estimate:
        session.out.note("The numbers of live jobs are estimates: there are more than 100,000.")
    if not session.out.is_json and not shown:
        session.out.note("There are no jobs.")
    more = {"total": plain_values({**counts(total), "is_estimate": total.is_estimate})}
    items = [queue_item(info) for info in shown]
    session.out.items("stats@1", items, _COLUMNS, _rows(shown, None if queue else total), more=more)
    return True


def _rows(shown: Sequence[QueueInfo], total: Stats | None) -> Iterator[list[Cell]]:
    for info in shown:
        yield [info.name, *counts(info.stats).values()]
    if total is not None and shown:
        yield ["TOTAL", *counts(total).values()]
