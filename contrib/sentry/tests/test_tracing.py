"""Transactions: one for each run, in the trace of its push, by headers in the job's `meta`."""

from __future__ import annotations

import json

import msgspec
import pytest
import sentry_sdk

from protojobs import JobQueue, create_driver, hookimpl, job
from protojobs.hooks import Hooks
from protojobs.port.records import NewJob
from protojobs_sentry import SentryPlugin
from protojobs_sentry.carrier import HEADERS_BYTES_MAX, headers_of, with_headers


def queue_with(*plugins: object) -> JobQueue:
    made = JobQueue(create_driver("memory://"), {"retry_delay": 0.0, "concurrency": 2})
    made._hooks = Hooks([("sentry", SentryPlugin()), *((repr(one), one) for one in plugins)])
    return made


@pytest.mark.parametrize("is_async", [False, True])
def test_each_attempt_is_a_transaction_in_the_trace_of_the_push(sentry, is_async: bool) -> None:
    sent = sentry(traces_sample_rate=1.0)
    queue = queue_with()

    @job(name="plain", queue="mail", max_retries=1)
    def plain() -> None:
        with sentry_sdk.start_span(name="step"):
            raise KeyError("x")

    @job(name="on_the_loop", queue="mail", max_retries=1)
    async def on_the_loop() -> None:
        with sentry_sdk.start_span(name="step"):
            raise KeyError("x")

    with sentry_sdk.start_transaction(name="POST /orders") as request:
        job_id = queue.push(on_the_loop if is_async else plain)
    queue.work("mail", 10)
    pushed, *runs = sent.of("transaction")
    assert pushed["transaction"] == "POST /orders"
    assert [run["transaction"] for run in runs] == ["on_the_loop" if is_async else "plain"] * 2
    for number, run in enumerate(runs):
        trace = run["contexts"]["trace"]
        assert trace["trace_id"] == request.trace_id
        assert trace["parent_span_id"] == request.span_id
        assert (trace["op"], trace["status"]) == ("queue.task.protojobs", "internal_error")
        assert trace["data"]["messaging.message.id"] == job_id
        assert trace["data"]["messaging.destination.name"] == "mail"
        assert trace["data"]["messaging.message.retry.count"] == number
        assert [span["description"] for span in run["spans"]] == ["step"]
    assert sent.only["contexts"]["trace"]["trace_id"] == request.trace_id


def test_the_pusher_decides_whether_a_trace_is_sampled(sentry) -> None:
    sent = sentry(traces_sample_rate=1.0)
    queue = queue_with()

    @job(name="a")
    def a() -> None: ...

    with sentry_sdk.start_transaction(name="POST /orders", sampled=False):
        queue.push(a)
    assert queue.work("default", 5).done == 1
    assert sent.of("transaction") == []


def test_where_tracing_is_off_nothing_is_stored_and_there_is_no_transaction(sentry) -> None:
    sent = sentry()
    queue = queue_with()

    @job(name="a")
    def a() -> None: ...

    job_id = queue.push(a)
    assert queue.get(job_id).meta is None
    assert queue.work("default", 5).done == 1
    assert sent.items == []


def test_in_the_sdks_streaming_mode_there_is_no_transaction_and_no_warning(sentry, recwarn) -> None:
    sent = sentry(traces_sample_rate=1.0, _experiments={"trace_lifecycle": "stream"})
    queue = queue_with()

    @job(name="broken", max_retries=0)
    def broken() -> None:
        raise KeyError("x")

    queue.push(broken)
    queue.work("default", 5)
    assert sent.only["contexts"]["job"]["attempt"] == 1
    assert [str(one.message) for one in recwarn if "sentry" in one.filename] == []


class TestCarrier:
    def test_keys_of_others_are_left_alone(self, sentry) -> None:
        sentry(traces_sample_rate=1.0)
        with sentry_sdk.start_transaction(name="request"):
            stored = json.loads(with_headers('{"baggage": "theirs", "schedule": "nightly"}') or "")
            assert sorted(stored) == ["baggage", "schedule", "sentry-baggage", "sentry-trace"]
            assert (stored["baggage"], stored["schedule"]) == ("theirs", "nightly")
            assert with_headers('{"sentry-trace": "earlier"}') == '{"sentry-trace": "earlier"}'
            assert headers_of(stored) == {
                "sentry-trace": sentry_sdk.get_traceparent(),
                "baggage": sentry_sdk.get_baggage(),
            }

    @pytest.mark.parametrize("strange", ["[1]", "{", '{"a": 1}', '"x"'])
    def test_what_is_no_object_of_strings_is_left_alone(self, sentry, strange: str) -> None:
        sentry(traces_sample_rate=1.0)
        assert with_headers(strange) == strange

    def test_what_is_stored_is_bounded(self, sentry, monkeypatch) -> None:
        sentry(traces_sample_rate=1.0)
        monkeypatch.setattr(sentry_sdk, "get_baggage", lambda: "sentry-release=" + "x" * HEADERS_BYTES_MAX)
        assert list(json.loads(with_headers(None) or "")) == ["sentry-trace"]

    @pytest.mark.parametrize("header", ["", "garbage", "x" * 10_000, "0" * 32 + "-" + "0" * 16 + "-1", "\u202e-é-01"])
    def test_a_hostile_header_from_the_store_runs_the_job_all_the_same(self, sentry, caplog, header: str) -> None:
        class Hostile:
            @hookimpl
            def protojobs_before_push(self, job: NewJob) -> NewJob:
                meta = json.dumps({"sentry-trace": header, "sentry-baggage": "=,;=\x00"})
                return msgspec.structs.replace(job, meta=meta)

        sent = sentry(traces_sample_rate=1.0)
        queue = queue_with(Hostile())

        @job(name="a")
        def a() -> None: ...

        queue.push(a)
        assert queue.work("default", 5).done == 1
        assert [run["transaction"] for run in sent.of("transaction")] == ["a"]
        assert "Sentry" not in caplog.text
