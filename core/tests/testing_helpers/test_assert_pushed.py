"""`pushed`, `assert_pushed` and `assert_not_pushed`, and how readable they are when they fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from protojobs import Job, job
from protojobs.errors import DataInvalid, JobUnknown
from protojobs.testing import TestQueue, assert_not_pushed, assert_pushed


@pytest.fixture
def mail() -> type[Job]:
    class SendMail(Job):
        name = "mail.send"
        queue = "emails"

        def handle(self, data: dict[str, object]) -> None: ...

    return SendMail


@pytest.fixture
def add():
    @job(name="add")
    def add(a: int, b: int = 0) -> int:
        return a + b

    return add


def message(run) -> str:
    with pytest.raises(AssertionError) as caught:
        run()
    return str(caught.value)


class TestPushed:
    def test_lists_pushes_in_order_and_keeps_those_that_have_run(self, job_queue: TestQueue, mail, add) -> None:
        first = job_queue.push(mail, {"to": "jo"})
        second = job_queue.push(add.bind(1, 2))
        job_queue.drain()
        assert [push.id for push in job_queue.pushed()] == [first, second]
        assert [push.data for push in job_queue.pushed(mail)] == [{"to": "jo"}]
        assert [push.data for push in job_queue.pushed("add")] == [{"a": 1, "b": 2}]
        assert job_queue.pushed(mail().on_queue("anywhere"))[0].queue == "emails"

    def test_shows_the_options_of_the_push(self, job_queue: TestQueue, mail) -> None:
        job_queue.later(60, mail().with_priority(7).retries(1).retry_after(5).with_timeout(9), {})
        (push,) = job_queue.pushed()
        assert (push.delay, push.priority, push.max_retries, push.retry_delay, push.timeout) == (60, 7, 1, 5, 9)

    def test_a_push_sent_again_is_listed_once(self, job_queue: TestQueue, mail) -> None:
        job_id = job_queue.push(mail, {})
        job_queue.push(mail, {}, id=job_id)
        assert len(job_queue.pushed()) == 1


class TestAssertPushed:
    def test_finds_by_class_instance_function_binding_and_name(self, job_queue: TestQueue, mail, add) -> None:
        job_queue.push(mail, {"to": "jo"})
        job_queue.push(add.bind(1))
        for what in (mail, mail(), "mail.send", add, add.bind(1), "add"):
            assert len(assert_pushed(job_queue, what)) == 1
        assert_pushed(job_queue, mail, {"to": "jo"}, count=1, queue_name="emails", delay=0)

    def test_compares_what_a_worker_would_find(self, job_queue: TestQueue, mail) -> None:
        job_queue.push(mail, {"pair": (1, 2)})
        assert_pushed(job_queue, mail, {"pair": [1, 2]})
        assert_pushed(job_queue, mail, {"pair": (1, 2)})

    def test_other_data_is_shown_as_a_difference(self, job_queue: TestQueue, mail) -> None:
        job_queue.push(mail, {"to": "jo@example.com", "subject": "Welcome", "body": "x" * 80})
        wanted = {"to": "jo@example.com", "subject": "Farewell", "body": "x" * 80}
        text = message(lambda: assert_pushed(job_queue, mail, wanted))
        assert text.startswith('"mail.send", data {')
        assert " was not pushed." in text
        assert '  "mail.send" in queue "emails": ' in text
        assert "-  'subject': 'Farewell'," in text
        assert "+  'subject': 'Welcome'," in text
        assert "   'to': 'jo@example.com'" in text

    def test_another_queue_or_delay_is_shown(self, job_queue: TestQueue, mail) -> None:
        job_queue.later(timedelta(minutes=2), mail().on_queue("slow"), {})
        assert_pushed(job_queue, mail, queue_name="slow", delay=120)
        text = message(lambda: assert_pushed(job_queue, mail, queue_name="emails", delay=timedelta(hours=1)))
        for line in ('- queue "emails"', '+ queue "slow"', "- delay 3600 s", "+ delay 120 s", "due in 120 s"):
            assert line in text

    def test_a_moment_is_compared_as_one(self, job_queue: TestQueue, mail) -> None:
        job_queue.later("2030-06-01 12:00", mail, {})
        assert_pushed(job_queue, mail, delay=datetime(2030, 6, 1, 12, tzinfo=UTC))
        text = message(lambda: assert_pushed(job_queue, mail, delay="2030-06-02"))
        assert "- due at 2030-06-02 00:00:00+00:00" in text
        assert "+ due at 2030-06-01 12:00:00+00:00" in text

    def test_a_count_is_exact(self, job_queue: TestQueue, mail) -> None:
        job_queue.push(mail, {"to": "a"})
        job_queue.push(mail, {"to": "b"})
        assert len(assert_pushed(job_queue, mail, count=2)) == 2
        assert_pushed(job_queue, mail, {"to": "c"}, count=0)
        text = message(lambda: assert_pushed(job_queue, mail, count=1))
        assert text.splitlines()[0] == '"mail.send" was pushed 2 times, not once.'

    def test_other_jobs_are_named_or_that_there_were_none(self, job_queue: TestQueue, mail, add) -> None:
        assert "Nothing was pushed at all." in message(lambda: assert_pushed(job_queue, mail))
        job_queue.push(add.bind(1))
        assert "Other jobs pushed: add (1)." in message(lambda: assert_pushed(job_queue, mail))

    def test_many_pushes_are_not_all_shown(self, job_queue: TestQueue, add) -> None:
        job_queue.push_many(add.bind(n) for n in range(100))
        text = message(lambda: assert_pushed(job_queue, add.bind(1000)))
        assert "and 95 more" in text
        assert len(text.splitlines()) < 50

    def test_a_mistake_in_the_test_is_an_error_of_its_own(self, job_queue: TestQueue, add) -> None:
        with pytest.raises(JobUnknown, match='Did you mean "add"'):
            assert_pushed(job_queue, "ad")
        with pytest.raises(DataInvalid):
            assert_pushed(job_queue, add, {"a": "one"})


class TestAssertNotPushed:
    def test_passes_when_nothing_fits(self, job_queue: TestQueue, mail, add) -> None:
        assert_not_pushed(job_queue)
        job_queue.push(mail, {"to": "jo"})
        assert_not_pushed(job_queue, add)
        assert_not_pushed(job_queue, mail, {"to": "al"})
        assert_not_pushed(job_queue, mail, queue_name="elsewhere")

    def test_shows_what_was_pushed(self, job_queue: TestQueue, mail) -> None:
        job_queue.push(mail, {"to": "jo"})
        line = "  \"mail.send\" in queue \"emails\": {'to': 'jo'}"
        text = message(lambda: assert_not_pushed(job_queue, mail))
        assert text.splitlines() == ['"mail.send" should not have been pushed, and was once:', line]
        assert line in message(lambda: assert_not_pushed(job_queue))
