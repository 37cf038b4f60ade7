"""The entry point of the plugin: makes it, once in a process, if the environment asks for it."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

from protojobs.config import plugin_settings
from protojobs_prometheus.settings import PrometheusSettings

if TYPE_CHECKING:
    from protojobs_prometheus.counting import Prometheus

__all__ = ["plugin"]

_making = threading.Lock()  # two threads may each open a queue of their own


def plugin() -> Prometheus | None:
    """The plugin that `PROTOJOBS_PROMETHEUS_*` asks for, one for the whole process; None when they do not."""
    settings = plugin_settings("prometheus", PrometheusSettings)
    if settings is None:
        return None
    with _making:
        return _made(settings)


@cache
def _made(settings: PrometheusSettings) -> Prometheus:
    from protojobs_prometheus.counting import Prometheus  # prometheus_client takes longer to import than all of core

    return Prometheus(settings)
