"""What a job is: how it is written, its options, its data as text, what it may return."""

from __future__ import annotations

from protojobs.jobs.job_class import BoundJob, FunctionJob, Job, job

__all__ = [
    "BoundJob",
    "FunctionJob",
    "Job",
    "job",
]
