"""The entry point of the plugin: makes it, once in a process, if the environment asks for it."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

from protojobs.config import plugin_settings
from protojobs_opentelemetry.settings import OpenTelemetrySettings

if TYPE_CHECKING:
    from protojobs_opentelemetry.tracing import OpenTelemetry

__all__ = ["plugin"]

_making = threading.Lock()  # two threads may each open a queue of their own


def plugin() -> OpenTelemetry | None:
    """The plugin that `PROTOJOBS_OPENTELEMETRY_*` asks for, one for the whole process; None when they do not."""
    settings = plugin_settings("opentelemetry", OpenTelemetrySettings)
    if settings is None:
        return None
    with _making:
        return _made(settings)


@cache
def _made(settings: OpenTelemetrySettings) -> OpenTelemetry:
    from protojobs_opentelemetry.tracing import OpenTelemetry  # a tenth of a second, for nothing if nobody asks

    return OpenTelemetry(settings)
