"""The resources of one JobQueue's workers in this process: opened by the first call of `work`, kept for the next.

They are closed with the lease: when a call ends that nothing follows, with the queue, or at the end of the process.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from protojobs.errors import ResourceFailed
from protojobs.jobs.resources import Resource
from protojobs.stopping import StopToken

if TYPE_CHECKING:
    from protojobs.worker.runs.jobs_loop import JobsLoop
    from protojobs.worker.runs.open_resources import OpenResources

__all__ = ["OPEN_S", "KeptResources", "Opened", "StoppedWhileOpening"]

OPEN_S = 60.0  # for all resources together; as long as a child process has to start
CLOSE_S = 5.0  # at the end of the process, or of the queue
_log = logging.getLogger("protojobs.worker")
_in_use: weakref.WeakSet[KeptResources] = weakref.WeakSet()


class Opened(Struct, frozen=True, eq=False):
    """What a worker needs of them: the values for jobs, and the loop for the jobs that are async."""

    values: Mapping[Resource[object], object]
    loop: Callable[[], JobsLoop]


class StoppedWhileOpening(Exception):
    """The worker was told to stop before its resources were open."""


class KeptResources:
    """Thread-safe: two workers of one queue share what the first has opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._held: _Held | None = None

    def enter(self, resources: Mapping[str, Resource[object]], stop: StopToken) -> Opened | None:
        """What is open, for one worker, which leaves it; None where there is nothing to open.

        Raises ResourceFailed, StoppedWhileOpening, or RuntimeError where the system has no thread for the loop.
        """
        wanted = tuple(resources.values())
        with self._lock:
            if self._held is not None and not self._held.is_ours:
                self._held, self._users = None, 0  # of the process of which this one is a copy
            if self._held is not None and not self._users and not self._held.serves(wanted):
                self._close(CLOSE_S)
            if self._held is None:
                if not wanted:
                    return None
                self._held = _Held(wanted, stop)
                if not _in_use:
                    atexit.register(_close_all)
                _in_use.add(self)
            self._users += 1
            return Opened(self._held.values, self._held.loop)

    def leave(self, within_s: float, *, keeps: bool) -> None:
        """One worker less. After the last they are closed, unless a next call is to go on with them."""
        with self._lock:
            self._users -= 1
            if not (keeps or self._users):
                self._close(within_s)

    def close(self, within_s: float = CLOSE_S) -> None:
        """Close what no worker uses."""
        with self._lock:
            if not self._users:
                self._close(within_s)

    def _close(self, within_s: float) -> None:
        held, self._held = self._held, None
        if held is not None and held.is_ours:
            held.close(within_s)


class _Held:
    """Resources that are open, and the loop that they are open on."""

    def __init__(self, wanted: tuple[Resource[object], ...], stop: StopToken) -> None:
        from protojobs.worker.runs.jobs_loop import jobs_loop  # asyncio, for workers that have resources
        from protojobs.worker.runs.open_resources import OpenResources

        self._wanted = wanted
        self._loop = jobs_loop()
        self._open: OpenResources = OpenResources(wanted)
        try:
            self._wait_for_opening(stop)
        except BaseException:
            self.close(CLOSE_S)  # those that were open by then
            raise
        self.values = self._open.values

    @property
    def is_ours(self) -> bool:
        """Whether it was opened in this very process, and not in one of which it is a copy."""
        return self._loop.is_ours

    def serves(self, wanted: tuple[Resource[object], ...]) -> bool:
        """Whether they are what a worker wants, on a loop that goes on."""
        return self._wanted == wanted and not self._loop.is_given_up

    def loop(self) -> JobsLoop:
        """The loop, for one more user."""
        self._loop.take()
        return self._loop

    def close(self, within_s: float) -> None:
        """Close them in reverse order. What takes longer is logged, and left."""
        if not self._loop.finishes(self._open.close(), within_s):
            _log.error("the resources were not closed within %g s, and are left as they are", within_s)
            self._loop.is_given_up = True
        self._loop.release()

    def _wait_for_opening(self, stop: StopToken) -> None:
        if not self._loop.finishes(self._open.open(), OPEN_S, stop):
            if stop.level:
                raise StoppedWhileOpening
            names = ", ".join(resource.name for resource in self._wanted if resource not in self._open.values)
            raise ResourceFailed(
                f"After {OPEN_S:g} s these resources were still not open: {names}.",
                mend="No job was claimed. Give what they wait for a time limit, so that its error says what is wrong.",
            )


def _close_all() -> None:
    for kept in list(_in_use):
        kept.close()
