"""From a job as a program hands it over to the NewJob that a store takes: checked, encoded, with all options filled in.

Whoever asks for a job makes it here in its own stack, so that what is wrong with it is raised there and nothing is
stored. The id is made here too, not by the store: sending a job again after an unknown outcome stores it once.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec import Struct

from protojobs.config import Settings
from protojobs.entropy import fresh_id
from protojobs.errors import NotSupported, OptionInvalid, shown
from protojobs.jobs import codec
from protojobs.jobs.backoff import to_policy
from protojobs.jobs.definition import Registry
from protojobs.jobs.job_class import BoundJob, as_bound
from protojobs.names import Delay, check_seconds, parse_when
from protojobs.port.records import Capabilities, NewJob

if TYPE_CHECKING:
    from protojobs.hooks.hooks import Hooks  # pluggy is a sixth of the import time of who only pushes

__all__ = ["AT_ONCE", "JobMaker", "encoded", "job_maker", "new_job"]

AT_ONCE = 0.0  # the delay of a push, which need not be looked at


def new_job(
    bound: BoundJob, settings: Settings, store: Capabilities, *, id: str | None = None, delay: Delay = AT_ONCE
) -> NewJob:
    """Check and encode one job for a store that can do that much. The settings fill in what the job leaves open.

    Raises a PayloadError or OptionInvalid; NotSupported for a job whose result this store does not keep.
    """
    if id is not None and not _is_id(id):
        raise OptionInvalid(
            f"id {shown(id, 60)} is not one that push made.", mend="Send again the id of StoreUnavailable."
        )
    definition, options = bound.definition, bound.options
    if definition.store_result and not store.results:
        raise NotSupported(
            f'job "{definition.name}" says store_result=True, and this store keeps no results.',
            mend="Leave it out, or use a driver that claims `results`: SQLAlchemy, Redis and memory do.",
        )
    moment, delay_s = (None, AT_ONCE) if delay is AT_ONCE else _when(delay, settings.timezone)
    data = encoded(bound, settings)
    return NewJob(
        id=id or fresh_id(),
        queue=options.queue or settings.default_queue,
        job_name=definition.name,
        job_class=definition.job_class,
        data=data,
        priority=options.priority,
        max_retries=settings.max_retries if options.max_retries is None else options.max_retries,
        retry_delay=settings.retry_delay if options.retry_delay is None else options.retry_delay,
        retry_policy=None if options.backoff is None else to_policy(options.backoff),
        timeout=settings.timeout if options.timeout is None else options.timeout,
        delay=delay_s,
        available_at=moment,
    )


def encoded(bound: BoundJob, settings: Settings) -> str:
    """Its data as the text that is stored. Raises a PayloadError."""
    definition, bytes_max = bound.definition, settings.payload_bytes_max
    return codec.encode(bound.data, definition.data_type, what=f'job "{definition.name}"', bytes_max=bytes_max)


class JobMaker(Struct, frozen=True, kw_only=True):
    """Makes the jobs that runs ask for by `then`."""

    registry: Registry
    settings: Settings
    store: Capabilities
    hooks: Hooks

    def make(self, job: object, data: object, delay: Delay) -> NewJob:
        """As `later` would make it, transforms included."""
        bound = as_bound(job, data, self.registry)
        return self.hooks.before_push(new_job(bound, self.settings, self.store, delay=delay))


def job_maker(registry: Registry, settings: Settings, store: Capabilities, hooks: Hooks) -> JobMaker | None:
    """What makes them for a worker; None where the store cannot keep them with the end of a run."""
    if not store.results:
        return None
    return JobMaker(registry=registry, settings=settings, store=store, hooks=hooks)


def _when(delay: Delay, zone: str) -> tuple[datetime | None, float]:
    """The moment, or else the seconds, that are meant by a delay."""
    if isinstance(delay, datetime | str):
        return parse_when("delay", delay, zone), AT_ONCE
    return None, check_seconds("delay", delay)


def _is_id(text: object) -> bool:
    try:
        return isinstance(text, str) and str(UUID(text)) == text  # some stores keep ids as native UUIDs
    except ValueError:
        return False
