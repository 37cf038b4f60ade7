"""JobQueue: push jobs, look after them, and start a worker."""

from __future__ import annotations

from protojobs.queue.queue import JobQueue

__all__ = [
    "JobQueue",
]
