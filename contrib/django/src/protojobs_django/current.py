"""The queue of the site, for the database that DATABASES names at this moment: in a test run the test database."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from django.db import connections
from sqlalchemy import URL

from protojobs import JobQueue
from protojobs_django.addresses import address_of
from protojobs_django.driver import driver_for
from protojobs_django.settings import SiteSettings, site_settings

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["close_queue", "current_queue", "queue"]

_lock = threading.Lock()
_made: tuple[SiteSettings, URL, JobQueue] | None = None


def current_queue() -> JobQueue:
    """The site's JobQueue. Another one is made when the settings name another database than before.

    Raises ConfigurationError for settings that do not fit.
    """
    global _made
    site = site_settings()
    wrapper = connections[site.database]
    url = address_of(wrapper, site.options)
    with _lock:
        if _made is not None and _made[:2] == (site, url):
            return _made[2]
        if _made is not None:
            _made[2].close()
        made = JobQueue(driver_for(wrapper, url), site.queue)
        _made = (site, url, made)
    return made


def close_queue() -> None:
    """Close the connections that the queue keeps: before its database is removed, as at the end of a test run."""
    with _lock:
        if _made is not None:
            _made[2].close()


class _CurrentQueue:
    """Stands for `current_queue()`, as Django's `connection` stands for the connection of the thread."""

    # So that it is taken for one.
    __class__ = property(lambda _self: JobQueue)  # pyright: ignore[reportIncompatibleMethodOverride]

    def __getattr__(self, name: str) -> object:
        return getattr(current_queue(), name)

    def __repr__(self) -> str:
        return repr(current_queue())

    def __enter__(self) -> JobQueue:
        return current_queue()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_queue()


queue: JobQueue = cast("JobQueue", _CurrentQueue())
"""The site's JobQueue. Usable from anywhere once Django is set up."""
