"""Check-ins: of the runs of schedules, and of no others."""

from __future__ import annotations

import pytest

from protojobs import Cron, JobContext, JobQueue, Scheduler, create_driver, job
from protojobs.clock import SYSTEM_CLOCK
from protojobs.hooks import Hooks
from protojobs.interrupts import Interrupted
from protojobs.port.records import Fence
from protojobs_sentry import SentryPlugin, SentrySettings
from protojobs_sentry.check_ins import SLUG_CHARS_MAX, checked_in, monitor_slug

NIGHTLY = {"schedule": {"type": "crontab", "value": "30 2 * * *"}, "timezone": "UTC"}


def worked(plugin: SentryPlugin) -> None:
    """A schedule's run that fails, its retry that does not, and a run of the same job that no schedule has pushed."""
    queue = JobQueue(create_driver("memory://"), {"retry_delay": 0.0})
    queue._hooks = Hooks([("sentry", plugin)])
    tries: list[int] = []

    @job(name="books.close", max_retries=1, cron=Cron("30 2 * * *"))
    def close() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("no paper")

    scheduler = Scheduler(queue)
    scheduler.declare()
    scheduler.run_now("books.close")
    queue.work("default", 2)
    queue.push(close)
    queue.work("default", 1)
    assert len(tries) == 3


def test_each_attempt_of_a_schedules_run_checks_in_and_no_other_run_does(sentry) -> None:
    sent = sentry()
    worked(SentryPlugin(SentrySettings(check_ins=True)))
    failed, done = sent.of("check_in")[:2], sent.of("check_in")[2:]
    assert [one["status"] for one in failed] == ["in_progress", "error"]
    assert [one["status"] for one in done] == ["in_progress", "ok"]
    assert {one["monitor_slug"] for one in (*failed, *done)} == {"books-close"}
    assert len({one["check_in_id"] for one in failed}) == len({one["check_in_id"] for one in done}) == 1
    assert failed[0]["check_in_id"] != done[0]["check_in_id"]
    assert done[1]["duration"] >= 0
    assert "monitor_config" not in done[0]


def test_a_monitor_goes_with_the_check_ins_of_its_schedule(sentry) -> None:
    sent = sentry()
    worked(SentryPlugin(monitors={"books.close": NIGHTLY}))
    assert [one["monitor_config"] for one in sent.of("check_in")] == [NIGHTLY] * 4


@pytest.mark.parametrize("plugin", [SentryPlugin(), SentryPlugin(monitors={"another": NIGHTLY})])
def test_without_being_asked_for_there_is_none(sentry, plugin: SentryPlugin) -> None:
    sent = sentry()
    worked(plugin)
    assert sent.of("check_in") == []


@pytest.mark.parametrize(
    ("error", "is_stopping", "statuses"),
    [
        (Interrupted, True, ["in_progress"]),  # the worker stops, and the job goes back
        (Interrupted, False, ["in_progress", "error"]),  # its timeout is over
        (KeyError, True, ["in_progress", "error"]),
    ],
)
def test_a_run_that_a_stopping_worker_cuts_short_is_closed_by_the_next_one(
    sentry, error, is_stopping, statuses
) -> None:
    sent = sentry()

    def context() -> JobContext:
        return JobContext(
            Fence(id="01a20dda", claim_seq=1, reserved_by="w"),
            queue="q",
            job_name="j",
            attempt=1,
            max_retries=0,
            ends_at=None,
            meta={},
            clock=SYSTEM_CLOCK,
            report=lambda _fence, _share: None,
        )

    first = context()
    if is_stopping:
        first.request_stop()
    with pytest.raises(error), checked_in(first, "nightly", None):
        raise error
    assert [one["status"] for one in sent.of("check_in")] == statuses
    with checked_in(context(), "nightly", None):
        pass
    assert sent.of("check_in")[-1]["status"] == "ok"
    assert len({one["check_in_id"] for one in sent.of("check_in")}) == 1


class TestSlug:
    @pytest.mark.parametrize(
        ("schedule_id", "slug"),
        [("books.close", "books-close"), ("nightly_2", "nightly_2"), ("Bücher: Abschluß!", "b-cher-abschlu")],
    )
    def test_it_is_what_sentry_takes(self, schedule_id: str, slug: str) -> None:
        assert monitor_slug(schedule_id) == slug

    @pytest.mark.parametrize("schedule_id", ["x" * 200, "日本語", "42", "-", "a." * 100])
    def test_what_cannot_be_one_gets_a_hash(self, schedule_id: str) -> None:
        slug = monitor_slug(schedule_id)
        assert len(slug) <= SLUG_CHARS_MAX
        assert slug.startswith("schedule-")
        assert slug != monitor_slug(schedule_id + "!")
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
