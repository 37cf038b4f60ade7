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
from protojobs.jobs.job_ids import JobId
from protojobs.jobs.resources import Resource, resource
from protojobs.jobs.returns import Discard, Retry, Snooze
from protojobs.port.installed_drivers import create_driver
from protojobs.queue.queue import JobQueue
from protojobs.stopping import StopToken

if TYPE_CHECKING:
    from protojobs.hooks.specs import hookimpl
    from protojobs.scheduler.scheduler import Scheduler
    from protojobs.worker.outcome import WorkReport

__all__ = [
    "Backoff",
    "BoundJob",
    "Cron",
    "Discard",
    "FunctionJob",
    "Job",
    "JobContext",
    "JobId",
    "JobQueue",
    "ProtojobsError",
    "Resource",
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
    "resource",
]


_ON_FIRST_USE = {  # a process that only pushes loads no pluggy, nothing that computes times, and no worker
    "Scheduler": "protojobs.scheduler.scheduler",
    "WorkReport": "protojobs.worker.outcome",
    "hookimpl": "protojobs.hooks.specs",
}


def __getattr__(name: str) -> object:
    if (module := _ON_FIRST_USE.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)
