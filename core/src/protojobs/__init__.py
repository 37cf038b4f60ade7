"""protojobs: background jobs that are not lost, on the store you already have.

from protojobs import Job, JobQueue, create_driver

class SendWelcome(Job):
    queue = "emails"

    def handle(self, data):
        print("welcome,", data["email"])

queue = JobQueue(create_driver("sqlite:///jobs.db"))
queue.driver.setup()
queue.push(SendWelcome, {"email": "jo@example.com"})
queue.work("emails", 10)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protojobs import events
from protojobs.config import Settings
from protojobs.errors import ProtojobsError
from protojobs.jobs.backoff import Backoff
from protojobs.jobs.context import JobContext
from protojobs.jobs.cron_option import Cron
from protojobs.jobs.job_class import BoundJob, FunctionJob, Job, job
from protojobs.jobs.returns import Discard, Retry, Snooze, WorkReport
from protojobs.port.loading import create_driver
from protojobs.queue.queue import JobQueue
from protojobs.stopping import StopToken

if TYPE_CHECKING:
    from protojobs.hooks.hooks import hookimpl
    from protojobs.scheduler.scheduler import Scheduler

__all__ = [
    "Backoff",
    "BoundJob",
    "Cron",
    "Discard",
    "FunctionJob",
    "Job",
    "JobContext",
    "JobQueue",
    "ProtojobsError",
    "Retry",
    "Scheduler",
    "Settings",
    "Snooze",
    "StopToken",
    "WorkReport",
    "create_driver",
    "events",
    "hookimpl",
    "job",
]


def __getattr__(name: str) -> object:
    if name == "hookimpl":  # for plugins: programs without one need not load pluggy to define their jobs
        from protojobs.hooks.hooks import hookimpl

        return hookimpl
    if name == "Scheduler":  # nor need those without a schedule load what computes times
        from protojobs.scheduler.scheduler import Scheduler

        return Scheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
