"""The entry point of the plugin: makes it, once in a process, if the environment asks for it."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

from protojobs.config import plugin_settings
from protojobs_sentry.settings import SentrySettings

if TYPE_CHECKING:
    from protojobs_sentry.reporting import SentryPlugin

__all__ = ["plugin"]

_making = threading.Lock()  # two threads may each open a queue of their own


def plugin() -> SentryPlugin | None:
    """The plugin that `PROTOJOBS_SENTRY_*` asks for, one for the whole process; None when they do not."""
    settings = plugin_settings("sentry", SentrySettings)
    if settings is None:
        return None
    with _making:
        return _made(settings)


@cache
def _made(settings: SentrySettings) -> SentryPlugin:
    from protojobs_sentry.reporting import SentryPlugin  # the SDK takes longer to import than all of core

    return SentryPlugin(settings)
