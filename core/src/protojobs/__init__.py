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

from protojobs import events
from protojobs._registry import create_driver
from protojobs.backoff import Backoff
from protojobs.config import Settings
from protojobs.context import JobContext
from protojobs.errors import ProtojobsError
from protojobs.hooks import hookimpl
from protojobs.jobs import BoundJob, FunctionJob, Job, job
from protojobs.outcomes import Discard, Retry, Snooze, WorkReport
from protojobs.queue import JobQueue
from protojobs.stopping import StopToken

__all__ = [
    "Backoff",
    "BoundJob",
    "Discard",
    "FunctionJob",
    "Job",
    "JobContext",
    "JobQueue",
    "ProtojobsError",
    "Retry",
    "Settings",
    "Snooze",
    "StopToken",
    "WorkReport",
    "create_driver",
    "events",
    "hookimpl",
    "job",
]
