"""Scope: the store, who is looking, and what is hidden from them. Every verb of an Inspector takes it."""

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

__all__ = ["LOOK_S", "Done", "Scope"]

LOOK_S = 10.0  # what is asked for a page gives up within so long


class Done:
    """What a line of the audit log says beside who, what and when."""

    def __init__(self) -> None:
        self.count = 0
        self.detail = ""


class Scope:
    """What one viewer may see of one store: their rights, and the fields that are hidden from them."""

    def __init__(self, queue: JobQueue, viewer: Viewer, redaction: Redaction, operations: Operations) -> None:
        self.queue = queue
        self.driver: Store = queue.driver
        self.viewer = viewer
        self.redaction = redaction
        self.operations = operations
        self.access = Access(queue, viewer)

    @property
    def is_observing(self) -> bool:
        """Whether the store keeps notes: charts, error groups and the audit log raise NotSupported without."""
        return self.driver.capabilities.observing and isinstance(self.driver, Observes)

    @contextmanager
    def looking(self) -> Generator[None]:
        """Around everything that only looks: the right to, and a bound for all round trips together."""
        self.access.look()
        with within(LOOK_S):
            yield

    @contextmanager
    def acting(self, action: str, target: str) -> Generator[Done]:
        """Around everything that acts: the right to, and a line in the audit log, also of what went wrong."""
        self.access.act(action, target)
        done = Done()
        try:
            yield done
        except Exception as error:
            self.access.note(action, target, count=done.count, detail=f"failed: {type(error).__name__}: {error}")
            raise
        self.access.note(action, target, count=done.count, detail=done.detail)

    def observer(self) -> Observes:
        """The store as one that keeps notes. Raises NotSupported."""
        driver = self.driver
        if not (driver.capabilities.observing and isinstance(driver, Observes)):
            raise NotSupported(
                f"{type(driver).__name__} keeps no notes of runs, errors and actions.",
                mend="Use a driver with the capability `observing`.",
            )
        return driver
