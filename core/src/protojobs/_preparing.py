"""From a job and its data to the NewJob that a driver stores: checked and encoded, in the caller's stack."""

from __future__ import annotations

from datetime import datetime, timedelta

from protojobs import codec
from protojobs.backoff import to_policy
from protojobs.config import Settings
from protojobs.jobs import BoundJob
from protojobs.names import check_seconds, parse_when
from protojobs.records import NewJob

__all__ = ["new_job"]


def new_job(
    bound: BoundJob, settings: Settings, job_id: str, *, delay: float | timedelta | datetime | str = 0.0
) -> NewJob:
    """Raises a PayloadError or OptionInvalid. Options that the job leaves open are those of the settings."""
    definition, options = bound.definition, bound.options
    moment = None
    if isinstance(delay, datetime | str):
        moment, delay = parse_when("delay", delay, settings.timezone), 0.0
    return NewJob(
        id=job_id,
        queue=options.queue or settings.default_queue,
        job_name=definition.name,
        job_class=definition.job_class,
        data=codec.encode(
            bound.data,
            definition.data_type,
            what=f'job "{definition.name}"',
            bytes_max=settings.payload_bytes_max,
        ),
        priority=options.priority,
        max_retries=settings.max_retries if options.max_retries is None else options.max_retries,
        retry_delay=settings.retry_delay if options.retry_delay is None else options.retry_delay,
        retry_policy=to_policy(options.backoff),
        timeout=settings.timeout if options.timeout is None else options.timeout,
        delay=check_seconds("delay", delay),
        available_at=moment,
    )
