"""The metrics of one process: what it pushed, and what its workers ran. Named by the rules of Prometheus."""

from __future__ import annotations

from importlib.metadata import version
from platform import python_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from protojobs.errors import OptionInvalid

__all__ = ["BUCKETS_S", "ProcessMetrics"]

# From a few milliseconds to a day: jobs that take hours are ordinary, and so are waits of minutes.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
_JOB = ("queue", "job")


class ProcessMetrics:
    """Raises OptionInvalid when `registry` has them already."""

    def __init__(self, registry: CollectorRegistry) -> None:
        try:
            self.enqueued = Counter(
                "protojobs_jobs_enqueued", "Jobs that this process stored.", _JOB, registry=registry
            )
        except ValueError:
            raise OptionInvalid(
                "This registry has the metrics of protojobs already.",
                mend="Make one Prometheus() in a process, and use it for every JobQueue.",
            ) from None
        self.finished = Counter(
            "protojobs_jobs_finished", "Runs that ended here, by outcome.", (*_JOB, "outcome"), registry=registry
        )
        self.duration = Histogram(
            "protojobs_job_duration_seconds",
            "How long runs took: those that succeeded, failed for good, or are retried.",
            (*_JOB, "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.wait = Histogram(
            "protojobs_job_wait_seconds",
            "How long jobs were due before a worker claimed them; a delay that was asked for does not count.",
            _JOB,
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.in_progress = Gauge("protojobs_jobs_in_progress", "Jobs being run here.", _JOB, registry=registry)
        self.slots = Gauge("protojobs_worker_slots", "Jobs that this process can run at once.", registry=registry)
        self.outages = Counter(
            "protojobs_worker_outages", "Times that a worker here lost sight of the store.", registry=registry
        )
        self.fired = Counter("protojobs_schedule_fired", "Schedules' times that fired.", _JOB, registry=registry)
        self.missed = Counter(
            "protojobs_schedule_missed", "Schedules' times passed over.", (*_JOB, "reason"), registry=registry
        )
        build = Gauge("protojobs_build_info", "Versions; always 1.", ("version", "python"), registry=registry)
        build.labels(version("protojobs"), python_version()).set(1)
