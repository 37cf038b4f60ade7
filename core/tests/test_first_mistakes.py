"""Mistakes of a first day, and the whole text of what each is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from protojobs import Job, JobQueue, Scheduler, create_driver, job
from protojobs.errors import ProtojobsError

MOMENT = datetime(2030, 1, 1)  # noqa: DTZ001  (the mistake)
AT_THE_TOP = (
    "cannot name a job: no worker can import what is defined inside a function. Define it at the top of its module. "
    'Or, as in a test that works it too, give it a name: name="...".'
)
OPTIONS = "There are id, timezone, misfire, overlap, catch_up, jitter, start, end."


@job(name="first.report")
def report(day: datetime | None = None) -> None: ...


@pytest.fixture
def queue():
    with JobQueue(create_driver("memory://")) as queue:
        yield queue


def told(call: Callable[[], object]) -> str:
    with pytest.raises(ProtojobsError) as raised:
        call()
    return str(raised.value)


class TestAJobThatNoWorkerCanImport:
    HERE = f"{__name__}.TestAJobThatNoWorkerCanImport"

    def test_a_lambda(self) -> None:
        nameless = lambda: None  # noqa: E731  (the mistake)
        place = f"{self.HERE}.test_a_lambda.<locals>.<lambda>"
        assert told(lambda: job(nameless)) == f"{place} {AT_THE_TOP}"

    def test_a_function_in_a_function(self) -> None:
        def nested() -> None: ...

        place = f"{self.HERE}.test_a_function_in_a_function.<locals>.nested"
        assert told(lambda: job(nested)) == f"{place} {AT_THE_TOP}"

    def test_a_class_in_a_function(self) -> None:
        def define() -> None:
            class Nested(Job):
                def handle(self, data: object) -> None: ...

        place = f"{self.HERE}.test_a_class_in_a_function.<locals>.define.<locals>.Nested"
        assert told(define) == f"{place} {AT_THE_TOP}"


class TestADateWithoutATimeZone:
    def test_as_the_moment_of_a_job(self, queue) -> None:
        assert told(lambda: queue.later(MOMENT, report.bind())) == (
            "delay 2030-01-01T00:00:00 has no time zone, so its moment is a guess. "
            "Use datetime.now(timezone.utc) or give tzinfo=."
        )

    def test_in_data_of_a_declared_type(self, queue) -> None:
        assert told(lambda: queue.push(report.bind(MOMENT))) == (
            'job "first.report": $.day (2030-01-01T00:00:00) has no time zone, so its moment is a guess. '
            "Use datetime.now(timezone.utc) or give tzinfo=; in JSON write 2030-01-31T12:00:00Z. "
            "For a time on the wall wherever it is read declare Annotated[datetime, msgspec.Meta(tz=False)]."
        )


class TestAMisspeltSchedule:
    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("corn", 'There is no job option "corn". Did you mean "cron"?'),
            ("nam", 'There is no job option "nam". Did you mean "name"?'),
            (
                "when",
                'There is no job option "when". There are queue, max_retries, retry_delay, backoff, timeout, priority, '
                "name, aliases, retry_on, discard_on, executor, exclusive, soft_timeout, cron.",
            ),
        ],
    )
    def test_on_a_job(self, option: str, said: str) -> None:
        assert told(lambda: job(**{option: "0 7 * * *"})) == said  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("corn", f'There is no schedule option "corn". {OPTIONS}'),
            ("timezon", 'There is no schedule option "timezon". Did you mean "timezone"?'),
        ],
    )
    @pytest.mark.parametrize("way", ["every", "cron"])
    def test_in_a_call(self, queue, way: str, option: str, said: str) -> None:
        when = {"every": 60, "cron": "0 7 * * *"}[way]
        assert told(lambda: getattr(Scheduler(queue), way)(report, when, **{option: "x"})) == said

    def test_with_job_and_expression_in_the_other_order(self, queue) -> None:
        assert told(lambda: Scheduler(queue).cron("0 7 * * *", report)) == (
            'A cron expression is text, not FunctionJob. Write it like "0 7 * * mon-fri".'
        )

    def test_in_the_settings(self) -> None:
        schedules = {"nightly": {"job": "first.report", "corn": "0 8 * * *"}}
        assert told(lambda: JobQueue.from_config(url="memory://", schedules=schedules)) == (
            "the configuration given: schedules.nightly: unknown key 'corn'. Did you mean \"cron\"?"
        )
