"""`protojobs status`: show on one screen whether all is well; `--fail-if` makes it an exit code."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from protojobs.cli.exits import Exit
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.output import plain_values
from protojobs.cli.showing.queue_rows import LOAD_COLUMNS, load_row, workers_line
from protojobs.cli.showing.snapshot import Snapshot, look
from protojobs.cli.showing.thresholds import Threshold, counted_for, threshold
from protojobs.cli.showing.watching import WATCH, watched
from protojobs.doctor.wording import listed, worker_of
from protojobs.errors import did_you_mean

__all__ = ["command"]

_TYPED_MAX = 10  # queues in a command to be copied


@click.command("status", cls=StoreCommand, short_help="Whether all is well, on one screen.")
@click.option(
    "--fail-if",
    "thresholds",
    type=threshold,
    multiple=True,
    metavar="'WORD>VALUE'",
    help="Exit with 1 if that is so: 'oldest>5m', 'queue:emails ready>1000', 'workers<1'. Repeatable.",
)
@WATCH
@click.pass_obj
def command(session: Session, thresholds: tuple[Threshold, ...], watch: float | None) -> int:
    """Whether all is well: the workers, and what waits in each queue.

    Columns: queue, active or paused, ready, running, scheduled (not yet due), failed, for how long the oldest ready
    job has waited (in a pipe in seconds), workers that serve the queue, and their slots. The last line, TOTAL, is for
    all queues; its oldest leaves paused ones out. A number with a + means that or more.

    \b
    protojobs status --fail-if 'oldest>5m' --fail-if 'workers<1'
    protojobs status --fail-if 'queue:emails ready>=1000'
    """
    queue = session.queue()
    store_name = session.store_name(queue)
    counted_max = counted_for(thresholds)
    code = Exit.OK

    def show() -> bool:
        nonlocal code
        seen = look(queue.driver, counted_max=counted_max)
        _show(session, seen, store_name)
        crossed = [why for one in thresholds if (why := one.crossed(seen))]
        for why in crossed:
            session.out.note(f"failed: {why}")
        _note_unserved(session, seen, queue.settings.app)
        _note_unknown(session, seen, thresholds)
        code = Exit.BAD if crossed else Exit.OK
        return not crossed

    watched(show, watch)
    return code


def _show(session: Session, seen: Snapshot, store_name: str) -> None:
    out = session.out
    if out.is_json:
        workers = {"alive": len(seen.workers), "lapsed": seen.lapsed, "slots": seen.total.slots, "busy": seen.busy}
        items: Sequence[object] = [msgspec.structs.asdict(load) for load in seen.queues]
        total = {**msgspec.structs.asdict(seen.total), "queue": None}
        more = {"store": store_name, "at": plain_values(seen.at), "workers": workers, "total": plain_values(total)}
        out.items("status@1", items, (), (), more=more)
        return
    out.note(f"{store_name}: {workers_line(seen)}")
    loads = [*seen.queues, seen.total] if seen.queues else []
    out.items("status@1", (), LOAD_COLUMNS, [load_row(load, is_plain=not out.is_terminal) for load in loads])
    if not loads:
        out.note("There are no jobs.")


def _note_unserved(session: Session, seen: Snapshot, apps: Sequence[str]) -> None:
    left = [load for load in seen.queues if load.ready and not load.workers and not load.is_paused]
    if left:
        names = [load.queue for load in left]
        command = worker_of(apps, *names[:_TYPED_MAX])
        session.out.note(f"No worker serves {listed(names)}, where jobs are due. Start one: {command}")


def _note_unknown(session: Session, seen: Snapshot, thresholds: Sequence[Threshold]) -> None:
    names = [load.queue for load in seen.queues]
    for name in {one.queue for one in thresholds if one.queue is not None and one.queue not in names}:
        session.out.note(f'Note that there is no queue "{name}". {did_you_mean(name, names)}'.rstrip())
