"""The metrics of a store, read at each scrape: queues and workers of the whole fleet.

One role exports them (`protojobs metrics`, or the dashboard), not each worker: else `sum()` would multiply them, and a
hundred workers would ask the store what one can.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protojobs import JobQueue
from protojobs.clock import within
from protojobs.errors import DriverError
from protojobs.port.records import QueueInfo, WorkerRecord
from protojobs_prometheus.labels import NAMES_MAX, OTHER

__all__ = ["StoreCollector"]

ANSWER_S = 8.0  # for all questions of one scrape; Prometheus gives a scrape 10 s unless told otherwise
COUNTED_MAX = 10_000  # jobs of each queue: a scrape must stay cheap, and beyond it their age says more
_log = logging.getLogger("protojobs.prometheus")


class StoreCollector(Collector):
    """Bounded: three questions a scrape, in ANSWER_S together, and `queue="other"` beyond the first NAMES_MAX names.

    A store that does not answer is `protojobs_store_up 0` and nothing else: absent, since unknown.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._was_up = True

    def describe(self) -> Iterable[Metric]:
        """The families, without asking the store."""
        return [_up(0), *_queue_families(()), _workers(())]

    def collect(self) -> Iterable[Metric]:
        """Ask the store."""
        driver = self._queue.driver
        try:
            with within(ANSWER_S):
                queues, workers, now = driver.queues(counted_max=COUNTED_MAX), driver.workers(), driver.now()
        except DriverError as error:
            if self._was_up:  # once per outage
                _log.error("no metrics of the store: %s", error)
            self._was_up = False
            return [_up(0)]
        self._was_up = True
        states = ["alive" if worker.lease_ends_at >= now else "lapsed" for worker in workers]
        return [_up(1), *_queue_families(_bounded(queues)), _workers(states), *_slots(workers, states)]


def _bounded(queues: Sequence[QueueInfo]) -> Iterator[tuple[str, QueueInfo]]:
    """Each queue with its label: its name for the first by name, so that the label of a queue seldom changes."""
    for index, info in enumerate(sorted(queues, key=lambda info: info.name)):
        yield (info.name if index < NAMES_MAX else OTHER), info


def _queue_families(queues: Iterable[tuple[str, QueueInfo]]) -> list[Metric]:
    jobs: Counter[tuple[str, ...]] = Counter()
    oldest: dict[str, float] = {}
    paused: dict[str, bool] = {}
    for label, info in queues:
        stats = info.stats
        jobs[label, "ready"] += stats.pending - stats.scheduled
        jobs[label, "scheduled"] += stats.scheduled
        jobs[label, "running"] += stats.processing
        jobs[label, "failed"] += stats.failed
        # One paused queue must not mute what `other` says of the rest, nor its waiting jobs pass for theirs.
        is_left_out = label == OTHER and info.is_paused
        oldest[label] = max(oldest.get(label, 0.0), 0.0 if is_left_out else info.oldest_ready_s or 0.0)
        paused[label] = paused.get(label, True) and info.is_paused
    return [
        _family(
            "protojobs_queue_jobs",
            "Jobs by state. Beyond 10,000 of a queue: a guess, or at least so many.",
            jobs,
            "queue",
            "state",
        ),
        _family(
            "protojobs_queue_oldest_ready_seconds",
            "For how long the oldest due job has waited; 0 when none is due. `other` leaves paused queues out.",
            {(name,): seconds for name, seconds in oldest.items()},
            "queue",
        ),
        _family(
            "protojobs_queue_paused",
            "1 while the queue is paused; `other` while all of them are.",
            {(name,): float(is_paused) for name, is_paused in paused.items()},
            "queue",
        ),
    ]


def _workers(states: Iterable[str]) -> Metric:
    counts = Counter({"alive": 0, "lapsed": 0})
    counts.update(states)
    return _family(
        "protojobs_workers",
        "Workers that the store knows; lapsed ones have not been heard of for their lease.",
        {(state,): count for state, count in counts.items()},
        "state",
    )


def _slots(workers: Sequence[WorkerRecord], states: Sequence[str]) -> Iterator[Metric]:
    alive = [worker for worker, state in zip(workers, states, strict=True) if state == "alive"]
    slots = sum(worker.concurrency for worker in alive)
    yield GaugeMetricFamily("protojobs_fleet_slots", "Jobs that all living workers can run at once.", value=slots)
    busy = sum(worker.processing for worker in alive)
    yield GaugeMetricFamily("protojobs_fleet_slots_busy", "Jobs that they hold.", value=busy)


def _up(value: int) -> Metric:
    return GaugeMetricFamily("protojobs_store_up", "1 when the store answered this scrape.", value=value)


def _family(name: str, words: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
