"""The results of the conformance kit: progress while it runs, and the report at its end."""

from __future__ import annotations

from typing import Protocol

import click
from msgspec import Struct
from rich import progress
from rich.console import Console

from protojobs.cli.showing.output import Output
from protojobs.cli.showing.tables import Column
from protojobs.cli.showing.text import escaped, escaped_lines

__all__ = ["Counts", "Ended", "Progress", "Report", "shown_progress", "write_report"]

_WORDS = {"passed": "passed", "failed": "failed", "not_claimed": "not claimed", "not_run": "not run"}


class Ended(Struct):
    """One test that has ended."""

    id: str
    concern: str
    outcome: str
    sentence: str
    seconds: float
    detail: str = ""


class Counts(Struct):
    """One concern or level."""

    name: str
    level: str
    outcome: str
    passed: int
    failed: int
    not_claimed: int
    not_run: int
    seconds: float


class Subject(Struct):
    """What was tested."""

    driver: str
    distribution: str
    store: str


class Report(Struct):
    """The part of the kit's report that is shown."""

    subject: Subject
    reached: str | None
    ok: bool
    seconds: float
    levels: list[Counts]
    concerns: list[Counts]
    tests: list[Ended]


class Progress(Protocol):
    """Where the tests are shown as they end, on stderr."""

    def __enter__(self) -> Progress:
        """Begin to show."""
        ...

    def __exit__(self, *raised: object) -> None:
        """End."""
        ...

    def begin(self, tests: int) -> None:
        """So many tests will run."""
        ...

    def ended(self, test: Ended) -> None:
        """This test has ended."""
        ...


class _Lines:
    """A line for each concern that is done with, and for each failure at once."""

    def __init__(self) -> None:
        self._concern = ""
        self._count = self._left = 0
        self._seconds = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *raised: object) -> None:
        self._flush()

    def begin(self, tests: int) -> None:
        """Say how many."""
        self._left = tests
        click.echo(f"{tests} tests", err=True)

    def ended(self, test: Ended) -> None:
        """Count it, and say so when the concern changes."""
        if test.concern != self._concern:
            self._flush()
            self._concern, self._count, self._seconds = test.concern, 0, 0.0
        self._count += 1
        self._left -= 1
        self._seconds += test.seconds
        if test.outcome == "failed":
            click.echo(f"FAILED {escaped(test.id)}", err=True)

    def _flush(self) -> None:
        if self._count:
            click.echo(f"{self._concern}: {self._count} done in {self._seconds:.1f} s, {self._left} left", err=True)


def shown_progress(*, on_terminal: bool) -> Progress:
    """A bar on a terminal, lines in a pipe or a log."""
    return _Bar() if on_terminal else _Lines()


class _Bar:
    """A bar on a terminal, drawn by rich; a failure stays on the screen above it."""

    def __init__(self) -> None:
        columns = (
            progress.TextColumn("{task.description:14}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def begin(self, tests: int) -> None:
        """The bar gets its length."""
        self._bar.update(self._task, total=tests)

    def ended(self, test: Ended) -> None:
        """One step; a failure stays on the screen above the bar."""
        self._bar.update(self._task, description=test.concern, advance=1)
        if test.outcome == "failed":
            self._bar.console.print(f"FAILED {test.id}", markup=False, highlight=False, style="red")


def write_report(report: Report, out: Output) -> None:
    """By concern, then what failed, then the levels and the one that was reached."""
    columns = (
        Column("concern"), Column("level"), Column("outcome", "state"), Column("passed", "number"),
        Column("failed", "number"), Column("not claimed", "number"), Column("not run", "number"), Column("seconds"),
    )  # fmt: skip
    out.items("conformance@1", report.concerns, columns, [_row(counts) for counts in report.concerns])
    for test in report.tests:
        if test.outcome == "failed":
            click.echo(f"\nFAILED  {escaped(test.sentence)}\n        {escaped(test.id)}")
            for line in escaped_lines(test.detail):
                click.echo(f"        {line}".rstrip())
    for test in report.tests:
        if test.outcome == "not_run":
            click.echo(f"\nnot run  {escaped(test.sentence)}: {escaped(test.detail.removeprefix('not run: '))}")
    click.echo()
    for level in report.levels:
        words = f"{level.passed} passed"
        words += f", {level.failed} failed" if level.failed else ""
        words += f", {level.not_run} not run" if level.not_run else ""
        result = "not claimed" if level.outcome == "not_claimed" else words
        click.echo(f"level {level.name}: {result}")
    subject = report.subject
    named = f" ({subject.distribution})" if subject.distribution else ""
    click.echo(
        f"{subject.driver}{escaped(named)} on {escaped(subject.store)} reached: {report.reached or 'no level'}"
        f"  [{report.seconds:.1f} s]"
    )


def _row(counts: Counts) -> list[str | int | float]:
    numbers = [counts.passed, counts.failed, counts.not_claimed, counts.not_run]
    return [counts.name, counts.level, _WORDS.get(counts.outcome, counts.outcome), *numbers, f"{counts.seconds:.1f}"]
