"""The plugin: a span for each push and for each run, and the counts of both.

Names and attributes follow OpenTelemetry's conventions for messaging. They are still marked as in development there, so
they are written out here and do not come from a package whose constants move.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Literal

import msgspec
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, TracerProvider

from protojobs import JobContext, events, hookimpl
from protojobs.clock import SYSTEM_CLOCK
from protojobs.port.records import NewJob
from protojobs_opentelemetry.carrier import extracted, injected
from protojobs_opentelemetry.settings import OpenTelemetrySettings

__all__ = ["OpenTelemetry"]

# The advised ones end at ten seconds, where jobs begin.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400)
_SCOPE = "protojobs"
_log = logging.getLogger("protojobs.opentelemetry")


class OpenTelemetry:
    """Spans and counts, by the providers given or those that the application has set globally, now or later."""

    def __init__(
        self,
        settings: OpenTelemetrySettings | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._settings = settings or OpenTelemetrySettings()
        self._tracer = trace.get_tracer(_SCOPE, version(_SCOPE), tracer_provider)
        meter = metrics.get_meter(_SCOPE, version(_SCOPE), meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )

    @hookimpl
    def protojobs_before_push(self, job: NewJob) -> NewJob | None:
        """Note the push as a span, and give its context to the job.

        The span says when and by whom the job was made. It ends before the store is asked: whether that took long, or
        failed, is for the span around it.
        """
        if self._settings.trace == "none":
            return None
        try:
            return self._traced(job)
        except Exception:  # noqa: BLE001  (a propagator of the application's: tracing must not keep a job from the store)
            _log.exception("job %s is pushed without its trace", job.id)
            return None

    @hookimpl
    def protojobs_job_queued(self, event: events.JobQueued) -> None:
        """Count what the store has taken; a push sent again is not."""
        if self._settings.metrics and event.duplicate_of is None:
            self._sent.add(1, _common("send", event.queue, event.job_name))

    def _traced(self, job: NewJob) -> NewJob | None:
        attributes = {**_common("send", job.queue, job.job_name), "messaging.message.id": job.id}
        span = self._tracer.start_span(f"send {job.queue}", kind=SpanKind.PRODUCER, attributes=attributes)
        span.end()
        meta = injected(job.meta, trace.set_span_in_context(span))
        return None if meta == job.meta else msgspec.structs.replace(job, meta=meta)

    @hookimpl
    @contextmanager
    def protojobs_around_job(self, context: JobContext) -> Generator[None]:
        """A span around the run, and its duration. What the job raises passes, and is noted."""
        attributes = _common("process", context.queue, context.job_name)
        if self._settings.metrics:
            self._consumed.add(1, attributes)
        began = SYSTEM_CLOCK.monotonic()
        error: BaseException | None = None
        try:
            with self._span(context, attributes):
                yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            if self._settings.metrics:
                if error is not None:
                    attributes["error.type"] = _type_of(error)
                self._duration.record(SYSTEM_CLOCK.monotonic() - began, attributes)

    @contextmanager
    def _span(self, context: JobContext, attributes: dict[str, str]) -> Generator[None]:
        if self._settings.trace == "none":
            yield
            return
        pushed = extracted(context.meta)
        producer = trace.get_current_span(pushed).get_span_context()
        is_child = self._settings.trace == "parent"
        span = self._tracer.start_span(
            f"process {context.queue}",
            # Without the producer's span, but with its baggage.
            pushed if is_child else trace.set_span_in_context(INVALID_SPAN, pushed),
            SpanKind.CONSUMER,
            {**attributes, "messaging.message.id": context.id, "protojobs.attempt": context.attempt},
            links=[Link(producer)] if producer.is_valid and not is_child else [],
        )
        token = contexts.attach(trace.set_span_in_context(span, pushed))
        try:
            yield
        except BaseException as error:
            _note(span, error)
            raise
        finally:
            contexts.detach(token)
            span.end()


def _common(operation: Literal["send", "process"], queue: str, job_name: str) -> dict[str, str]:
    return {
        "messaging.system": "protojobs",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "protojobs.job.name": job_name,
    }


def _note(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", _type_of(error))
    if isinstance(error, Exception):
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, _type_of(error)))


def _type_of(error: BaseException) -> str:
    """The exception's qualified name; `interrupted` for the one by which a worker ends a run from outside."""
    kind = type(error)
    if isinstance(error, asyncio.CancelledError):  # an async run
        return "interrupted"
    if not isinstance(error, Exception) and kind.__module__.startswith("protojobs."):
        return "interrupted"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
