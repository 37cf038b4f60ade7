"""Spans: one for each push, one for each attempt, linked through the job's `meta`, and what they say of a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from protojobs import Discard, JobQueue, Retry, Snooze, create_driver, hookimpl, job
from protojobs.hooks import Hooks
from protojobs.port.records import NewJob
from protojobs_opentelemetry import OpenTelemetry, OpenTelemetrySettings
from protojobs_opentelemetry.carrier import CONTEXT_BYTES_MAX, injected


class Observed:
    """A queue with the plugin, and what came out of it."""

    def __init__(self, settings: OpenTelemetrySettings, *plugins: object) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader])
        self.plugin = OpenTelemetry(settings, tracer_provider=self.provider, meter_provider=meters)
        self.queue = JobQueue(create_driver("memory://"), {"retry_delay": 0.0, "concurrency": 2})
        self.queue._hooks = Hooks([("otel", self.plugin), *((repr(one), one) for one in plugins)])

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def only(self, kind: SpanKind) -> ReadableSpan:
        (span,) = self.spans(kind)
        return span

    def points(self, name: str) -> list[tuple[dict[str, object], object]]:
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [(dict(point.attributes or {}), point) for metric in found for point in metric.data.data_points]


@pytest.fixture
def observed() -> Callable[..., Observed]:
    def make(*plugins: object, **settings: object) -> Observed:
        return Observed(OpenTelemetrySettings(**settings), *plugins)

    return make


def meta_of(queue: JobQueue, job_id: str) -> dict[str, str]:
    record = queue.get(job_id)
    assert record is not None
    assert record.meta is not None
    return json.loads(record.meta)


def test_a_push_is_a_producers_span_and_a_run_a_consumers_that_links_to_it(observed) -> None:
    seen = observed()

    @job(name="invoice.send", queue="mail")
    def send() -> None: ...

    job_id = seen.queue.push(send)
    seen.queue.work("mail", 5)
    produced, consumed = seen.only(SpanKind.PRODUCER), seen.only(SpanKind.CONSUMER)
    assert produced.name == "send mail"
    assert dict(produced.attributes) == {
        "messaging.system": "protojobs",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.message.id": job_id,
        "protojobs.job.name": "invoice.send",
    }
    assert consumed.name == "process mail"
    assert dict(consumed.attributes) == {
        "messaging.system": "protojobs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": job_id,
        "protojobs.job.name": "invoice.send",
        "protojobs.attempt": 1,
    }
    assert consumed.parent is None
    assert [link.context.span_id for link in consumed.links] == [produced.context.span_id]
    assert consumed.context.trace_id != produced.context.trace_id
    assert consumed.status.status_code is StatusCode.UNSET


def test_as_a_parent_the_run_belongs_to_the_pushers_trace(observed) -> None:
    seen = observed(trace="parent")

    @job(name="a")
    def a() -> None: ...

    tracer = seen.provider.get_tracer("app")
    with tracer.start_as_current_span("request") as request:
        seen.queue.push(a)
    seen.queue.work("default", 5)
    produced, consumed = seen.only(SpanKind.PRODUCER), seen.only(SpanKind.CONSUMER)
    assert produced.parent.span_id == request.get_span_context().span_id
    assert consumed.parent.span_id == produced.context.span_id
    assert consumed.links == ()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_job_traces_and_pushes_is_below_its_own_span(observed, is_async: bool) -> None:
    seen = observed()
    tracer = seen.provider.get_tracer("app")

    @job(name="child", queue="later")
    def child() -> None: ...

    def do() -> None:
        with tracer.start_as_current_span("step"):
            seen.queue.push(child)

    @job(name="parent")
    def parent() -> None:
        do()

    @job(name="aparent")
    async def aparent() -> None:
        do()

    seen.queue.push(aparent if is_async else parent)
    seen.queue.work("default", 5)
    consumed = seen.only(SpanKind.CONSUMER)
    step = seen.only(SpanKind.INTERNAL)
    assert step.parent.span_id == consumed.context.span_id
    assert seen.spans(SpanKind.PRODUCER)[-1].parent.span_id == step.context.span_id
    assert not trace.get_current_span().get_span_context().is_valid  # nothing of it stays behind


def test_each_attempt_has_its_own_span_with_its_error_and_the_same_link(observed) -> None:
    seen = observed()

    class Declined(Exception):
        pass

    @job(name="pay", max_retries=2)
    def pay() -> None:
        raise Declined("no funds")

    seen.queue.push(pay)
    seen.queue.work("default", 10)
    spans = seen.spans(SpanKind.CONSUMER)
    assert [span.attributes["protojobs.attempt"] for span in spans] == [1, 2, 3]
    assert len({span.context.trace_id for span in spans}) == 3
    assert {span.links[0].context.span_id for span in spans} == {seen.only(SpanKind.PRODUCER).context.span_id}
    for span in spans:
        assert span.attributes["error.type"] == f"{Declined.__module__}.{Declined.__qualname__}"
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]


def test_what_a_job_returns_to_steer_itself_is_no_error(observed) -> None:
    seen = observed()

    @job(name="wayward")
    def wayward(how: str) -> object:
        return {"snooze": Snooze(3600), "discard": Discard("no"), "retry": Retry(3600)}[how]

    for how in ("snooze", "discard", "retry"):
        seen.queue.push(wayward.bind(how))
    seen.queue.work("default", 10)
    assert [span.status.status_code for span in seen.spans(SpanKind.CONSUMER)] == [StatusCode.UNSET] * 3


@pytest.mark.parametrize("name", ["endless", "patient"])
def test_a_run_that_the_worker_ends_says_so(observed, name: str) -> None:
    seen = observed()

    @job(name="endless", timeout=0.3, max_retries=0)
    def endless() -> None:
        while True:
            sum(range(1000))

    @job(name="patient", timeout=0.3, max_retries=0)
    async def patient() -> None:
        await asyncio.sleep(3600)

    seen.queue.push(name)
    seen.queue.work("default", 5)
    assert seen.only(SpanKind.CONSUMER).attributes["error.type"] == "interrupted"
    ((attributes, _),) = seen.points("messaging.process.duration")
    assert attributes["error.type"] == "interrupted"


def test_counts_and_durations_carry_the_conventions_names(observed) -> None:
    seen = observed()

    @job(name="fine")
    def fine() -> None: ...

    @job(name="broken", max_retries=0)
    def broken() -> None:
        raise KeyError("x")

    seen.queue.push_many([fine.bind(), fine.bind(), broken.bind()])
    seen.queue.work("default", 10)
    sent = {
        attributes["protojobs.job.name"]: point.value
        for attributes, point in seen.points("messaging.client.sent.messages")
    }
    assert sent == {"fine": 2, "broken": 1}
    consumed = {a["protojobs.job.name"]: p.value for a, p in seen.points("messaging.client.consumed.messages")}
    assert consumed == sent
    durations = {
        (a["protojobs.job.name"], a.get("error.type")): p.count for a, p in seen.points("messaging.process.duration")
    }
    assert durations == {("fine", None): 2, ("broken", "KeyError"): 1}
    (_, point), *_ = seen.points("messaging.process.duration")
    assert point.explicit_bounds[-1] == 14_400


def test_each_half_can_be_left_out(observed) -> None:
    @job(name="a")
    def a() -> None: ...

    without_spans = observed(trace="none")
    job_id = without_spans.queue.push(a)
    assert without_spans.queue.get(job_id).meta is None
    without_spans.queue.work("default", 5)
    assert without_spans.exporter.get_finished_spans() == ()
    assert without_spans.points("messaging.process.duration")
    without_counts = observed(metrics=False)
    without_counts.queue.push(a)
    without_counts.queue.work("default", 5)
    assert len(without_counts.exporter.get_finished_spans()) == 2
    assert without_counts.reader.get_metrics_data() is None


class TestCarrier:
    def test_baggage_travels_and_reaches_the_job(self, observed) -> None:
        seen = observed()
        found: list[object] = []

        @job(name="a")
        def a() -> None:
            found.append(baggage.get_baggage("tenant"))

        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            seen.queue.push(a)
        finally:
            context.detach(token)
        seen.queue.work("default", 5)
        assert found == ["acme"]

    def test_keys_of_others_are_left_alone(self) -> None:
        span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
        here = trace.set_span_in_context(span)
        there = json.loads(injected('{"request_id": "7", "traceparent": "mine"}', here) or "")
        assert there == {"request_id": "7", "traceparent": "mine"}
        assert sorted(json.loads(injected('{"request_id": "7"}', here) or "")) == ["request_id", "traceparent"]

    @pytest.mark.parametrize("strange", ["[1]", "{", '{"a": 1}', '"x"'])
    def test_what_is_no_object_of_strings_is_left_alone(self, strange: str) -> None:
        span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
        assert injected(strange, trace.set_span_in_context(span)) == strange

    def test_what_is_stored_is_bounded(self, observed) -> None:
        seen = observed()

        @job(name="a")
        def a() -> None: ...

        token = context.attach(baggage.set_baggage("big", "x" * CONTEXT_BYTES_MAX))
        try:
            job_id = seen.queue.push(a)
        finally:
            context.detach(token)
        assert list(meta_of(seen.queue, job_id)) == ["traceparent"]

    @pytest.mark.parametrize("traceparent", ["", "garbage", "00-0-0-00", "x" * 10_000, "00-\u202e-é-01"])
    def test_a_hostile_context_from_the_store_runs_the_job_all_the_same(self, observed, traceparent: str) -> None:
        class Hostile:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob:
                return msgspec.structs.replace(
                    job, meta=json.dumps({"traceparent": traceparent, "baggage": "=,;=\x00"})
                )

        seen = observed(Hostile())

        @job(name="a")
        def a() -> None: ...

        seen.queue.push(a)
        assert seen.queue.work("default", 5).done == 1
        assert seen.only(SpanKind.CONSUMER).links == ()

    def test_a_propagator_that_fails_does_not_keep_a_job_from_the_store(self, observed, monkeypatch, caplog) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("no propagator")

        monkeypatch.setattr(propagate, "inject", broken)
        monkeypatch.setattr(propagate, "extract", broken)
        seen = observed()

        @job(name="a")
        def a() -> None: ...

        seen.queue.push(a)
        assert "without its trace" in caplog.text
        assert seen.queue.work("default", 5).done == 1
