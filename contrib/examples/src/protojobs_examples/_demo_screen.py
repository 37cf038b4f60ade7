"""What the demo prints: progress on stderr, as bars on a terminal and lines in a pipe; the outcome on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from protojobs.port.records import FailedJob
from protojobs_examples._demo_shop import QUEUES, Promise
from protojobs_examples._demo_tally import Count, Tally

__all__ = ["Screen"]

_LOOK_S = 0.1
_LINE_EVERY_S = 1.0  # in a pipe: enough to see that it moves
_TRACE_LINES = 4


class Screen:
    """Both streams."""

    def __init__(self) -> None:
        self._words = Console(stderr=True, highlight=False)
        self._out = Console(highlight=False)
        self._started = time.monotonic()

    def heading(self, text: str) -> None:
        """A step of the story."""
        self._words.print()
        self._words.print(Text(text, style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """A line of it."""
        self._words.print(Text(f"  {text}", style=style), soft_wrap=True)

    def watch(self, tally: Tally, timeout_s: float, is_alive: Callable[[], bool]) -> None:
        """Show how the jobs go, until all have ended, the worker has, or `timeout_s` is over."""
        deadline = time.monotonic() + timeout_s
        with Progress(
            TextColumn("  {task.fields[queue]:<12}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._words,
            disable=not self._words.is_terminal,
        ) as progress:
            bars = {
                queue: progress.add_task("", total=count.pushed, queue=queue, note="")
                for queue, count in tally.counts.items()
            }
            next_line = time.monotonic() + _LINE_EVERY_S
            while True:
                is_over = tally.all_ended.wait(_LOOK_S) or not is_alive() or time.monotonic() > deadline
                for queue, count in tally.counts.items():
                    progress.update(bars[queue], completed=count.ended, note=_note(count))
                if not self._words.is_terminal and (is_over or time.monotonic() >= next_line):
                    next_line += _LINE_EVERY_S
                    counts = [f"{queue} {count.ended}/{count.pushed}" for queue, count in tally.counts.items()]
                    self.say(f"{time.monotonic() - self._started:4.1f} s  {'  '.join(counts)}")
                if is_over:
                    return

    def table(self, tally: Tally) -> None:
        """The numbers of every queue."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for title in ("  queue", "job"):
            table.add_column(title)
        for title in ("pushed", "completed", "retried", "failed", "run time"):
            table.add_column(title, justify="right")
        for queue, count in tally.counts.items():
            table.add_row(
                f"  {queue}",
                QUEUES[queue],
                str(count.pushed),
                Text(str(count.completed), style="green"),
                Text(str(count.retried), style="yellow" if count.retried else "dim"),
                Text(str(count.failed), style="red" if count.failed else "dim"),
                f"{count.run_s * 1000:,.0f} ms",
            )
        self._out.print()
        self._out.print(table)

    def promises(self, promises: Sequence[Promise]) -> None:
        """What was promised, and whether it was kept."""
        self._out.print()
        for text, is_kept in promises:
            mark = Text("  ok      ", style="green") if is_kept else Text("  BROKEN  ", style="bold red")
            self._out.print(mark.append(Text(text, style="not bold default")), soft_wrap=True)

    def failed_job(self, job: FailedJob) -> None:
        """The story of the failed job: how often it was tried, why it failed, and where."""
        self._line()
        self._line(f"The failed job: {job.job_class}", "bold")
        self._line(f"  id          {job.id}")
        self._line(f"  data        {job.data}")
        self._line(f"  attempts    {job.attempts}, given up at {job.failed_at:%H:%M:%S} UTC")
        self._line("  traceback   (its end)")
        for line in job.exception.rstrip().splitlines()[-_TRACE_LINES:]:
            self._line(f"    {line}", "red" if not line.startswith(" ") else "dim")

    def commands(self, title: str, lines: Sequence[str]) -> None:
        """Commands to copy."""
        self._line()
        self._line(title, "bold")
        for line in lines:
            self._line(f"  {line}", "dim" if line.startswith("#") else "cyan")

    def kept(self, folder: Path) -> None:
        """Where everything is."""
        self._line()
        self._line(f"Kept in {folder}: yours to look at, and to delete.")

    def _line(self, text: str = "", style: str = "") -> None:
        # Never wrapped: a path or a command that is cut in two cannot be copied.
        self._out.print(Text(text, style=style), soft_wrap=True)


def _note(count: Count) -> Text:
    note = Text()
    if count.retried:
        note.append(f"{count.retried} {'retry' if count.retried == 1 else 'retries'}  ", style="yellow")
    if count.failed:
        note.append(f"{count.failed} failed", style="red")
    return note
