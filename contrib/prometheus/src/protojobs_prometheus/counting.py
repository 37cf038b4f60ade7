"""The plugin: counts the events of this process as metrics, and serves them over HTTP in a worker."""

from __future__ import annotations

import threading

from prometheus_client import REGISTRY, CollectorRegistry

from protojobs import events, hookimpl
from protojobs_prometheus.labels import Labels
from protojobs_prometheus.metrics import ProcessMetrics
from protojobs_prometheus.server import MetricsServer
from protojobs_prometheus.settings import PrometheusSettings, parse_ports
from protojobs_prometheus.text import render

__all__ = ["Prometheus"]

RUNNING_MAX = 20_000  # jobs of one worker that are followed; it has at most 10,000 slots


class Prometheus:
    """Counts in `registry` what happens in this process. With `settings` a worker also serves it over HTTP.

    One for each process and registry. The labels `queue` and `job` are bounded; see `labels`.
    """

    def __init__(self, settings: PrometheusSettings | None = None, *, registry: CollectorRegistry = REGISTRY) -> None:
        self._metrics = ProcessMetrics(registry)
        self._labels = Labels()
        # The events of a worker come on one thread of its own: the number of the thread says whose they are.
        self._workers: dict[int, _Worker] = {}
        self._lock = threading.Lock()
        self.server: MetricsServer | None = None
        if settings is not None:
            self.server = MetricsServer(lambda: render(registry), settings.host, parse_ports(settings.port))

    @hookimpl
    def protojobs_job_queued(self, event: events.JobQueued) -> None:
        """Count what was stored; a push sent again is not."""
        if event.duplicate_of is None:
            self._metrics.enqueued.labels(*self._labels.of(event.queue, event.job_name)).inc()

    @hookimpl
    def protojobs_job_processing(self, event: events.JobProcessing) -> None:
        """A run begins."""
        pair = self._labels.of(event.queue, event.job_name)
        self._metrics.wait.labels(*pair).observe(event.wait_s)
        running = self._worker().running
        if len(running) < RUNNING_MAX and event.job_id not in running:
            running[event.job_id] = pair
            self._metrics.in_progress.labels(*pair).inc()

    @hookimpl
    def protojobs_job_processed(self, event: events.JobProcessed) -> None:
        """A run succeeded."""
        self._ended(event, "succeeded", event.duration_s)

    @hookimpl
    def protojobs_job_retrying(self, event: events.JobRetrying) -> None:
        """A run failed, and another follows."""
        self._ended(event, "retried", event.duration_s)

    @hookimpl
    def protojobs_job_failed(self, event: events.JobFailed) -> None:
        """A job failed for good."""
        self._ended(event, "failed", event.duration_s)

    @hookimpl
    def protojobs_job_snoozed(self, event: events.JobSnoozed) -> None:
        """A job asked to run later."""
        self._ended(event, "snoozed")

    @hookimpl
    def protojobs_job_cancelled(self, event: events.JobCancelled) -> None:
        """A job ended cancelled."""
        self._ended(event, "cancelled")

    @hookimpl
    def protojobs_job_released(self, event: events.JobReleased) -> None:
        """A job went back unspent."""
        self._ended(event, "released")

    @hookimpl
    def protojobs_job_late(self, event: events.JobLate) -> None:
        """A result came too late."""
        self._ended(event, "late")

    @hookimpl
    def protojobs_job_lost(self, event: events.JobReclaimed) -> None:
        """A job was taken back from another worker; it did not run here."""
        self._metrics.finished.labels(*self._labels.of(event.queue, event.job_name), "lost").inc()

    @hookimpl
    def protojobs_worker_starting(self, event: events.WorkerStarting) -> None:
        """Count its slots, and serve from now on until the process ends."""
        self._worker().slots = event.concurrency
        self._count_slots()
        if self.server is not None:
            self.server.start()

    @hookimpl
    def protojobs_worker_stopped(self) -> None:
        """Forget its slots, and what an event that was dropped has left in progress."""
        with self._lock:
            worker = self._workers.pop(threading.get_ident(), None)
        for pair in () if worker is None else worker.running.values():
            self._metrics.in_progress.labels(*pair).dec()
        self._count_slots()

    @hookimpl
    def protojobs_worker_degraded(self) -> None:
        """A worker cannot reach the store."""
        self._metrics.outages.inc()

    @hookimpl
    def protojobs_schedule_fired(self, event: events.ScheduleFired) -> None:
        """A schedule's time came."""
        self._metrics.fired.labels(*self._labels.of(event.queue, event.job_name)).inc()

    @hookimpl
    def protojobs_schedule_missed(self, event: events.ScheduleMissed) -> None:
        """A schedule's times were passed over."""
        labels = (*self._labels.of(event.queue, event.job_name), event.reason)
        self._metrics.missed.labels(*labels).inc(event.count)

    def _ended(self, event: events.JobEvent, outcome: str, duration_s: float | None = None) -> None:
        pair = self._labels.of(event.queue, event.job_name)
        self._metrics.finished.labels(*pair, outcome).inc()
        if duration_s is not None:
            self._metrics.duration.labels(*pair, outcome).observe(duration_s)
        if (begun := self._worker().running.pop(event.job_id, None)) is not None:
            self._metrics.in_progress.labels(*begun).dec()

    def _worker(self) -> _Worker:
        with self._lock:
            return self._workers.setdefault(threading.get_ident(), _Worker())

    def _count_slots(self) -> None:
        with self._lock:
            self._metrics.slots.set(sum(worker.slots for worker in self._workers.values()))


class _Worker:
    """One worker of this process: its slots, and the labels of the jobs that it runs, by their ids."""

    def __init__(self) -> None:
        self.slots = 0
        self.running: dict[str, tuple[str, str]] = {}
