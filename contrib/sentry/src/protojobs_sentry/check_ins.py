"""Check-ins: Sentry hears that a run of a schedule has begun, and how it ended."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sentry_sdk.crons import capture_checkin

from protojobs import JobContext
from protojobs.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from sentry_sdk.types import MonitorConfig  # which older releases of the SDK lack

__all__ = ["SLUG_CHARS_MAX", "checked_in", "monitor_slug"]

SLUG_CHARS_MAX = 50  # that Sentry takes
_HASH_CHARS = 8


def monitor_slug(schedule_id: str) -> str:
    """The monitor's name in Sentry: small letters, digits, `-` and `_`, and no number.

    What is too long, or has no letter left, ends with a hash of the id, so that it is told from others.
    """
    slug = re.sub(r"[^a-z0-9_-]+", "-", schedule_id.lower()).strip("-")
    if len(slug) <= SLUG_CHARS_MAX and re.search("[a-z]", slug):
        return slug
    ending = hashlib.sha256(schedule_id.encode()).hexdigest()[:_HASH_CHARS]
    return f"schedule-{slug}"[: SLUG_CHARS_MAX - _HASH_CHARS - 1].rstrip("-") + f"-{ending}"


@contextmanager
def checked_in(context: JobContext, schedule_id: str, config: MonitorConfig | None) -> Generator[None]:
    """Check in as `in_progress`, then as `ok`, or as `error` if the run raises or is ended by its worker.

    A run that a stopping worker cuts short is left open: the job goes back with its attempt given back, so the next run
    has the same check-in and closes it.
    """
    slug = monitor_slug(schedule_id)
    check_in_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{context.id} {context.attempt}").hex
    began = SYSTEM_CLOCK.monotonic()

    def check_in(status: str, duration: float | None = None) -> None:
        capture_checkin(
            monitor_slug=slug, check_in_id=check_in_id, status=status, duration=duration, monitor_config=config
        )

    check_in("in_progress")
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or not context.stopping:
            check_in("error", SYSTEM_CLOCK.monotonic() - began)
        raise
    check_in("ok", SYSTEM_CLOCK.monotonic() - began)
