"""How many jobs match a query: from the store's counters where they tell, else by examining a bounded number."""

from __future__ import annotations

from collections.abc import Mapping

from protojobs.clock import Clock
from protojobs.inspector.search import PAGES_MAX, Search
from protojobs.inspector.views import Count
from protojobs.port.lifecycle import FINISHED
from protojobs.port.records import COUNTED_MAX, Stats
from protojobs.querying.query import Query

__all__ = ["COUNT_S", "counted"]

COUNT_S = 1.0
_FINISHED_WORDS = frozenset(state.value for state in FINISHED)
_WORDS = _FINISHED_WORDS | {"pending", "processing", "ready", "scheduled"}
_ALL = ("pending", "processing", *_FINISHED_WORDS)


def counted(search: Search, cap: int, clock: Clock) -> Count:
    """One round trip where the query is of states, and perhaps a queue, only; else up to `cap` jobs are examined, for
    a second.
    """
    query = search.query
    if query.is_void:
        return Count(0)
    if (words := _words(query)) is not None:
        stats = search.driver.stats(query.which.queue, counted_max=min(cap, COUNTED_MAX))
        numbers = _numbers(stats)
        return Count(sum(numbers[word] for word in words), stats.is_estimate and not _FINISHED_WORDS.issuperset(words))
    number = examined = 0
    ends = clock.monotonic() + COUNT_S
    for pages, batch in enumerate(search.batches(), 1):
        number, examined = number + len(batch.found), examined + batch.examined
        is_over = examined >= cap or pages >= PAGES_MAX or clock.monotonic() >= ends
        if batch.cursor is not None and is_over:
            return Count(number, True)
    return Count(number)


def _words(query: Query) -> tuple[str, ...] | None:
    """The words of `state:` whose counters, added up, answer the query; None where they cannot."""
    states = [term for term in query.terms if term.key == "state"]
    others = [term for term in query.terms if term.key != "state"]
    if len(states) > 1 or len(others) > 1 or any(term.is_negated for term in query.terms):
        return None
    if others and (others[0].key != "queue" or query.which.queue is None):
        return None
    words = states[0].values if states else _ALL
    if not _WORDS.issuperset(words):
        return None
    return tuple(word for word in words if "pending" not in words or word not in ("ready", "scheduled"))


def _numbers(stats: Stats) -> Mapping[str, int]:
    return {
        "pending": stats.pending,
        "ready": stats.pending - stats.scheduled,
        "scheduled": stats.scheduled,
        "processing": stats.processing,
        "completed": stats.completed,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
    }
