"""Leases between two calls of `work(queue, n)`: the next call goes on with them, the end of the process leaves them.

Not the end of the queue: a finalizer may strike in the middle of another transaction of this very thread, and would
wait for it. The lease of a queue that was forgotten lapses by itself.
"""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protojobs.worker.lease.lease import WorkerLease  # a process that only pushes loads no worker

__all__ = ["RestingLeases"]

_in_use: weakref.WeakSet[RestingLeases] = weakref.WeakSet()


class RestingLeases:
    """Those of one JobQueue."""

    def __init__(self) -> None:
        self._leases: deque[WorkerLease] = deque()

    def keep(self, lease: WorkerLease) -> None:
        """Its call has returned, with nothing held."""
        if not _in_use:
            atexit.register(_leave_all)
        _in_use.add(self)
        lease.rollups.pause()
        self._leases.append(lease)

    def take(self) -> WorkerLease | None:
        """One to go on with. Those that a fork has copied are another process's."""
        while self._leases:
            lease = self._leases.popleft()
            if lease.is_ours:
                return lease
            lease.leave()
        return None

    def leave(self) -> None:
        """Sign off all of them."""
        while self._leases:
            self._leases.popleft().leave()


def _leave_all() -> None:
    for resting in list(_in_use):
        resting.leave()
