"""Which HTTP status an error of protojobs is answered with."""

from __future__ import annotations

from protojobs.errors import (
    ConfigurationError,
    Forbidden,
    JobUnknown,
    NotSupported,
    PayloadError,
    ProtojobsError,
    ScheduleUnknown,
    ScheduleUnreadable,
    SchemaOutdated,
    StoreUnavailable,
)

__all__ = ["status_of"]

_STATUSES: tuple[tuple[type[ProtojobsError], int], ...] = (  # the first that fits
    (Forbidden, 403),
    (JobUnknown, 404),
    (ScheduleUnknown, 404),
    (ScheduleUnreadable, 409),
    (NotSupported, 501),
    (ConfigurationError, 400),
    (PayloadError, 400),
    (StoreUnavailable, 503),
    (SchemaOutdated, 503),
)


def status_of(error: ProtojobsError) -> int:
    """400 for what the request got wrong, 5xx for what the store did."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
