"""Events: which failures are reported, what they say, and that no run sees anything of another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sentry_sdk

from protojobs import Discard, JobQueue, Retry, Snooze, create_driver, job
from protojobs.hooks import Hooks
from protojobs_sentry import SentryPlugin, SentrySettings
from protojobs_sentry.reporting import SEEN_MAX

SECRET = "card 4000"


def queue_with(url: str = "memory://", concurrency: int = 2, **settings: object) -> JobQueue:
    made = JobQueue(create_driver(url), {"retry_delay": 0.0, "concurrency": concurrency})
    made._hooks = Hooks([("sentry", SentryPlugin(SentrySettings(**settings)))])
    return made


def crumbs(event: dict) -> list[str]:
    return [crumb["message"] for crumb in event.get("breadcrumbs", {}).get("values", [])]


def variables(event: dict) -> list[dict]:
    frames = [frame for error in event["exception"]["values"] for frame in error["stacktrace"]["frames"]]
    return [frame["vars"] for frame in frames if "vars" in frame]


def test_a_job_that_is_given_up_is_one_event_with_its_job_and_the_last_attempt(sentry) -> None:
    sent = sentry()
    queue = queue_with()

    @job(name="card.charge", queue="payments", max_retries=2)
    def charge() -> None:
        sentry_sdk.add_breadcrumb(message="asked the bank")
        raise ConnectionError("the bank does not answer")

    job_id = queue.push(charge)
    queue.work("payments", 10)
    event = sent.only
    error = event["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("ConnectionError", "the bank does not answer")
    assert error["mechanism"] == {"type": "protojobs", "handled": False}
    assert error["stacktrace"]["frames"][-1]["function"] == "charge"
    assert (event["level"], event["transaction"]) == ("error", "card.charge")
    assert event["tags"] == {"job_name": "card.charge", "queue": "payments"}
    run = event["contexts"]["job"]
    assert run.pop("worker")
    assert run == {"id": job_id, "attempt": 3, "max_attempts": 3}
    assert crumbs(event) == ["asked the bank"]
    assert "fingerprint" not in event


def test_with_attempts_each_failed_one_is_an_event_and_the_last_one_is_the_error(sentry) -> None:
    sent = sentry()
    queue = queue_with(report="attempts")

    @job(name="broken", max_retries=2)
    def broken() -> None:
        raise KeyError("x")

    queue.push(broken)
    queue.work("default", 10)
    seen = [(event["level"], event["contexts"]["job"]["attempt"]) for event in sent.of("event")]
    assert seen == [("warning", 1), ("warning", 2), ("error", 3)]


def test_with_none_nothing_is_reported(sentry) -> None:
    sent = sentry()
    queue = queue_with(report="none")

    @job(name="broken", max_retries=0)
    def broken() -> None:
        raise KeyError("x")

    queue.push(broken)
    queue.work("default", 10)
    assert sent.items == []


def test_what_a_job_says_of_itself_is_not_reported(sentry) -> None:
    sent = sentry()
    queue = queue_with(report="attempts")

    @job(name="wayward")
    def wayward(how: str) -> object:
        return {"snooze": Snooze(3600), "discard": Discard("no"), "fine": None}[how]

    @job(name="discarded", discard_on=KeyError)
    def discarded() -> None:
        raise KeyError("x")

    for one in (*(wayward.bind(how) for how in ("snooze", "discard", "fine")), discarded):
        queue.push(one)
    assert queue.work("default", 10).runs == 4
    assert sent.of("event") == []


def test_a_job_that_asks_for_a_retry_too_often_is_reported(sentry) -> None:
    sent = sentry()
    queue = queue_with()

    @job(name="again", max_retries=0)
    def again() -> Retry:
        return Retry(0)

    queue.push(again)
    queue.work("default", 10)
    assert sent.only["exception"]["values"][-1]["value"] == "the job asked for a retry"


@pytest.mark.parametrize("name", ["endless", "patient"])
def test_a_run_that_its_timeout_ends_is_reported_with_its_breadcrumbs(sentry, name: str) -> None:
    sent = sentry()
    queue = queue_with()

    @job(name="endless", timeout=2, max_retries=0)
    def endless() -> None:
        sentry_sdk.add_breadcrumb(message="began")
        while True:
            sum(range(1000))

    @job(name="patient", timeout=2, max_retries=0)
    async def patient() -> None:
        sentry_sdk.add_breadcrumb(message="began")
        await asyncio.sleep(3600)

    queue.push(name)
    queue.work("default", 5)
    assert sent.only["exception"]["values"][-1]["type"] == "JobTimeout"
    assert crumbs(sent.only) == ["began"]
    assert sent.only["contexts"]["job"]["max_attempts"] == 1


class TestPayload:
    @pytest.mark.parametrize("is_asked_for", [False, True])
    def test_the_data_of_a_job_is_sent_only_if_asked_for(self, sentry, is_asked_for: bool) -> None:
        sent = sentry()
        queue = queue_with(local_variables=is_asked_for)

        @job(name="pay", max_retries=0)
        def pay(number: str) -> None:
            raise ValueError("declined")

        queue.push(pay.bind(SECRET))
        queue.work("default", 5)
        assert (SECRET in repr(sent.items)) is is_asked_for
        assert bool(variables(sent.only)) is is_asked_for

    def test_the_sdks_own_option_still_holds(self, sentry) -> None:
        sent = sentry(include_local_variables=False)
        queue = queue_with(local_variables=True)

        @job(name="pay", max_retries=0)
        def pay(number: str) -> None:
            raise ValueError("declined")

        queue.push(pay.bind(SECRET))
        queue.work("default", 5)
        assert SECRET not in repr(sent.items)


class TestIsolation:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_nothing_of_a_run_reaches_another_that_runs_beside_it_or_after_it(self, sentry, is_async: bool) -> None:
        sent = sentry()
        queue = queue_with(concurrency=4)
        together = threading.Barrier(4)

        def note(number: int) -> None:
            sentry_sdk.add_breadcrumb(message=f"crumb {number}")
            sentry_sdk.set_tag(f"tag {number}", "x")
            sentry_sdk.set_user({"id": str(number)})

        @job(name="plain", max_retries=0)
        def plain(number: int) -> None:
            note(number)
            together.wait(30)
            raise ValueError(str(number))

        met: list[int] = []

        @job(name="on_the_loop", max_retries=0)
        async def on_the_loop(number: int) -> None:
            note(number)
            met.append(number)
            while len(met) < 4 * (number // 4 + 1):
                await asyncio.sleep(0.001)
            raise ValueError(str(number))

        sentry_sdk.add_breadcrumb(message="before all jobs")
        sentry_sdk.set_tag("service", "shop")
        for number in range(8):
            queue.push((on_the_loop if is_async else plain).bind(number))
        queue.work("default", 8)
        seen = {event["exception"]["values"][-1]["value"]: event for event in sent.of("event")}
        assert sorted(seen) == [str(number) for number in range(8)]
        for number, event in seen.items():
            assert crumbs(event) == [f"crumb {number}"]
            assert event["user"] == {"id": number}
            assert sorted(event["tags"]) == ["job_name", "queue", "service", f"tag {number}"]
        assert len({event["contexts"]["trace"]["trace_id"] for event in seen.values()}) == 8

    def test_the_worker_keeps_nothing_of_its_jobs(self, sentry) -> None:
        sent = sentry()
        queue = queue_with()

        @job(name="noisy", max_retries=0)
        def noisy() -> None:
            sentry_sdk.set_tag("of", "the job")
            raise KeyError("x")

        queue.push(noisy)
        queue.work("default", 5)
        sent.items.clear()
        sentry_sdk.capture_message("afterwards")
        assert "tags" not in sent.only
        assert crumbs(sent.only) == []

    def test_what_waits_for_the_store_is_bounded(self, sentry) -> None:
        sentry()
        queue = queue_with()
        (hook,) = queue.hooks.around_job

        @job(name="broken", max_retries=0)
        def broken() -> None:
            raise KeyError("x")

        plugin = hook.__self__
        for number in range(SEEN_MAX + 5):
            plugin._seen[str(number), 1] = None
        queue.push(broken)
        queue._hooks._observers = dict.fromkeys(queue._hooks._observers, ())  # as in a child process
        queue.work("default", 5)
        assert len(plugin._seen) == SEEN_MAX


class TestTrouble:
    @pytest.mark.parametrize("options", [{}, {"traces_sample_rate": 1.0}])
    def test_a_transport_that_fails_is_logged_once_and_jobs_are_pushed_and_run(self, sentry, caplog, options) -> None:
        class Broken(sentry_sdk.transport.Transport):
            def capture_envelope(self, envelope: object) -> None:
                raise RuntimeError("no way out")

        sentry(transport=Broken(), **options)
        queue = queue_with(report="attempts", check_ins=True)
        done = []

        @job(name="fine")
        def fine() -> None:
            done.append(1)

        @job(name="broken", max_retries=2)
        def broken() -> None:
            raise KeyError("x")

        queue.push_many([fine.bind(), broken.bind()])
        report = queue.work("default", 10)
        assert (done, report.failed) == ([1], 1)
        lines = [record for record in caplog.records if record.name == "protojobs.sentry"]
        assert len(lines) == 1
        assert not [record for record in caplog.records if record.name == "protojobs.hooks"]

    @pytest.mark.parametrize(
        "broken_call", ["isolation_scope", "continue_trace", "get_traceparent", "start_transaction"]
    )
    def test_an_sdk_that_fails_is_logged_once_and_jobs_are_pushed_and_run(
        self, sentry, caplog, monkeypatch, broken_call: str
    ) -> None:
        sentry(traces_sample_rate=1.0)

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("the SDK is broken")

        monkeypatch.setattr(sentry_sdk, broken_call, broken)
        queue = queue_with()
        done = []

        @job(name="fine")
        def fine() -> None:
            done.append(1)

        queue.push_many([fine.bind(), fine.bind()])
        queue.work("default", 10)
        assert done == [1, 1]
        assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["protojobs.sentry"]

    def test_without_a_client_nothing_happens(self, caplog) -> None:
        queue = queue_with(report="attempts", check_ins=True)

        @job(name="broken", max_retries=0)
        def broken() -> None:
            raise KeyError("x")

        job_id = queue.push(broken)
        assert queue.get(job_id).meta is None
        assert queue.work("default", 5).failed == 1
        assert "Sentry" not in caplog.text


class TestRealWorkers:
    """Through the settings and a file, as an application has it."""

    APP = """
