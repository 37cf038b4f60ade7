"""What all parts of an Inspector stand on: the queue, who is looking, what is hidden from them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protojobs.clock import within
from protojobs.errors import NotSupported
from protojobs.inspector.access import Access, Viewer
from protojobs.inspector.operations import Operations
from protojobs.inspector.redaction import Redaction
from protojobs.port.driver import Store
from protojobs.port.observing import Observes

if TYPE_CHECKING:
    from protojobs.queue.queue import JobQueue

__all__ = ["LOOK_S", "Done", "Viewing"]

LOOK_S = 10.0  # what is asked for a page gives up within so long


class Done:
    """What a line of the audit log says beside who, what and when."""

    def __init__(self) -> None:
        self.count = 0
        self.detail = ""


class Viewing:
    """One viewer's way to one store."""

    def __init__(self, queue: JobQueue, viewer: Viewer, redaction: Redaction, operations: Operations) -> None:
        self._queue = queue
        self.viewer = viewer
        self._driver: Store = queue.driver
        self._redaction = redaction
        self._operations = operations
        self._access = Access(queue, viewer)

    @property
    def is_observing(self) -> bool:
        """Whether the store keeps notes: charts, error groups and the audit log raise NotSupported without."""
        return self._driver.capabilities.observing and isinstance(self._driver, Observes)

    @contextmanager
    def _looking(self) -> Generator[None]:
        """Around everything that only looks: the right to, and a bound for all round trips together."""
        self._access.look()
        with within(LOOK_S):
            yield

    @contextmanager
    def _acting(self, action: str, target: str) -> Generator[Done]:
        """Around everything that acts: the right to, and a line in the audit log, also of what went wrong."""
        self._access.act(action, target)
        done = Done()
        try:
            yield done
        except Exception as error:
            self._access.note(action, target, count=done.count, detail=f"failed: {type(error).__name__}: {error}")
            raise
        self._access.note(action, target, count=done.count, detail=done.detail)

    def _observer(self) -> Observes:
        driver = self._driver
        if not (driver.capabilities.observing and isinstance(driver, Observes)):
            raise NotSupported(
                f"{type(driver).__name__} keeps no notes of runs, errors and actions.",
                mend="Use a driver with the capability `observing`.",
            )
        return driver
