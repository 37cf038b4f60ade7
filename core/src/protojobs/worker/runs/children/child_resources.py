"""The resources of one child process. It has no event loop of its own but for async suspects, so it opens the plain
resources at its start, and the async ones for the one async run that it may get.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

from protojobs.jobs.definition import REGISTRY
from protojobs.jobs.resources import Resource
from protojobs.worker.outcome import Outcome
from protojobs.worker.runs.run import Run

if TYPE_CHECKING:
    import asyncio

    from protojobs.worker.runs.open_resources import OpenResources

__all__ = ["ChildResources"]

T = TypeVar("T")


class ChildResources:
    """Used by the main thread of the child, in which its jobs run too."""

    def __init__(self) -> None:
        self.values: dict[Resource[object], object] = {}
        self._runner: asyncio.Runner | None = None
        self._opened: list[OpenResources] = []

    def open(self, *, is_async: bool) -> None:
        """Open the plain ones, or the async ones. Raises ResourceFailed, which ends the child."""
        wanted = [one for one in REGISTRY.resources.values() if one.is_async is is_async and one not in self.values]
        if wanted:
            from protojobs.worker.runs.open_resources import OpenResources  # asyncio, for those who have resources

            opened = OpenResources(wanted)
            self._run(opened.open)
            self._opened.append(opened)
            self.values.update(opened.values)

    def run_async(self, run: Run) -> Outcome:
        """Run an async job, on the loop of its resources."""
        self.open(is_async=True)
        run.resources = self.values
        return self._run(run.aexecute)

    def close(self) -> None:
        """Close them in reverse order. The worker kills a child that takes longer than a second or so."""
        while self._opened:
            self._run(self._opened.pop().close)
        if self._runner is not None:
            self._runner.close()

    def _run(self, what: Callable[[], Coroutine[object, object, T]]) -> T:
        if self._runner is None:
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner.run(what())
