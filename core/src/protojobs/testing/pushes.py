"""PushedJob: one push that a TestQueue has seen."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from protojobs.port.records import NewJob

__all__ = ["PushedJob", "pushed_job"]


class PushedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it was pushed. `data` is what a worker would find in the store: plain JSON values."""

    id: str
    job_name: str
    job_class: str
    queue: str
    data: object
    pushed_at: datetime
    due_at: datetime
    priority: int
    max_retries: int
    retry_delay: float
    timeout: float

    @property
    def delay(self) -> float:
        """Seconds from the push until it is due."""
        return (self.due_at - self.pushed_at).total_seconds()


def pushed_job(new: NewJob, now: datetime) -> PushedJob:
    """The push of `new` at the store's `now`."""
    return PushedJob(
        id=new.id,
        job_name=new.job_name,
        job_class=new.job_class,
        queue=new.queue,
        data=_plain(new.data),
        pushed_at=now,
        due_at=new.available_at or now + timedelta(seconds=new.delay),
        priority=new.priority,
        max_retries=new.max_retries,
        retry_delay=new.retry_delay,
        timeout=new.timeout,
    )


def _plain(data: str) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:  # a plugin of the test's has encrypted it
        return data
