"""`protojobs top`: watch queues, workers and running jobs on a terminal, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from protojobs.cli.option_types import duration
from protojobs.cli.options import StoreCommand
from protojobs.cli.session import Session
from protojobs.cli.showing.queue_rows import LOAD_COLUMNS, load_row, workers_line
from protojobs.cli.showing.snapshot import Load, Snapshot, look
from protojobs.cli.showing.tables import Cell, Column, readable, table
from protojobs.cli.showing.text import escaped, length
from protojobs.cli.showing.watching import EVERY_MIN_S
from protojobs.clock import SYSTEM_CLOCK
from protojobs.errors import StoreUnavailable
from protojobs.port.driver import Store
from protojobs.port.lifecycle import JobState
from protojobs.port.records import JobFilter, JobRecord

__all__ = ["command"]

RUNNING_MAX = 500  # running jobs that are read; the oldest of them are shown
_LINES_OF_OTHERS = 12  # headings, gaps, and the lines above the tables
_LINES_MIN = 3
_WORKERS = (
    Column("worker", "id"),
    Column("host"),
    Column("pid", "text"),
    Column("running", "number"),
    Column("slots", "number"),
    Column("heard of", "time"),
    Column("queues"),
)
_RUNNING = (
    Column("running job", "id"),
    Column("name"),
    Column("queue"),
    Column("attempt", "number"),
    Column("for", "number"),
    Column("done", "number"),
)


@click.command("top", cls=StoreCommand, short_help="Watch queues, workers and running jobs.")
@click.option("--every", type=duration, metavar="TIME", default="2s", help="Between two looks.  [default: 2s]")
@click.pass_obj
def command(session: Session, every: float) -> None:
    """Watch queues, workers and running jobs, until Ctrl-C: what has waited or run for longest comes first.

    It takes a terminal. For a pipe there is `protojobs status --watch`.
    """
    if every < EVERY_MIN_S:
        raise click.UsageError(f"--every is at least {EVERY_MIN_S:g}s.", click.get_current_context())
    if session.out.is_json or not session.out.is_terminal:
        raise click.UsageError(
            "This takes a terminal. In a pipe, use: protojobs status --watch", click.get_current_context()
        )
    queue = session.queue()
    screen, rates = _Screen(), _Rates()
    trouble, seen, running = "", look(queue.driver), _running(queue.driver)
    with screen:
        try:
            while True:
                lines = [session.store_name(queue), f"{workers_line(seen)}, {rates.done(seen)}", trouble]
                screen.show(lines, _tables(seen, running, screen.height))
                SYSTEM_CLOCK.sleep(every)
                try:
                    seen, running, trouble = look(queue.driver), _running(queue.driver), ""
                except StoreUnavailable as error:  # whoever watches wants to see it come back
                    trouble = f"{error.message} What is below is old."
        except KeyboardInterrupt:
            return


class _Screen:
    """The terminal while `top` runs, drawn again and again; afterwards it shows what it showed before."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    @property
    def height(self) -> int:
        """How many lines it has."""
        return self._console.height

    def show(self, lines: Sequence[str], tables: Sequence[tuple[Sequence[Column], Sequence[Sequence[str]]]]) -> None:
        """Draw this in place of what was there. Empty tables and lines are left out."""
        parts: list[RenderableType] = [
            Text(escaped(line), style="bold", no_wrap=True, overflow="ellipsis") for line in lines if line
        ]
        for columns, rows in tables:
            if rows:
                parts += [Text(""), table(columns, rows, self._console.width)[0]]
        self._live.update(Group(*parts), refresh=True)


class _Rates:
    """Completed jobs a second, between two looks."""

    def __init__(self) -> None:
        self._before: Snapshot | None = None

    def done(self, seen: Snapshot) -> str:
        before, self._before = self._before, seen
        passed_s = 0.0 if before is None else (seen.at - before.at).total_seconds()
        if before is None or passed_s <= 0:
            return f"{seen.total.completed:,} completed"
        # Pruning takes old ones away meanwhile.
        rate = max(seen.total.completed - before.total.completed, 0) / passed_s
        return f"{seen.total.completed:,} completed, {rate:,.1f} a second"


def _running(store: Store) -> list[JobRecord]:
    page = store.find(JobFilter(states=(JobState.PROCESSING,)), limit=RUNNING_MAX)
    return sorted(page.jobs, key=lambda job: job.reserved_at or job.created_at)


def _tables(
    seen: Snapshot, running: Sequence[JobRecord], height: int
) -> list[tuple[Sequence[Column], list[list[str]]]]:
    """The three tables, each cut so that all have room."""
    room = max(height - _LINES_OF_OTHERS, 3 * _LINES_MIN)
    queues = sorted(seen.queues, key=_by_wait)
    workers = sorted(seen.workers, key=lambda worker: -worker.processing)
    shown = _shares(room, len(queues), len(workers), len(running))
    now = seen.at
    rows: list[list[list[Cell]]] = [
        [load_row(load, is_plain=False) for load in (*queues[: shown[0]], seen.total)],
        [
            [w.id, w.host, str(w.pid), w.processing, w.concurrency, w.heartbeat_at, ",".join(w.queues)]
            for w in workers[: shown[1]]
        ],
        [
            [
                job.id,
                job.job_name,
                job.queue,
                job.attempts,
                length(max((now - (job.reserved_at or now)).total_seconds(), 0.0)),
                None if job.progress is None else f"{job.progress:.0%}",
            ]
            for job in running[: shown[2]]
        ],
    ]
    return [
        (columns, [[readable(cell, now) for cell in line] for line in lines])
        for columns, lines in zip((LOAD_COLUMNS, _WORKERS, _RUNNING), rows, strict=True)
    ]


def _by_wait(load: Load) -> tuple[bool, float, str]:
    return load.is_paused, -(load.oldest_s or 0.0), load.queue


def _shares(room: int, *wanted: int) -> list[int]:
    """How many lines each gets: what it wants, as far as there is room; the room that one leaves goes to the next."""
    shares: list[int] = []
    for index, one in enumerate(wanted):
        shares.append(min(one, room // (len(wanted) - index)))
        room -= shares[-1]
    return shares
