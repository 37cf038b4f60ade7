"""Mapped classes on `jobs` and `failed_jobs`, for your own session. Read with them; change jobs through the queue."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import cast

from sqlalchemy import Table
from sqlalchemy.orm import DeclarativeBase, Mapped

from protojobs_sqlalchemy.tables.tables import PLAIN, STORES_MAX, Tables

__all__ = ["Base", "FailedJobModel", "JobModel", "models_of"]


class Base(DeclarativeBase):
    """The two classes' own base; its metadata is that of the driver's tables."""

    metadata = PLAIN.metadata


class JobModel(Base):
    """A row of `jobs`: queued, running and finished jobs."""

    __table__ = PLAIN.jobs

    id: Mapped[str]
    queue: Mapped[str]
    job_class: Mapped[str]
    job_name: Mapped[str]
    data: Mapped[str]
    attempts: Mapped[int]
    max_retries: Mapped[int]
    timeout: Mapped[float]
    status: Mapped[str]
    created_at: Mapped[datetime]
    available_at: Mapped[datetime]
    reserved_at: Mapped[datetime | None]
    processed_at: Mapped[datetime | None]
    priority: Mapped[int]
    retry_delay: Mapped[float]
    retry_policy: Mapped[str | None]
    claim_seq: Mapped[int]
    crashes: Mapped[int]
    returns: Mapped[int]
    reclaims: Mapped[int]
    reserved_by: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    progress: Mapped[float | None]
    meta: Mapped[str | None]
    result: Mapped[str | None]

    def __repr__(self) -> str:
        return f"<JobModel {self.id} {self.job_class} {self.status} in {self.queue!r}>"


class FailedJobModel(Base):
    """A row of `failed_jobs`: a job that was given up, with the traceback of its last attempt."""

    __table__ = PLAIN.failed_jobs

    id: Mapped[str]
    job_id: Mapped[str]
    queue: Mapped[str]
    job_class: Mapped[str]
    job_name: Mapped[str]
    data: Mapped[str]
    attempts: Mapped[int]
    exception: Mapped[str]
    failed_at: Mapped[datetime]
    fingerprint: Mapped[str]

    def __repr__(self) -> str:
        return f"<FailedJobModel {self.id} {self.job_class} at {self.failed_at:%Y-%m-%d %H:%M:%S}>"


@lru_cache(maxsize=STORES_MAX)
def models_of(tables: Tables) -> tuple[type[JobModel], type[FailedJobModel]]:
    """The two classes on the tables of one store: for those of the plain names `JobModel` and `FailedJobModel`."""
    if tables is PLAIN:
        return JobModel, FailedJobModel
    base = cast("type[DeclarativeBase]", type("Base", (DeclarativeBase,), {"metadata": tables.metadata}))
    job = cast("type[JobModel]", _mapped(base, JobModel, tables.jobs))
    return job, cast("type[FailedJobModel]", _mapped(base, FailedJobModel, tables.failed_jobs))


def _mapped(base: type[DeclarativeBase], like: type[Base], table: Table) -> type:
    body = {"__table__": table, "__repr__": like.__repr__, "__doc__": like.__doc__, "__module__": like.__module__}
    return type(like.__name__, (base,), body)
