"""Which run a log line belongs to: `JobFields` puts the job's id, attempt, name and queue on records of its own code.

The command line has it on its handler. A program that sets up logging by itself adds it to its handlers:
`handler.addFilter(JobFields())`.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from protojobs.port.records import ClaimedJob

__all__ = ["RUNNING", "JobFields"]

RUNNING: ContextVar[ClaimedJob | None] = ContextVar("protojobs_running", default=None)
"""The job that this thread, or this task, is running. Executors set it; a thread that a job starts does not have it."""


class JobFields(logging.Filter):
    """Lets every record pass, with `job_id`, `attempt`, `job_name` and `queue` where it was logged by a running job.

    Fields that a record has already stay as they are.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is missing. Never refuses."""
        claimed = RUNNING.get()
        if claimed is not None and getattr(record, "job_id", claimed.id) == claimed.id:  # else it tells of another job
            fields = vars(record)
            fields.setdefault("job_id", claimed.id)
            fields.setdefault("attempt", claimed.attempts)
            fields.setdefault("job_name", claimed.job_name)
            fields.setdefault("queue", claimed.queue)
        return True