import sentry_sdk
from protojobs import job
from sentry_sdk.transport import Transport
from protojobs_sentry import SentryPlugin

class ToFile(Transport):
    def capture_envelope(self, envelope):
        with open("sent", "a") as file:
            for item in envelope.items:
                event = item.payload.json
                error = event["exception"]["values"][-1]
                said = (event["tags"]["job_name"], event["contexts"]["job"]["attempt"], error["type"], error["value"])
                trace = event.get("extra", {}).get("traceback", "")
                print(*said, "in deep" in trace, len(event.get("breadcrumbs", {"values": ()})["values"]), file=file)

sentry_sdk.init(dsn="https://key@sentry.example/1", transport=ToFile, send_client_reports=False)

def deep():
    raise LookupError("nothing there")

@job(name="look", max_retries=1, retry_delay=0)
def look():
    sentry_sdk.add_breadcrumb(message="looking")
    deep()
"""

    @pytest.mark.parametrize(
        ("executor", "seen"),
        [("thread", "False 1"), pytest.param("process", "True 0", marks=pytest.mark.slow)],
    )
    def test_on_sqlite_by_the_command(
        self, tmp_path: Path, run_protojobs: Callable[..., None], executor: str, seen: str
    ) -> None:
        (tmp_path / "shop.py").write_text(self.APP)
        create_driver(f"sqlite:///{tmp_path / 'jobs.db'}").setup()
        run_protojobs(tmp_path, "push", "look")
        run_protojobs(tmp_path, "worker", "--stop-when-empty", "--executor", executor)
        assert (tmp_path / "sent").read_text() == f"look 2 LookupError nothing there {seen}\n"
