"""Metrics in the text format of Prometheus, which a scrape reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from protojobs import JobQueue
from protojobs_prometheus.store import StoreCollector

__all__ = ["CONTENT_TYPE", "exposition", "render"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(queue: JobQueue) -> str:
    """One scrape of the store, for a page of your own at `/metrics`; its type is CONTENT_TYPE.

    Asks the store three questions, and waits at most eight seconds. Raises nothing for a store that is away: then
    `protojobs_store_up` is 0.
    """
    registry = CollectorRegistry()
    registry.register(StoreCollector(queue))
    return render(registry).decode()


def render(registry: CollectorRegistry) -> bytes:
    """All of the registry, in the text format that every scraper reads."""
    return generate_latest(registry)
