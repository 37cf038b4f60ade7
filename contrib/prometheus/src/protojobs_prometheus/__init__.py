"""Prometheus metrics for protojobs: each worker's own numbers, and the store's for the whole fleet.

    $ export PROTOJOBS_PROMETHEUS_PORT=9464     # a worker then serves http://127.0.0.1:9464/metrics
    $ protojobs metrics                         # one scrape of the store: queues and workers

Programs that have this installed and do not ask for it import nothing of prometheus_client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from protojobs_prometheus.settings import PrometheusSettings

if TYPE_CHECKING:
    from protojobs_prometheus.counting import Prometheus
    from protojobs_prometheus.store import StoreCollector
    from protojobs_prometheus.text import CONTENT_TYPE, exposition

__all__ = ["CONTENT_TYPE", "Prometheus", "PrometheusSettings", "StoreCollector", "exposition"]

_HOMES = {"CONTENT_TYPE": "text", "Prometheus": "counting", "StoreCollector": "store", "exposition": "text"}


def __getattr__(name: str) -> object:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    return value
