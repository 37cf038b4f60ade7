"""What a process counts: the names and labels of its metrics, and that they agree with what happened."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from protojobs import Discard, JobQueue, Snooze, create_driver, events, job
from protojobs.errors import OptionInvalid
from protojobs.hooks import Hooks
from protojobs_prometheus import Prometheus, exposition
from protojobs_prometheus.labels import NAMES_MAX, OTHER, PAIRS_MAX, Labels
from protojobs_prometheus.text import render

UNITS = ("seconds", "bytes", "ratio", "info")
COUNTED_THINGS = ("jobs", "slots", "workers", "busy", "progress", "paused", "up")  # gauges of things have no unit
LABELS = {"queue", "job", "outcome", "state", "reason", "version", "python", "le"}  # each with few values, or bounded
BASE = {"job_class": "shop.Send"}


class Sample:
    """The value of each sample of a text, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.values.get((f"protojobs_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def plugin(registry: CollectorRegistry) -> Prometheus:
    return Prometheus(registry=registry)


@pytest.fixture
def queue(plugin: Prometheus) -> JobQueue:
    queue = JobQueue(create_driver("memory://"), {"concurrency": 2, "retry_delay": 0.0})
    queue.driver.setup()
    queue._hooks = Hooks([("prometheus", plugin)])
    return queue


def sample(registry: CollectorRegistry) -> Sample:
    return Sample(render(registry).decode())


def test_what_is_pushed_and_run_is_counted_by_queue_job_and_outcome(queue: JobQueue, registry) -> None:
    attempts: list[int] = []

    @job(name="fine")
    def fine() -> None: ...

    @job(name="broken", max_retries=1)
    def broken() -> None:
        attempts.append(1)
        raise ValueError("no")

    @job(name="wayward", queue="low")
    def wayward(answer: str) -> object:
        return Snooze(3600) if answer == "snooze" else Discard("not wanted")

    queue.push_many([fine.bind(), fine.bind(), broken.bind(), wayward.bind("snooze"), wayward.bind("discard")])
    report = queue.work(["default", "low"], 100)
    counted = sample(registry)
    assert len(attempts) == 2
    assert report.done == 2
    assert counted("jobs_enqueued_total", queue="default", job="fine") == 2
    assert counted("jobs_enqueued_total", queue="low", job="wayward") == 2
    ended = {
        (dict(labels)["job"], dict(labels)["outcome"]): value
        for (name, labels), value in counted.values.items()
        if name == "protojobs_jobs_finished_total"
    }
    assert ended == {
        ("fine", "succeeded"): 2,
        ("broken", "retried"): 1,
        ("broken", "failed"): 1,
        ("wayward", "snoozed"): 1,
        ("wayward", "cancelled"): 1,
    }
    assert counted("job_duration_seconds_count", queue="default", job="broken", outcome="failed") == 1
    assert counted("job_duration_seconds_count", queue="default", job="broken", outcome="retried") == 1
    assert counted("job_wait_seconds_count", queue="default", job="broken") == 2
    assert counted("jobs_in_progress", queue="default", job="fine") == 0
    assert counted("worker_slots") == 0  # the worker has ended


def test_jobs_in_progress_and_slots_are_there_while_a_worker_works(queue: JobQueue, registry) -> None:
    began, may_end = threading.Event(), threading.Event()

    @job(name="long")
    def long() -> None:
        began.set()
        assert may_end.wait(20)

    queue.push(long)
    worker = threading.Thread(target=queue.work, args=("default", 5))
    seen = threading.Event()
    events.on("job.processing", lambda event: seen.set())  # listeners come after plugins: then the gauge is set
    worker.start()
    assert began.wait(20)
    assert seen.wait(20)
    counted = sample(registry)
    may_end.set()
    worker.join(20)
    assert counted("jobs_in_progress", queue="default", job="long") == 1
    assert counted("worker_slots") == 2
    assert sample(registry)("jobs_in_progress", queue="default", job="long") == 0


def test_a_push_sent_again_is_not_counted_twice(plugin: Prometheus, registry) -> None:
    first = events.JobQueued(job_id="1", job_name="a", queue="q", **BASE)
    plugin.protojobs_job_queued(first)
    plugin.protojobs_job_queued(events.JobQueued(job_id="1", job_name="a", queue="q", duplicate_of="1", **BASE))
    assert sample(registry)("jobs_enqueued_total", queue="q", job="a") == 1


def test_a_worker_that_ends_leaves_nothing_in_progress_even_if_an_event_was_dropped(plugin, registry) -> None:
    plugin.protojobs_worker_starting(events.WorkerStarting(worker="w", queues=("q",), concurrency=3))
    plugin.protojobs_job_processing(events.JobProcessing(job_id="1", job_name="a", queue="q", wait_s=1.5, **BASE))
    assert sample(registry)("jobs_in_progress", queue="q", job="a") == 1
    assert sample(registry)("job_wait_seconds_sum", queue="q", job="a") == 1.5
    plugin.protojobs_worker_stopped()
    assert sample(registry)("jobs_in_progress", queue="q", job="a") == 0


def test_names_beyond_the_bound_share_a_label(plugin: Prometheus, registry) -> None:
    for number in range(PAIRS_MAX + 500):
        plugin.protojobs_job_queued(
            events.JobQueued(job_id=str(number), job_name=f"job-{number}", queue=f"queue-{number % 300}", **BASE)
        )
    family = sample(registry).families["protojobs_jobs_enqueued"]
    counts = [one for one in family.samples if one.name.endswith("_total")]
    assert {one.labels["job"] for one in counts} == {OTHER, *(f"job-{n}" for n in range(NAMES_MAX))}
    assert len({one.labels["queue"] for one in counts}) == NAMES_MAX + 1
    assert sum(one.value for one in counts) == PAIRS_MAX + 500


def test_labels_stay_the_same_once_given() -> None:
    labels = Labels()
    first = [labels.of(f"q{n}", f"j{n}") for n in range(PAIRS_MAX * 2)]
    assert [labels.of(f"q{n}", f"j{n}") for n in range(PAIRS_MAX * 2)] == first
    assert first[NAMES_MAX - 1] == (f"q{NAMES_MAX - 1}", f"j{NAMES_MAX - 1}")
    assert first[NAMES_MAX] == (OTHER, OTHER)


def test_hostile_names_survive_the_text_format(plugin: Prometheus, registry) -> None:
    name = 'a"b\\c{d="e"} \u202e<script>é'
    plugin.protojobs_job_queued(events.JobQueued(job_id="1", job_name=name, queue=name, **BASE))
    assert sample(registry)("jobs_enqueued_total", queue=name, job=name) == 1


def test_a_second_one_on_the_same_registry_is_refused_with_the_mend(plugin: Prometheus, registry) -> None:
    with pytest.raises(OptionInvalid, match="has the metrics of protojobs already.*Make one"):
        Prometheus(registry=registry)


def test_every_name_keeps_the_rules_of_prometheus(queue: JobQueue, plugin: Prometheus, registry, exercise) -> None:
    exercise(plugin)
    queue.pause("low")
    for text in (render(registry).decode(), exposition(queue)):
        families = [one for one in Sample(text).families.values() if not one.name.endswith("_created")]
        assert families
        for family in families:
            assert family.name.startswith("protojobs_")
            assert family.documentation
            last = family.name.rpartition("_")[2]
            match family.type:
                case "counter":
                    assert {one.name for one in family.samples} <= {f"{family.name}_total", f"{family.name}_created"}
                case "histogram":
                    assert last == "seconds"
                case _:
                    assert last in UNITS + COUNTED_THINGS, family.name
                    assert not family.name.endswith("_total")
            assert {label for one in family.samples for label in one.labels} <= LABELS
