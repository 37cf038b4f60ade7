"""The conformance kit's progress on a terminal, drawn by rich. Loaded only when stderr is one."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from protojobs.cli.showing.conformance_report import Ended, Progress

__all__ = ["bar"]


class _Drawn:
    def __init__(self) -> None:
        columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def begin(self, tests: int) -> None:
        """The bar gets its length."""
        self._bar.update(self._task, total=tests)

    def tell(self, test: Ended) -> None:
        """One step; a failure stays on the screen above the bar."""
        self._bar.update(self._task, description=test.concern, advance=1)
        if test.outcome == "failed":
            self._bar.console.print(f"FAILED {test.id}", markup=False, highlight=False, style="red")


def bar() -> Progress:
    """Progress for a terminal."""
    return _Drawn()
