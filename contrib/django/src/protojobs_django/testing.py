"""For tests of a site: the jobs that were pushed in the transaction of a TestCase, which nobody else can see."""

from __future__ import annotations

import json

import msgspec
from django.db import connections
from sqlalchemy import select

from protojobs_django.addresses import address_of
from protojobs_django.joining import Joining
from protojobs_django.settings import site_settings
from protojobs_sqlalchemy import JobModel

__all__ = ["PushedJob", "pushed_jobs"]

_PUSHED_MAX = 10_000
_joining = Joining()


class PushedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A pending job, as a test compares it."""

    id: str
    queue: str
    job_name: str
    data: object


def pushed_jobs(queue: str | None = None) -> list[PushedJob]:
    """The pending jobs that Django's own connection sees, of one queue or of all, oldest first; at most 10,000."""
    wrapper = connections[site_settings().database]
    columns = (JobModel.id, JobModel.queue, JobModel.job_name, JobModel.data)
    wanted = select(*columns).where(JobModel.status == "pending").order_by(JobModel.id).limit(_PUSHED_MAX)
    if queue is not None:
        wanted = wanted.where(JobModel.queue == queue)
    with _joining.joined(wrapper, address_of(wrapper, {})) as conn:
        rows = conn.execute(wanted).all()
    return [PushedJob(id=str(row[0]), queue=row[1], job_name=row[2], data=json.loads(row[3])) for row in rows]
